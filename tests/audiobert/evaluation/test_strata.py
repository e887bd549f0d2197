import json
import os
from dataclasses import replace

import pytest
from rich.console import Console

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.significance import bootstrap_interval
from audiobert.evaluation.strata import stratify

TRAIN = [
    {"task": "animal", "sentence": "Meow is the sound a [MASK] makes.", "answer": "cat", "spans": ["Meow"]},
    {"task": "animal", "sentence": "A [MASK] barks.", "answer": "dog", "spans": ["barks"]},
    {
        "task": "pitch",
        "sentence": "Rain has a [MASK] pitch than a hum.",
        "answer": "higher",
        "spans": ["Rain", "a hum"],
    },
]


def row(
    number: int,
    sentence: str,
    answer: str,
    spans: tuple[str, ...],
    right: bool,
    split: str = "dev",
    task: str = "animal",
) -> RowPrediction:
    return RowPrediction(split, task, number, sentence, answer, spans, "", right)


ROWS = [
    row(0, "meow, is the sound a [MASK] makes", "Cat", ("Meow!",), True),
    row(1, "Meow is the sound a [MASK] makes.", "ocelot", ("Meow",), False),
    row(2, "The [MASK] purrs.", "cat", ("purrs",), True),
    row(3, "The [MASK] is still.", "cat", ("",), False),
    # What another task has in train is not familiar.
    row(4, "Rain has a [MASK] pitch than a hum.", "higher", ("Rain", "meow"), True, task="pitch"),
    row(5, "A hum has a [MASK] pitch than the rain.", "lower", ("A hum", "rain"), False, task="pitch"),
    row(6, "Meow has a [MASK] pitch than barks.", "lower", ("meow", "barks"), True, task="pitch"),
    row(0, "A [MASK] barks.", "dog", ("barks",), True, split="wiki"),
]


def sizes(report, by: str) -> dict[tuple[str, str, str], tuple[int, float]]:
    return {
        (part.split, part.task, part.level): (part.rows, part.accuracies["model"].mean)
        for part in report.strata
        if part.by == by
    }


def test_rows_are_told_apart_by_what_train_has():
    report = stratify({"model": [ROWS]}, TRAIN)
    assert sizes(report, "sentence in train") == {
        ("dev", "animal", "seen with this answer"): (1, 1.0),
        ("dev", "animal", "seen with others only"): (1, 0.0),
        ("dev", "animal", "not seen"): (2, 0.5),
        ("dev", "pitch", "seen with this answer"): (1, 1.0),
        ("dev", "pitch", "not seen"): (2, 0.5),
        ("wiki", "animal", "seen with this answer"): (1, 1.0),
    }
    assert sizes(report, "answer in train") == {
        ("dev", "animal", "seen"): (3, pytest.approx(2 / 3)),
        ("dev", "animal", "not seen"): (1, 0.0),
        ("dev", "pitch", "seen"): (1, 1.0),
        ("dev", "pitch", "not seen"): (2, 0.5),
        ("wiki", "animal", "seen"): (1, 1.0),
    }
    assert sizes(report, "spans in train") == {
        ("dev", "animal", "all seen"): (2, 0.5),
        ("dev", "animal", "none seen"): (1, 1.0),
        ("dev", "animal", "no spans"): (1, 0.0),
        ("dev", "pitch", "all seen"): (1, 0.0),
        ("dev", "pitch", "some seen"): (1, 1.0),
        ("dev", "pitch", "none seen"): (1, 1.0),
        ("wiki", "animal", "all seen"): (1, 1.0),
    }
    assert not sizes(report, "similarity")
    levels = [part.level for part in report.strata if (part.by, part.task) == ("sentence in train", "animal")]
    assert levels[:3] == ["seen with this answer", "seen with others only", "not seen"]


def test_without_train_nothing_is_familiar():
    report = stratify({"model": [ROWS]}, [])
    assert {part.level for part in report.strata} == {"not seen", "none seen", "no spans"}


def test_quarters_of_similarity():
    rows = [row(number, "A [MASK].", "cat", ("x",), number % 2 == 0) for number in range(9)]
    others = [row(number, "A [MASK].", "cat", ("x",), True, split="test") for number in range(2)]
    # The rows in falling order of similarity; nothing was retrieved for the last.
    similarities = {("dev", number): 0.9 - number / 10 for number in range(8)}
    similarities.update({("test", 0): 0.21, ("test", 1): 0.89, ("wiki", 0): 0.5})
    report = stratify({"model": [rows + others]}, TRAIN, similarities)
    assert sizes(report, "similarity") == {
        ("dev", "animal", "0.200 to 0.300"): (2, 0.5),
        ("dev", "animal", "0.400 to 0.500"): (2, 0.5),
        ("dev", "animal", "0.600 to 0.700"): (2, 0.5),
        ("dev", "animal", "0.800 to 0.900"): (2, 0.5),
        ("dev", "animal", "nothing retrieved"): (1, 1.0),
        ("test", "animal", "0.200 to 0.300"): (1, 1.0),
        ("test", "animal", "0.800 to 0.900"): (1, 1.0),
    }
    names = [part.level for part in report.strata if (part.by, part.split) == ("similarity", "dev")]
    assert names == sorted(names)


