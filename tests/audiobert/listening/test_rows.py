"""Rows that only who hears can answer: right by the pitches heard there, the same for a number, endless."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from audiobert.data.batches import IGNORED
from audiobert.data.masking import MASK
from audiobert.listening.held_out import HeldOut
from audiobert.listening.rows import CLOSE, ListeningRows, animal_labels
from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase

from audio_fixtures import tiny_knowledge_base
from text_fixtures import tiny_tokenizer

ANIMALS = ("cat", "dog", "owl")
COUNT = 400


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([*ANIMALS, "higher", "lower"])


@pytest.fixture(scope="module")
def made(sounds: AudioBertKnowledgeBase, tokenizer) -> ListeningRows:
    return ListeningRows(sounds, ANIMALS, tokenizer, seed=3, top_k=3)


@pytest.fixture(scope="module")
def rows(made: ListeningRows) -> list[dict]:
    return made.rows(range(COUNT))


def octave(sounds: AudioBertKnowledgeBase, recordings: list[int]) -> float:
    return sum(math.log2(sounds.recording(number).pitch_hz) for number in recordings) / len(recordings)


def test_the_answer_of_a_pair_is_that_of_the_pitches_heard(sounds: AudioBertKnowledgeBase, rows: list[dict]) -> None:
    pairs = [row for row in rows if row["task"] == "pitch"]
    assert len(pairs) > COUNT / 2
    for row in pairs:
        first, second = (octave(sounds, found) for found in row["recordings"])
        assert row["answer"] == ("higher" if first > second else "lower")
        assert abs(first - second) > math.log2(CLOSE)
    answers = Counter(row["answer"] for row in pairs)
    assert 0.4 < answers["higher"] / len(pairs) < 0.6


def test_sounds_bear_invented_names_or_labels_that_say_nothing_of_the_answer(
    sounds: AudioBertKnowledgeBase, made: ListeningRows, rows: list[dict]
) -> None:
    kinds = Counter()
    for row in (row for row in rows if row["task"] == "pitch"):
        labels = [sounds.recording(found[0]).label for found in row["recordings"]]
        assert all(len({sounds.recording(number).label for number in found}) == 1 for found in row["recordings"])
        assert labels[0] != labels[1]
        if set(row["spans"]) <= set(made.names):
            kinds["invented"] += 1
        else:
            assert sorted(row["spans"]) == sorted(labels)
            kinds["own" if row["spans"] == labels else "each other's"] += 1
    assert kinds["invented"] > kinds["own"] + kinds["each other's"]
    assert 0.7 < kinds["own"] / kinds["each other's"] < 1.4
    assert not set(made.names) & {*ANIMALS, "higher", "lower", "tuba", "banjo"}


def test_an_animal_is_asked_for_by_an_invented_word_and_heard(
    sounds: AudioBertKnowledgeBase, made: ListeningRows, rows: list[dict], tokenizer
) -> None:
    asked = [row for row in rows if row["task"] == "animal"]
    assert {row["answer"] for row in asked} == set(ANIMALS)
    for row in asked:
        assert [sounds.recording(number).label for number in row["recordings"][0]] == [row["answer"]] * len(
            row["recordings"][0]
        )
        # "blicking" of "blick".
        assert any(row["spans"][0].startswith(name.removesuffix("e")) for name in made.names)
        assert tokenizer.decode([label for label in row["labels"] if label != IGNORED]) == row["answer"]


def test_a_row_is_what_the_collator_takes(rows: list[dict], tokenizer) -> None:
    for row in rows:
        assert MASK in row["sentence"]
        assert len(row["recordings"]) == len(row["audio_positions"]) == len(row["spans"])
        assert all(row["span_labels"][place] == 1 for place in row["audio_positions"])
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"])
    assert {len(found) for row in rows for found in row["recordings"]} == {1, 2, 3}


def test_a_row_depends_on_the_seed_and_its_number_alone(
    sounds: AudioBertKnowledgeBase, made: ListeningRows, rows: list[dict], tokenizer
) -> None:
    again = ListeningRows(sounds, ANIMALS[::-1], tokenizer, seed=3, top_k=3)
    assert [again[number] for number in (17, 3)] == [rows[17], rows[3]]
    assert made[10**9]["sentence"]
    other = ListeningRows(sounds, ANIMALS, tokenizer, seed=4, top_k=3)
    assert other.rows(range(20)) != rows[:20]


def test_what_is_held_out_is_in_no_row(sounds: AudioBertKnowledgeBase, tokenizer) -> None:
    held_out = HeldOut.draw(sounds, ANIMALS)
    rest = held_out.without(sounds)
    heard = {
        rest.recording(number)
        for row in ListeningRows(rest, ANIMALS, tokenizer).rows(range(COUNT))
        for found in row["recordings"]
        for number in found
    }
    assert heard
    assert not {one.label for one in heard} & set(held_out.labels)
    assert not {one.id for one in heard} & set(held_out.recordings)


def test_without_animals_all_rows_are_pairs(sounds: AudioBertKnowledgeBase, tokenizer) -> None:
    made = ListeningRows(sounds, (), tokenizer)
    assert {row["task"] for row in made.rows(range(50))} == {"pitch"}


def test_a_knowledge_base_without_pitch_is_refused_with_the_remedy(tokenizer) -> None:
    with pytest.raises(ValueError, match="0 labels have one.*build-knowledge-base --measure"):
        ListeningRows(tiny_knowledge_base(), (), tokenizer)


def test_animals_are_the_answers_to_animal_rows(sounds: AudioBertKnowledgeBase) -> None:
    assert animal_labels(sounds, ["Cat", "owl", "owl", "whale"]) == {"cat", "owl"}
