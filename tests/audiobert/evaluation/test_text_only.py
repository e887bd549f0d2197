from __future__ import annotations

import os
import random

import pytest
from datasets import Dataset, DatasetDict

from audiobert.data.auditorybench import FEATURES, load_auditorybench
from audiobert.evaluation.text_only import linear_control, majority_control

SOUNDS = {"cat": "meow", "dog": "bark", "duck": "quack"}
LOW, HIGH = ["bass drum", "tuba", "truck engine"], ["piccolo", "whistle", "cricket"]


def animal(name: str, sound: str) -> dict:
    return {"sentence": f"{sound} is the sound a [MASK] makes.", "answer": name, "spans": [sound], "task": "animal"}


def pitch(first: str, second: str, answer: str) -> dict:
    sentence = f"The {first} has a [MASK] pitch than the {second}."
    return {"sentence": sentence, "answer": answer, "spans": [first, second], "task": "pitch"}


ANIMALS = [animal(name, sound) for name, sound in SOUNDS.items() for _ in range(3)] + [animal("dog", "bark")]
# Always the high sound first: an intercept would learn "higher" from it.
PITCHES = [pitch(high, low, "higher") for high in HIGH for low in LOW] + [pitch("tuba", "piccolo", "lower")]


def splits(train: list[dict], **others: list[dict]) -> DatasetDict:
    return DatasetDict(
        {
            name: Dataset.from_dict({key: [row[key] for row in rows] for key in FEATURES}, features=FEATURES)
            for name, rows in {"train": train, **others}.items()
        }
    )


def accuracy(rows: list) -> float:
    return sum(row.correct for row in rows) / len(rows)


def test_rows_are_those_of_the_data_in_its_order():
    test = [PITCHES[0], ANIMALS[0], PITCHES[-1]]
    for control in (majority_control, linear_control):
        rows = control(splits(ANIMALS + PITCHES, dev=[ANIMALS[3]], test=test))
        assert [(row.split, row.row) for row in rows] == [("dev", 0), ("test", 0), ("test", 1), ("test", 2)]
        for row, given in zip(rows[1:], test, strict=True):
            assert (row.task, row.sentence, row.answer) == (given["task"], given["sentence"], given["answer"])
            assert row.spans == tuple(given["spans"])


def test_the_majority_is_that_of_the_task_in_train():
    data = splits(ANIMALS + PITCHES, dev=[animal("Dog", "bark"), animal("cat", "meow"), PITCHES[0], PITCHES[-1]])
    rows = majority_control(data)
    assert [row.predicted for row in rows] == ["dog", "dog", "higher", "higher"]
    assert [row.correct for row in rows] == [True, False, True, False]


def test_of_equally_frequent_answers_the_first_of_train_and_case_does_not_count():
    data = splits([animal("cat", "a"), animal("Dog", "b"), animal("dog", "c"), animal("CAT", "d")], dev=ANIMALS)
    assert {row.predicted for row in majority_control(data)} == {"cat"}


def test_a_text_that_tells_the_answer_is_learned_and_capitals_of_the_answer_do_not_count():
    held_out = [animal(name.capitalize(), f"A loud {sound}") for name, sound in SOUNDS.items()]
    rows = linear_control(splits(ANIMALS, dev=held_out, wiki=held_out[:1]))
    assert [row.predicted for row in rows] == [*SOUNDS, "cat"]
    assert accuracy(rows) == 1
    wrong = linear_control(splits(ANIMALS, dev=[animal("catfish", "meow")]))
    assert (wrong[0].predicted, wrong[0].correct) == ("cat", False)


def test_a_text_that_tells_nothing_gives_chance():
    draw = random.Random(0)

    def noise(count: int) -> list[dict]:
        words = ["".join(draw.choices("abcdefghij", k=8)) for _ in range(2 * count)]
        return [pitch(words[2 * i], words[2 * i + 1], draw.choice(["higher", "lower"])) for i in range(count)]

    assert accuracy(linear_control(splits(noise(400), test=noise(1000)))) == pytest.approx(0.5, abs=0.06)


