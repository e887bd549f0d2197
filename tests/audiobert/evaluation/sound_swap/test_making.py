"""What the questions of the sound swap are made of, and that text cannot answer them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from swap_fixtures import INSTRUMENTS, held_out_of_all, sounding_knowledge_base, tiny_sound_swap

from audiobert.evaluation.sound_swap.making import make_sound_swap
from audiobert.evaluation.sound_swap.questions import (
    ANIMALS_BY_EAR,
    NEW_SOUND,
    PARTS,
    SWAPPED_RECORDINGS,
    UNHEARD_NAMES,
    recordings_by_id,
)
from audiobert.listening.held_out import HeldOut
from audiobert.listening.names import is_held_out_name
from audiobert.modeling.labels_audiobert import spoken

from audio_fixtures import tiny_knowledge_base


@pytest.mark.parametrize("part", [UNHEARD_NAMES, NEW_SOUND])
def test_every_sentence_has_each_answer_equally_often_so_that_no_reading_of_it_gets_more_than_half(part):
    answers = defaultdict(Counter)
    for question in tiny_sound_swap().part(part):
        answers[question.sentence][question.answer] += 1
    assert len(answers) > 10
    assert all(counts["higher"] == counts["lower"] > 0 for counts in answers.values())


@pytest.mark.parametrize("part", [UNHEARD_NAMES, SWAPPED_RECORDINGS, NEW_SOUND])
def test_every_pair_stands_in_both_orders(part):
    asked = Counter((q.world, q.spans, q.recordings, q.answer) for q in tiny_sound_swap().part(part))
    other = {"higher": "lower", "lower": "higher"}
    turned = Counter(
        {(world, spans[::-1], heard[::-1], other[answer]): n for (world, spans, heard, answer), n in asked.items()}
    )
    assert asked == turned


def test_answers_are_those_of_the_pitches_that_stand_in_the_knowledge_base():
    by_id = recordings_by_id(sounding_knowledge_base())
    for question in tiny_sound_swap().questions:
        heard = [by_id[name] for name in question.recordings]
        assert tuple(one.label for one in heard) == question.labels
        if question.part == ANIMALS_BY_EAR:
            assert question.answer == heard[0].label
        elif question.part != NEW_SOUND:
            higher = heard[0].pitch_hz > heard[1].pitch_hz * 1.1
            lower = heard[1].pitch_hz > heard[0].pitch_hz * 1.1
            assert (higher, lower) == (question.answer == "higher", question.answer == "lower")


def test_names_that_are_swapped_say_the_contrary_of_what_sounds_and_both_clearly():
    by_id = recordings_by_id(sounding_knowledge_base())
    asked = tiny_sound_swap().part(SWAPPED_RECORDINGS)
    for question in asked:
        heard = [by_id[name].pitch_hz for name in question.recordings]
        named = [INSTRUMENTS[span.replace(" ", "_")] for span in question.spans]
        assert {question.answer, question.by_name} == {"higher", "lower"}
        assert (named[0] > named[1]) == (question.by_name == "higher")
        assert max(heard) >= 2 * min(heard) and max(named) >= 1.5 * min(named)
    assert "double bass" in {span for question in asked for span in question.spans}


def test_a_new_sound_stands_alone_in_its_world_and_far_from_labels_that_stay_as_they_are():
    swap = tiny_sound_swap()
    by_id = recordings_by_id(sounding_knowledge_base())
    for numbers in swap.worlds(NEW_SOUND).values():
        new = {
            (span, recording)
            for question in (swap.questions[number] for number in numbers)
            for span, recording, label in zip(question.spans, question.recordings, question.labels, strict=True)
            if span != spoken(label)
        }
        assert len(new) == 1
        (_, recording) = new.pop()
        for question in (swap.questions[number] for number in numbers):
            other = next(
                label for label, span in zip(question.labels, question.spans, strict=True) if span == spoken(label)
            )
            pitch, median = by_id[recording].pitch_hz, INSTRUMENTS[other]
            assert pitch < median / 2 or pitch > median * 2


def test_only_what_is_held_out_is_asked_about_under_names_that_no_training_gives():
    held_out = HeldOut(0, ("bassoon", "double_bass", "glockenspiel", "oboe", "tuba"), ("cat-0.ogg", "dog-3.ogg"))
    swap = make_sound_swap(sounding_knowledge_base(), held_out)
    labels = {label for question in swap.questions for label in question.labels}
    assert labels <= {*held_out.labels, "cat", "dog"}
    assert [question.recordings for question in swap.part(ANIMALS_BY_EAR)] == [("cat-0.ogg",), ("dog-3.ogg",)]
    invented = {span for question in swap.part(UNHEARD_NAMES) for span in question.spans}
    assert invented and all(map(is_held_out_name, invented))


def test_words_that_mean_something_are_no_invented_names():
    names = {span for question in tiny_sound_swap().part(UNHEARD_NAMES)[:20] for span in question.spans}
    again = make_sound_swap(sounding_knowledge_base(), held_out_of_all(), words=names)
    assert not names & {span for question in again.part(UNHEARD_NAMES) for span in question.spans}


def test_the_same_seed_makes_the_same_questions_and_another_one_others():
    again = make_sound_swap(sounding_knowledge_base(), held_out_of_all())
    assert again == make_sound_swap(sounding_knowledge_base(), held_out_of_all())
    other = make_sound_swap(sounding_knowledge_base(), held_out_of_all(), seed=1)
    assert all(other.part(part) != again.part(part) for part in PARTS)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (HeldOut(0, ("tuba", "ocarina"), ("cat-0.ogg",)), "not in the knowledge base: ocarina"),
        (HeldOut(0, ("tuba",), ("cat-0.ogg", "dog-0.ogg")), "two recordings of different labels"),
        (HeldOut(0, ("tuba", "bassoon"), ("cat-0.ogg", "dog-0.ogg")), "no two labels far enough apart"),
        (HeldOut(0, ("tuba", "piccolo"), ("cat-0.ogg", "dog-0.ogg")), "no new sound can be asked about"),
        (HeldOut(0, ("tuba", "oboe", "piccolo"), ("cat-0.ogg", "cat-1.ogg")), "not of two labels"),
        (HeldOut(0, ("rain",), ("cat-0.ogg", "dog-0.ogg")), "with `pitch_hz`"),
    ],
)
def test_too_little_that_is_held_out_is_one_error_that_says_what_is_missing(held_out, message):
    with pytest.raises(ValueError, match=message):
        make_sound_swap(sounding_knowledge_base(), held_out)


def test_a_knowledge_base_without_pitch_is_refused():
    sounds = tiny_knowledge_base()
    with pytest.raises(ValueError, match="build the knowledge base with `pitch_hz`"):
        make_sound_swap(sounds, HeldOut(0, ("dog", "cat"), ("sounds/2.ogg",)))


def test_a_label_without_pitch_among_others_is_left_out():
    held_out = held_out_of_all()
    with_rain = replace(held_out, labels=(*held_out.labels, "rain"))
    without = make_sound_swap(sounding_knowledge_base(), held_out)
    assert make_sound_swap(sounding_knowledge_base(), with_rain) == without
