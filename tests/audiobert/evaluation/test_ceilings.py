import os

import pytest

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.ceilings import ceiling, right_for_any_row
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.text_only import majority_control


def row(
    sentence: str, answer: str, predicted: str = "", correct: bool = False, split: str = "dev", task: str = "animal"
) -> RowPrediction:
    return RowPrediction(split, task, 0, sentence, answer, ("growl",), predicted, correct)


def test_one_answer_to_a_sentence_cannot_be_right_for_all_of_its_rows():
    growl = [row("Growl is the sound a [MASK] makes.", animal) for animal in ("Bear", "bear", "dog", "tiger")]
    meow = [row("Meow is the sound a [MASK] makes.", "cat")]
    assert ceiling(growl) == 2 / 4
    assert ceiling([*growl, *meow]) == 3 / 5
    assert ceiling(meow) == 1
    # Another split or task has answers of its own.
    elsewhere = [row("Growl is the sound a [MASK] makes.", "dog", split="test", task=task) for task in ("animal", "x")]
    assert ceiling([*growl, *elsewhere]) == 4 / 6


def test_an_answer_of_another_row_with_the_sentence_is_right_for_the_set():
    growl, meow = "Growl is the sound a [MASK] makes.", "Meow is the sound a [MASK] makes."
    rows = [
        row(growl, "bear", predicted="Dog"),
        row(growl, "dog", predicted="cat"),
        # Right by the rule of its model, whatever it looks like.
        row(growl, "dog", predicted="a dog", correct=True),
        row(meow, "cat", predicted="dog"),
        row(growl, "tiger", predicted="dog", split="test"),
    ]
    assert right_for_any_row(rows) == [True, False, True, False, False]


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_ceilings_of_the_published_files():
    rows = majority_control(load_auditorybench(os.environ["AUDITORYBENCH_DIR"]))
    found = {
        (task, split): f"{100 * ceiling([row for row in rows if (row.task, row.split) == (task, split)]):.2f}"
        for task in ("animal", "pitch")
        for split in ("dev", "test", "wiki")
    }
    assert found == {
        ("animal", "dev"): "94.94",
        ("animal", "test"): "89.51",
        ("animal", "wiki"): "47.72",
        ("pitch", "dev"): "100.00",
        ("pitch", "test"): "100.00",
        ("pitch", "wiki"): "100.00",
    }
