"""Who hears follows the sound, who reads follows the name, and the model is left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from swap_fixtures import answers_by, perfect_listener, reader, some_questions, spotting_audiobert, tiny_sound_swap
from transformers import BertForMaskedLM

from audiobert.evaluation.sound_swap import choosing
from audiobert.evaluation.sound_swap.answering import (
    AUDIO_OFF,
    BLIND_CLAP,
    END_TO_END,
    GIVEN,
    LISTENERS,
    NOTHING_INJECTED,
    OTHER_SPAN,
    RANDOM,
    TEXT_ALONE,
    answer_questions,
)
from audiobert.evaluation.sound_swap.figures import sound_swap_report
from audiobert.evaluation.sound_swap.questions import (
    ANIMALS_BY_EAR,
    NEW_SOUND,
    PARTS,
    SWAPPED_RECORDINGS,
    UNHEARD_NAMES,
    SoundSwap,
)

from audio_fixtures import tiny_knowledge_base
from model_fixtures import hearing_audiobert
from text_fixtures import tiny_bert


@pytest.fixture
def model():
    return spotting_audiobert(tiny_sound_swap())


def figures_of(model, listeners, swap=None):
    swap = swap or tiny_sound_swap()
    answers = answer_questions(model, model.tokenizer, swap, listeners=listeners, progress=False)
    return sound_swap_report({listener: [given] for listener, given in answers.items()}).parts


def test_a_perfect_listener_gets_all_of_every_part_and_nothing_without_the_sounds(model, monkeypatch):
    monkeypatch.setattr(choosing, "answer_logits", answers_by(perfect_listener))
    parts = figures_of(model, (END_TO_END, GIVEN, NOTHING_INJECTED, AUDIO_OFF))
    for part in PARTS:
        assert parts[part][END_TO_END].follows_sound == parts[part][GIVEN].follows_sound == 1
        assert parts[part][END_TO_END].spans_found == parts[part][END_TO_END].recordings_found == 1
        assert parts[part][NOTHING_INJECTED].neither == parts[part][AUDIO_OFF].neither == 1
        assert parts[part][AUDIO_OFF].spans_found is None
    assert parts[SWAPPED_RECORDINGS][END_TO_END].follows_name == 0
    assert parts[UNHEARD_NAMES][END_TO_END].follows_name is None


def test_a_perfect_listener_to_the_wrong_sounds_is_near_chance(model, monkeypatch):
    monkeypatch.setattr(choosing, "answer_logits", answers_by(perfect_listener))
    parts = figures_of(model, (RANDOM, OTHER_SPAN), some_questions(24))
    for listener in (RANDOM, OTHER_SPAN):
        assert parts[UNHEARD_NAMES][listener].follows_sound < 0.75
        assert parts[UNHEARD_NAMES][listener].recordings_found < 0.5


def test_who_reads_gets_half_where_names_are_new_and_follows_them_where_they_are_real(model, monkeypatch):
    monkeypatch.setattr(choosing, "answer_logits", answers_by(reader))
    parts = figures_of(model, (END_TO_END,))
    assert parts[UNHEARD_NAMES][END_TO_END].follows_sound == 0.5
    assert parts[NEW_SOUND][END_TO_END].follows_sound == 0.5
    swapped = parts[SWAPPED_RECORDINGS][END_TO_END]
    assert (swapped.follows_sound, swapped.follows_name, swapped.neither) == (0, 1, 0)
    assert parts[ANIMALS_BY_EAR][END_TO_END].follows_sound < 1


def test_a_detector_that_misses_a_span_is_told_apart_from_one_that_cannot_hear(model, monkeypatch):
    monkeypatch.setattr(choosing, "answer_logits", answers_by(perfect_listener))
    detect_all = model.detect_spans
    model.detect_spans = lambda *given: [row[:1] for row in detect_all(*given)]
    parts = figures_of(model, (END_TO_END, GIVEN), some_questions())
    assert parts[UNHEARD_NAMES][END_TO_END].spans_found == 0.5
    assert parts[UNHEARD_NAMES][END_TO_END].recordings_found == 0.5
    assert parts[UNHEARD_NAMES][END_TO_END].neither == 1
    assert parts[UNHEARD_NAMES][GIVEN].follows_sound == 1


def test_two_spans_that_are_taken_for_one_count_as_not_found(model):
    detect_all = model.detect_spans

    def in_one(*given):
        rows = detect_all(*given)
        return [[type(row[0])(row[0].start, row[-1].end, "all", 1.0)] for row in rows]

    model.detect_spans = in_one
    parts = figures_of(model, (END_TO_END,), some_questions())
    assert parts[UNHEARD_NAMES][END_TO_END].spans_found == 0
    assert parts[ANIMALS_BY_EAR][END_TO_END].spans_found == 1


def test_where_the_detector_finds_one_text_alone_another_spans_sound_is_none(model, monkeypatch):
    monkeypatch.setattr(choosing, "answer_logits", answers_by(perfect_listener))
    detect_all = model.detect_spans
    model.detect_spans = lambda *given: [[replace(span, text="it") for span in row] for row in detect_all(*given)]
    parts = figures_of(model, (OTHER_SPAN,), some_questions())
    assert all(parts[part][OTHER_SPAN].neither == 1 for part in PARTS)


def test_a_real_model_answers_as_all_listeners_and_differently_with_other_sounds(model):
    answers = answer_questions(model, model.tokenizer, some_questions(), progress=False)
    assert list(answers) == list(LISTENERS)
    assert all(len(given) == len(some_questions().questions) for given in answers.values())
    assert all(answer.predicted for given in answers.values() for answer in given)
    predicted = {listener: [answer.predicted for answer in given] for listener, given in answers.items()}
    assert predicted[END_TO_END] != predicted[AUDIO_OFF]
    assert predicted[GIVEN] != predicted[NOTHING_INJECTED]
    assert predicted[BLIND_CLAP] != predicted[END_TO_END]


def test_answers_do_not_depend_on_the_batch_and_come_in_the_order_of_the_questions(model):
    swap = some_questions(4)
    turned = SoundSwap(0, swap.questions[::-1])
    one = answer_questions(model, model.tokenizer, swap, listeners=(END_TO_END,), batch_size=3, progress=False)
    other = answer_questions(model, model.tokenizer, turned, listeners=(END_TO_END,), batch_size=16, progress=False)
    assert [answer.question for answer in one[END_TO_END]] == list(swap.questions)
    assert one[END_TO_END] == other[END_TO_END][::-1]


def test_the_model_has_its_own_knowledge_base_back_also_after_an_error(model, monkeypatch):
    own = model.knowledge_base
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    answer_questions(model, model.tokenizer, some_questions(), listeners=(END_TO_END,), progress=False)
    assert model.knowledge_base is own
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())

    def fail(*given):
        assert model.knowledge_base is not own
        raise RuntimeError("in the middle")

    monkeypatch.setattr(choosing, "answer_logits", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        answer_questions(model, model.tokenizer, some_questions(), progress=False)
    assert model.knowledge_base is own


def test_a_model_without_audio_is_asked_the_text_alone(monkeypatch):
    swap = some_questions(16)
    tokenizer = hearing_audiobert().tokenizer
    bert: BertForMaskedLM = tiny_bert(len(tokenizer))
    answers = answer_questions(bert, tokenizer, swap, progress=False)
    assert list(answers) == [TEXT_ALONE]
    parts = sound_swap_report({TEXT_ALONE: [answers[TEXT_ALONE]]}).parts
    assert parts[UNHEARD_NAMES][TEXT_ALONE].follows_sound == parts[NEW_SOUND][TEXT_ALONE].follows_sound == 0.5
    assert parts[UNHEARD_NAMES][TEXT_ALONE].spans_found is None
    silent = answer_questions(hearing_audiobert(injection="none"), tokenizer, some_questions(), progress=False)
    assert list(silent) == [TEXT_ALONE]
    assert all(answer.spans_found is not None and answer.heard_as is None for answer in silent[TEXT_ALONE])


def test_another_knowledge_base_an_unknown_listener_and_none_at_all_are_refused(model):
    with pytest.raises(ValueError, match="no listener 'loud'"):
        answer_questions(model, model.tokenizer, some_questions(), listeners=("loud",), progress=False)
    model.set_knowledge_base(None)
    with pytest.raises(ValueError, match="set_knowledge_base"):
        answer_questions(model, model.tokenizer, some_questions(), progress=False)
    model.set_knowledge_base(tiny_knowledge_base(audio_hidden_size=12))
    with pytest.raises(ValueError, match="of another knowledge base"):
        answer_questions(model, model.tokenizer, some_questions(), progress=False)
