"""Sentences about sounds read like AuditoryBench's and never tell their answer."""

import random

from audiobert.data.alignment import find_spans
from audiobert.data.masking import MASK
from audiobert.listening.phrasings import animal_sentence, pitch_sentence


def drawn(phrase, *names, count=400):
    return [phrase(*names, random.Random(number)) for number in range(count)]


def test_pairs_are_asked_for_in_dozens_of_forms_the_commonest_first():
    sentences = [sentence for sentence, _ in drawn(pitch_sentence, "blick", "drooth")]
    assert "The sound of a blick typically has a [MASK] pitch than a drooth." in sentences
    assert len(set(sentences)) > 24
    assert max(set(sentences), key=sentences.count).startswith("The sound of a blick typically has a [MASK] pitch than")


def test_sounds_of_animals_are_asked_for_in_a_dozen_forms():
    sentences = [sentence for sentence, _ in drawn(animal_sentence, "blick")]
    assert {"Blick is the sound a [MASK] makes.", "A [MASK] makes a blicking sound."} <= set(sentences)
    assert len(set(sentences)) > 12


def test_spans_stand_in_their_sentence_and_the_mask_once():
    for phrase, names in ((pitch_sentence, ("5-string banjo", "bagpipes")), (animal_sentence, ("snobe",))):
        for sentence, spans in drawn(phrase, *names):
            assert len(spans) == len(names)
            assert None not in find_spans(sentence, spans, MASK)
            assert sentence.count(MASK) == 1
            assert sentence[0].isupper() or sentence.startswith("5")


def test_articles_are_those_of_the_name_and_never_of_the_answer():
    pairs = " ".join(sentence for sentence, _ in drawn(pitch_sentence, "oboe", "bagpipes"))
    assert " an oboe" in pairs
    assert " a oboe" not in pairs
    assert " a bagpipes" not in pairs
    assert not any(f"n {MASK}" in sentence for sentence, _ in drawn(animal_sentence, "blick"))


def test_the_two_orders_of_a_pair_take_the_same_forms():
    one, other = drawn(pitch_sentence, "blick", "drooth"), drawn(pitch_sentence, "drooth", "blick")
    for (sentence, _), (turned, _) in zip(one, other, strict=True):
        assert (
            sentence.lower().replace("blick", "*").replace("drooth", "blick").replace("*", "drooth") == turned.lower()
        )
