"""What counts as the same animal, and what can be read out of a reply."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from datasets import DatasetDict

from audiobert.data.auditorybench import MASK, PITCH_ANSWERS, load_auditorybench
from audiobert.evaluation.prompting import (
    PROMPT_FOLDER,
    answer_set,
    completed_animal,
    replied_animal,
    replied_choice,
    rows_by_split,
    same_animal,
)

from text_fixtures import ANIMAL_ROWS, HEADERS, write_auditorybench, write_csv


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Alligator", "alligator"),
        ("a Roe-deer", "roe deer"),
        ("birds", "bird"),
        ("fly", "flies"),
        ("the canadian geese", "Canadian goose"),
        ("An owl", "owl"),
    ],
)
def test_form_makes_no_other_animal(first: str, second: str) -> None:
    assert same_animal(first, second) and same_animal(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("owl", "barn owl"),
        ("bird", "blackbird"),
        ("dogs bark", "dog"),
        ("hen", "chicken"),
        ("", ""),
        ("", "dog"),
        ("bus", "bu"),
        ("sea lions", "seal ion"),
    ],
)
def test_another_name_is_another_animal(first: str, second: str) -> None:
    assert not same_animal(first, second) and not same_animal(second, first)


@pytest.mark.parametrize(
    ("text", "animal"),
    [
        (" Dog\n\nSentence: more", "dog"),
        (" a barn owl. It hoots", "barn owl"),
        ("\n\n**Roe-deer**", "roe-deer"),
        (" vaux's swift, a bird", "vaux's swift"),
        (" [MASK]", ""),
        (" 42", ""),
        ("", ""),
        (" none", ""),
        (" the bird that is heard at night in the woods", ""),
    ],
)
def test_the_animal_that_a_completion_begins_with(text: str, animal: str) -> None:
    assert completed_animal(text) == animal


@pytest.mark.parametrize(
    ("reply", "animal"),
    [
        ("Dog", "dog"),
        ("Answer: a barn owl.", "barn owl"),
        ('"Guinea pig"', "guinea pig"),
        ("**Roe-deer**", "roe-deer"),
        ("", ""),
        ("0", ""),
        ("Unknown", ""),
        ("dog or cat?", ""),
        ("dog, cat", ""),
        ("It is the dog that you hear", ""),
        ("dog\ncat", ""),
        ("dog (a mammal)", ""),
    ],
)
def test_a_reply_has_to_be_an_animal_and_nothing_else(reply: str, animal: str) -> None:
    assert replied_animal(reply) == animal


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("higher", "higher"),
        ("Lower.", "lower"),
        ("**Higher**", "higher"),
        ("Answer: lower", "lower"),
        ("high", ""),
        ("higher or lower", ""),
        ("The first is higher", ""),
        ("higher\nlower", ""),
        ("", ""),
    ],
)
def test_a_reply_has_to_be_higher_or_lower(reply: str, answer: str) -> None:
    assert replied_choice(reply, PITCH_ANSWERS) == answer


def test_a_reply_has_to_be_a_letter() -> None:
    assert [replied_choice(reply, "ABCD") for reply in ("b", "C.", "Answer: D", "E", "A or B", "A: cat")] == [
        *("B", "C", "D"),
        *("", "", ""),
    ]


def test_animals_are_chosen_from_those_of_train_and_the_split(tmp_path: Path) -> None:
    folder = write_auditorybench(tmp_path)
    wiki = [["Alligator", "bellow", "A [MASK] bellows."], ["Cat", "hiss", "A [MASK] hisses."]]
    write_csv(folder / "animal_wiki.csv", HEADERS["animal"], wiki)
    data = load_auditorybench(folder)
    rows = rows_by_split(data)["wiki"]

    assert answer_set(data, rows) == ["cat", "dog", "duckling", "alligator"]
    assert answer_set(data["wiki"], rows) == ["alligator", "cat"]


def test_rows_of_a_dataset_that_lacks_something_are_refused(tmp_path: Path) -> None:
    data = load_auditorybench(write_auditorybench(tmp_path, ANIMAL_ROWS))

    with pytest.raises(ValueError, match="no column spans, task"):
        rows_by_split(data.remove_columns(["task", "spans"]))
    with pytest.raises(ValueError, match="out of train, dev, test, wiki"):
        rows_by_split(data, ["validation"])
    with pytest.raises(ValueError, match="leave them out"):
        rows_by_split(data["test"], ["test"])
    assert list(rows_by_split(DatasetDict(test=data["test"]))) == ["test"]


def real_data() -> DatasetDict:
    if "AUDITORYBENCH_DIR" not in os.environ:
        pytest.skip("AUDITORYBENCH_DIR does not name AuditoryBench's CSV files")
    return load_auditorybench(os.environ["AUDITORYBENCH_DIR"])


@pytest.mark.real_data
def test_the_sets_of_the_published_benchmark_are_as_large_as_documented() -> None:
    data = real_data()
    rows = rows_by_split(data)

    assert {split: len(answer_set(data, rows[split])) for split in rows} == {"dev": 596, "test": 629, "wiki": 560}


@pytest.mark.real_data
def test_the_examples_of_the_prompts_give_no_sentence_of_the_benchmark_away() -> None:
    sentences = {sentence for part in real_data().values() for sentence in part["sentence"][:]}
    examples = [
        line.removeprefix("Sentence: ")
        for path in PROMPT_FOLDER.glob("*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
        if MASK in line
    ]

    assert examples and sentences.isdisjoint(examples)
