"""Shares, intervals over labels, the controls without a language model, and the file of answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from swap_fixtures import answers_by, perfect_listener, some_questions, spotting_audiobert, tiny_sound_swap

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.sound_swap import choosing
from audiobert.evaluation.sound_swap.answering import END_TO_END, TEXT_ALONE
from audiobert.evaluation.sound_swap.answers import SwapAnswer, load_answers, save_answers
from audiobert.evaluation.sound_swap.figures import sound_swap_report
from audiobert.evaluation.sound_swap.measuring import answers_of_all
from audiobert.evaluation.sound_swap.questions import (
    ANIMALS_BY_EAR,
    NEW_SOUND,
    PARTS,
    SWAPPED_RECORDINGS,
    UNHEARD_NAMES,
)
from audiobert.evaluation.sound_swap.without_hearing import LINEAR, MAJORITY, linear_answers, majority_answers

from text_fixtures import tiny_bert, tiny_tokenizer, write_auditorybench


def right_where(condition) -> list[SwapAnswer]:
    other = {"higher": "lower", "lower": "higher", "cat": "dog", "dog": "duck", "duck": "cat"}
    return [
        SwapAnswer(question, question.answer if condition(question) else other[question.answer])
        for question in tiny_sound_swap().questions
    ]


def test_shares_are_over_all_seeds_and_intervals_over_labels():
    tubas = right_where(lambda question: "tuba" in question.labels)
    report = sound_swap_report({"model": [tubas, right_where(lambda question: True)]})
    found = report.parts[UNHEARD_NAMES]["model"]
    share = sum("tuba" in question.labels for question in tiny_sound_swap().part(UNHEARD_NAMES)) / 80
    assert found.follows_sound == pytest.approx((1 + share) / 2)
    assert (found.seeds, found.questions, found.labels) == (2, 80, 8)
    assert found.sd > 0
    by_label = sound_swap_report({"model": [tubas]}).parts[UNHEARD_NAMES]["model"].interval
    unrelated = [
        replace(answer, question=replace(answer.question, labels=(str(number), str(-number))))
        for number, answer in enumerate(tubas, 1)
    ]
    by_row = sound_swap_report({"model": [unrelated]}).parts[UNHEARD_NAMES]["model"].interval
    # All that is right is right of one label, which a resample may leave out.
    assert by_label.high - by_label.low > 1.3 * (by_row.high - by_row.low)


def test_sound_name_and_neither_are_all_answers_where_names_are_real():
    questions = tiny_sound_swap().part(SWAPPED_RECORDINGS)
    said = [question.answer for question in questions[:10]] + [question.by_name for question in questions[10:30]]
    answers = [SwapAnswer(*pair) for pair in zip(questions, [*said, *[""] * (len(questions) - 30)], strict=True)]
    found = sound_swap_report({"model": [answers]}).parts[SWAPPED_RECORDINGS]["model"]
    assert found.follows_sound == 10 / len(questions)
    assert found.follows_name == 20 / len(questions)
    assert found.neither == (len(questions) - 30) / len(questions)


def test_what_hearing_adds_is_against_every_other_listener_on_the_same_questions():
    heard, read = right_where(lambda question: True), majority_answers(tiny_sound_swap())
    report = sound_swap_report({END_TO_END: [heard, heard], MAJORITY: [read]})
    for part in PARTS:
        assert report.parts[part][END_TO_END].hearing_adds is None
        gain = report.parts[part][MAJORITY].hearing_adds
        assert gain.difference == 0.5
        assert gain.interval.low <= 0.5 <= gain.interval.high
    assert "| +50.00 [" in report.to_markdown()
    assert sound_swap_report({MAJORITY: [read]}).parts[NEW_SOUND][MAJORITY].hearing_adds is None


def test_seeds_that_answered_other_questions_and_no_answers_are_refused():
    answers = right_where(lambda question: True)
    with pytest.raises(ValueError, match="answered other questions"):
        sound_swap_report({"model": [answers, answers[:-1]]})
    with pytest.raises(ValueError, match="answered other questions"):
        sound_swap_report({END_TO_END: [answers], "model": [answers[:-1]]})
    with pytest.raises(ValueError, match="no answers of 'model'"):
        sound_swap_report({"model": [[]]})


def test_table_and_json_hold_every_figure():
    report = sound_swap_report({"model": [right_where(lambda question: True)]}, {"model": "mini"})
    values = json.loads(report.to_json())
    assert values["settings"] == {"model": "mini"}
    assert list(values["parts"]) == list(PARTS)
    assert values["parts"][NEW_SOUND]["model"]["follows_sound"] == 1
    table = report.to_markdown()
    assert "| unheard names | model | 80 | 100.00 |" in table
    assert "over the labels of the recordings" in table


def test_the_majority_answer_gets_half_of_pitch_and_the_most_frequent_animal():
    parts = sound_swap_report({MAJORITY: [majority_answers(tiny_sound_swap())]}).parts
    for part in PARTS[:3]:
        assert parts[part][MAJORITY].follows_sound == 0.5
    assert parts[ANIMALS_BY_EAR][MAJORITY].follows_sound == 0.5  # two cats among four


def test_a_linear_classifier_of_the_text_gets_half_of_new_names_and_chooses_between_the_same_animals(tmp_path):
    train = load_auditorybench(write_auditorybench(tmp_path))["train"]
    answers = linear_answers(tiny_sound_swap(), train)
    assert [answer.question for answer in answers] == list(tiny_sound_swap().questions)
    parts = sound_swap_report({LINEAR: [answers]}).parts
    assert parts[UNHEARD_NAMES][LINEAR].follows_sound == parts[NEW_SOUND][LINEAR].follows_sound == 0.5
    animals = {answer.predicted for answer in answers if answer.question.part == ANIMALS_BY_EAR}
    assert animals <= {"cat", "dog"}  # the train rows know a duckling as well


def test_a_model_its_controls_and_those_without_a_model_stand_beside_each_other(tmp_path, monkeypatch):
    swap, model = some_questions(4), spotting_audiobert(tiny_sound_swap())
    monkeypatch.setattr(choosing, "answer_logits", answers_by(perfect_listener))
    train = load_auditorybench(write_auditorybench(tmp_path))["train"]
    bert = tiny_bert(len(tiny_tokenizer()))
    answers = answers_of_all(
        (model, model.tokenizer),
        swap,
        listeners=(END_TO_END,),
        controls={"plain BERT": (bert, model.tokenizer)},
        train=train,
        progress=False,
    )
    assert list(answers) == [END_TO_END, f"plain BERT, {TEXT_ALONE}", LINEAR, MAJORITY]
    assert all([answer.question for answer in given] == list(swap.questions) for given in answers.values())


def test_answers_are_read_back_as_they_were_written_and_say_what_they_follow(tmp_path):
    swap = tiny_sound_swap()
    answers = {
        "one": [SwapAnswer(swap.questions[0], "higher", (True, False), ("blick", None))],
        "other": [SwapAnswer(question, "lower") for question in swap.questions],
    }
    save_answers(tmp_path / "answers.jsonl", answers)
    assert load_answers(tmp_path / "answers.jsonl") == answers
    first = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert (first["listener"], first["follows"]) == ("one", "neither")
    assert first["sentence"] == swap.questions[0].sentence
    (tmp_path / "answers.jsonl").write_text('{"listener": "one"}\n')
    with pytest.raises(ValueError, match=r"answers.jsonl, line 1: no answer"):
        load_answers(tmp_path / "answers.jsonl")