def test_swapped_spans_swap_the_answer():
    pairs = [(first, second) for first in HIGH + LOW for second in HIGH + LOW if first != second]
    data = splits(
        PITCHES,
        dev=[pitch(first, second, "higher") for first, second in pairs],
        test=[pitch(second, first, "lower") for first, second in pairs],
    )
    rows = linear_control(data)
    first, swapped = rows[: len(pairs)], rows[len(pairs) :]
    assert {row.predicted for row in first} == {"higher", "lower"}
    assert all(one.predicted != other.predicted for one, other in zip(first, swapped, strict=True))
    assert [one.correct for one in first] == [other.correct for other in swapped]
    assert all(row.correct for row in first if row.spans[0] in HIGH and row.spans[1] in LOW)
    assert all(row.correct for row in swapped if row.spans[1] in HIGH and row.spans[0] in LOW)


@pytest.mark.parametrize("spans", [("tuba", "tuba"), ("", ""), ("", " "), ("\u4e00\u4e01", "\u4e02\u4e03")])
@pytest.mark.parametrize("more, answer", [("higher", "higher"), ("lower", "lower")])
def test_spans_that_cannot_be_told_apart_get_the_more_frequent_answer(spans, more, answer):
    train = PITCHES if more == "higher" else [pitch(*reversed(row["spans"]), "lower") for row in PITCHES[:-1]]
    train = [*train, PITCHES[0], PITCHES[-1]]
    assert linear_control(splits(train, dev=[pitch(*spans, "higher")]))[0].predicted == answer


def test_twice_the_same():
    data = splits(ANIMALS + PITCHES, dev=ANIMALS + PITCHES)
    assert linear_control(data) == linear_control(data)


def test_which_splits():
    data = splits(ANIMALS, dev=ANIMALS[:2], test=[], wiki=ANIMALS[:1])
    assert [row.split for row in majority_control(data)] == ["dev", "dev", "wiki"]
    assert [row.split for row in linear_control(data, ["wiki"])] == ["wiki"]
    assert len(majority_control(data, ["train"])) == len(ANIMALS)
    assert linear_control(data, ["test"]) == []


def test_refusals():
    data = splits(ANIMALS, dev=ANIMALS)
    with pytest.raises(TypeError, match="DatasetDict"):
        majority_control(data["dev"])
    with pytest.raises(ValueError, match="learns from split train"):
        majority_control(DatasetDict(dev=data["dev"]))
    for wrong in (["nowhere"], "dev", []):
        with pytest.raises(ValueError, match="`splits` must be"):
            linear_control(data, wrong)
    with pytest.raises(ValueError, match="no column spans"):
        majority_control(DatasetDict(train=data["train"], dev=data["dev"].remove_columns("spans")))
    with pytest.raises(ValueError, match="no row of task 'pitch'"):
        linear_control(splits(ANIMALS, dev=PITCHES))
    with pytest.raises(ValueError, match="have the answer 'cat'"):
        linear_control(splits(ANIMALS[:3], dev=ANIMALS))
    with pytest.raises(ValueError, match="needs two spans"):
        linear_control(splits(PITCHES, dev=[{**PITCHES[0], "spans": ["tuba"]}]))
    with pytest.raises(ValueError, match="are empty"):
        linear_control(splits([pitch("", "", "higher"), pitch(" ", "", "lower")], dev=PITCHES))


@pytest.mark.real_data
@pytest.mark.skipif(
    "AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR does not name AuditoryBench's CSV files"
)
@pytest.mark.parametrize("task, expected", [("animal", (37.1, 37.5, 17.3)), ("pitch", (76.0, 75.1, 78.6))])
def test_the_published_files_give_the_known_figures(task, expected):
    rows = linear_control(load_auditorybench(os.environ["AUDITORYBENCH_DIR"], [task]))
    measured = [100 * accuracy([row for row in rows if row.split == name]) for name in ("dev", "test", "wiki")]
    assert measured == pytest.approx(expected, abs=0.3)