def test_quarters_are_of_each_task_by_itself():
    rows = [row(number, "A [MASK].", "cat", ("x",), True) for number in range(5)]
    rows += [row(number, "A [MASK].", "higher", ("x",), True, task="pitch") for number in range(5, 7)]
    # The quartiles of the animals are 0.1, 0.2 and 0.3, each the least of its quarter.
    similarities = {("dev", number): number / 10 for number in range(7)}
    assert {
        key[1:]: size for key, (size, _) in sizes(stratify({"model": [rows]}, [], similarities), "similarity").items()
    } == {
        ("animal", "0.000 to 0.000"): 1,
        ("animal", "0.100 to 0.100"): 1,
        ("animal", "0.200 to 0.200"): 1,
        ("animal", "0.300 to 0.400"): 2,
        ("pitch", "0.500 to 0.500"): 1,
        ("pitch", "0.600 to 0.600"): 1,
    }


def test_equal_similarities_stay_together():
    rows = [row(number, "A [MASK].", "cat", ("x",), True) for number in range(6)]
    found = {("dev", number): similarity for number, similarity in enumerate([1.0, 1.0, 1.0, 1.0, 0.5, 0.25])}
    names = {key[2]: size for key, (size, _) in sizes(stratify({"model": [rows]}, TRAIN, found), "similarity").items()}
    assert names == {"0.250 to 0.500": 2, "1.000 to 1.000": 4}
    one = sizes(stratify({"model": [rows]}, TRAIN, {("dev", 3): 0.5}), "similarity")
    assert {key[2]: size for key, (size, _) in one.items()} == {"0.500 to 0.500": 1, "nothing retrieved": 5}


def test_intervals_are_over_what_the_rows_of_a_kind_share():
    rows = [
        row(number, f"The [MASK] {number}.", "cat", ("Meow" if number < 6 else f"{number}",), number < 6)
        for number in range(12)
    ]
    (found,) = (
        part.accuracies["model"] for part in stratify({"model": [rows]}, TRAIN).strata if part.by == "answer in train"
    )
    correct, shares = [part.correct for part in rows], [part.spans for part in rows]
    assert (found.rows, found.clusters, found.interval) == (12, 7, bootstrap_interval(correct, clusters=shares))
    assert found.interval != bootstrap_interval(correct)


def test_models_with_seeds_stand_beside_each_other():
    wrong = [replace(part, correct=False) for part in ROWS]
    report = stratify({"audio": [ROWS, wrong], "control": [wrong]}, TRAIN)
    first = report.strata[0]
    assert (first.accuracies["audio"].mean, first.accuracies["audio"].seeds) == (0.5, 2)
    assert (first.accuracies["control"].mean, first.accuracies["control"].seeds) == (0, 1)
    lines = report.to_markdown().splitlines()
    assert lines[0] == "| by | split | task | kind | rows | audio | control |"
    assert lines[2] == (
        "| sentence in train | dev | animal | seen with this answer | 1 | 50.00 [0.00, 100.00] | 0.00 [0.00, 100.00] |"
    )
    assert "bootstrap over instruments" in lines[-1]
    assert len(lines) - 2 == 2 + len(report.strata) == 2 + len(json.loads(report.to_json())["strata"])
    console = Console(width=140)
    with console.capture() as captured:
        console.print(report.to_table())
    assert "50.00 [0.00, 100.00]" in captured.get()


def test_what_is_refused():
    with pytest.raises(ValueError, match="no model"):
        stratify({}, TRAIN)
    with pytest.raises(ValueError, match="no predictions"):
        stratify({"model": [[]]}, TRAIN)
    with pytest.raises(TypeError, match="wrap"):
        stratify({"model": ROWS}, TRAIN)
    with pytest.raises(ValueError, match="in the same order"):
        stratify({"model": [ROWS], "other": [ROWS[::-1]]}, TRAIN)
    with pytest.raises(ValueError, match="keys must be"):
        stratify({"model": [ROWS]}, TRAIN, {("dev", "0"): 0.5})
    with pytest.raises(ValueError, match="row 0 of dev must be finite, got nan"):
        stratify({"model": [ROWS]}, TRAIN, {("dev", 0): float("nan")})


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_published_files():
    data = load_auditorybench(os.environ["AUDITORYBENCH_DIR"])
    rows = [
        RowPrediction("test", part["task"], number, part["sentence"], part["answer"], tuple(part["spans"]), "", True)
        for number, part in enumerate(data["test"])
    ]
    report = stratify({"model": [rows]}, data["train"])
    # Compared with no regard to case and punctuation: of the sentences as they are written, 31 % are in train.
    assert {key[1:]: size for key, (size, _) in sizes(report, "sentence in train").items()} == {
        ("animal", "seen with this answer"): 73,
        ("animal", "seen with others only"): 315,
        ("animal", "not seen"): 823,
        ("pitch", "seen with this answer"): 47,
        ("pitch", "seen with others only"): 2,
        ("pitch", "not seen"): 2338,
    }
    assert {key[1:]: size for key, (size, _) in sizes(report, "spans in train").items()} == {
        ("animal", "all seen"): 864,
        ("animal", "none seen"): 347,
        ("pitch", "all seen"): 225,
        ("pitch", "some seen"): 715,
        ("pitch", "none seen"): 1447,
    }
