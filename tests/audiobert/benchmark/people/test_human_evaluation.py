"""The human evaluation: samples and sheets that can be made again, and figures that can be worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from audiobert.benchmark.people.human_evaluation import (
    Rating,
    aggregate,
    krippendorff_alpha,
    read_sheets,
    sample_for_evaluation,
    write_sheets,
)


def row(task: str, number: int) -> dict:
    spans = ["thing one", "thing two"] if task == "pitch" else ["woof"]
    answer = "higher" if task == "pitch" else "dog"
    return {"task": task, "sentence": f"Sentence {number}: [MASK].", "answer": answer, "spans": spans, "recordings": []}


ROWS = {task: [row(task, number) for number in range(8)] for task in ("animal", "pitch")}


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, answers: dict[str, tuple[str, str]]) -> Path:
    """Fills in accuracy and fluency by sentence and task, all others blank."""
    lines = read_csv(path)
    for line in lines:
        line["accuracy"], line["fluency"] = answers.get(line["task"] + line["sentence"], ("", ""))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def ratings_of(*annotators: list[int | None], task: str = "animal") -> list[Rating]:
    """One list of accuracies for each annotator; the fluency is three times as much."""
    return [
        Rating(f"annotator-{number}", task, f"r{place}", value, None if value is None else 3 * value)
        for number, values in enumerate(annotators)
        for place, value in enumerate(values)
    ]


def test_a_sample_is_drawn_by_seed_from_each_task_whatever_the_order_of_rows() -> None:
    sample = sample_for_evaluation(ROWS, per_task=5, seed=1)
    assert {task: len(rows) for task, rows in sample.items()} == {"animal": 5, "pitch": 5}
    assert all(row["task"] == task for task, rows in sample.items() for row in rows)
    assert len({row["sentence"] for row in sample["animal"]}) == 5
    turned = {task: rows[::-1] for task, rows in ROWS.items()}
    assert sample_for_evaluation(turned, per_task=5, seed=1) == sample
    assert sample_for_evaluation(ROWS, per_task=5, seed=2) != sample


def test_a_task_with_few_rows_is_taken_whole_and_doubles_count_once() -> None:
    sample = sample_for_evaluation({"animal": ROWS["animal"][:3] * 2}, per_task=5, seed=1)
    assert sorted(row["sentence"] for row in sample["animal"]) == [row["sentence"] for row in ROWS["animal"][:3]]
    with pytest.raises(ValueError, match="pitch has no row"):
        sample_for_evaluation({"pitch": []})
    with pytest.raises(ValueError, match="at least 1"):
        sample_for_evaluation(ROWS, per_task=0)


def test_each_annotator_gets_the_same_rows_in_an_order_of_their_own(tmp_path: Path) -> None:
    written = write_sheets(ROWS, tmp_path / "one", annotators=3, seed=1)
    assert [path.name for pair in written for path in pair] == [
        f"annotator-{number}.{kind}" for number in (1, 2, 3) for kind in ("csv", "html")
    ]
    sheets = [read_csv(path) for path, _ in written]
    assert list(sheets[0][0]) == ["id", "task", "sentence", "answer", "accuracy", "fluency", "comment"]
    orders = [[line["id"] for line in sheet] for sheet in sheets]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert Counter(line["task"] for line in sheets[0]) == {"animal": 8, "pitch": 8}
    assert {line["accuracy"] + line["fluency"] for sheet in sheets for line in sheet} == {""}

    again = write_sheets({task: rows[::-1] for task, rows in ROWS.items()}, tmp_path / "two", annotators=3, seed=1)
    assert [path.read_bytes() for pair in again for path in pair] == [p.read_bytes() for pair in written for p in pair]
    other = write_sheets(ROWS, tmp_path / "three", annotators=1, seed=2)
    assert [line["id"] for line in read_csv(other[0][0])] != orders[0]


def test_the_page_asks_both_questions_and_keeps_annotators_apart(tmp_path: Path) -> None:
    pages = []
    for _, page in write_sheets(ROWS, tmp_path, annotators=2):
        text = page.read_text(encoding="utf-8")
        start = text.index('<script type="application/json" id="sheet">')
        pages.append(json.loads(text[text.index(">", start) + 1 : text.index("</script>", start)]))
    asked = {
        question["column"]: [option["value"] for option in question["options"]] for question in pages[0]["questions"]
    }
    assert asked == {"accuracy": ["1", "0"], "fluency": ["0", "1", "2", "3"]}
    keys = [option["key"] for question in pages[0]["questions"] for option in question["options"]]
    assert len(set(keys)) == len(keys)
    instructions = " ".join(pages[0]["instructions"])
    assert "Accuracy:" in instructions and "Fluency" in instructions
    assert pages[0]["storage"] != pages[1]["storage"]


def test_filled_in_sheets_are_never_overwritten(tmp_path: Path) -> None:
    write_sheets(ROWS, tmp_path, annotators=2)
    with pytest.raises(FileExistsError, match="annotator-1.csv is there already"):
        write_sheets(ROWS, tmp_path, annotators=3)
    with pytest.raises(ValueError, match="0 annotators"):
        write_sheets(ROWS, tmp_path / "none", annotators=0)
    with pytest.raises(ValueError, match="0 rows"):
        write_sheets({}, tmp_path / "none")


def test_from_sheets_to_figures(tmp_path: Path) -> None:
    sample = {task: rows[:4] for task, rows in ROWS.items()}
    (first, _), (second, _) = write_sheets(sample, tmp_path, annotators=2)
    names = [row["sentence"] for row in sample["animal"]]
    fill_in(first, {f"animal{name}": answer for name, answer in zip(names, ["13", "12", "00", "13"], strict=True)})
    fill_in(second, {f"animal{name}": answer for name, answer in zip(names[:3], ["13", "02", "00"], strict=True)})
    result = aggregate(read_sheets([first, second]))

    animal, pitch = result.tasks["animal"], result.tasks["pitch"]
    assert (result.annotators, animal.rows, pitch.rows) == (2, 4, 4)
    assert (animal.accuracy.mean, animal.accuracy.answers, animal.accuracy.missing) == (pytest.approx(4 / 7), 7, 1)
    assert (animal.fluency.mean, animal.fluency.answers, animal.fluency.missing) == (pytest.approx(13 / 7), 7, 1)
    # Three rows with two answers: values 1 1, 1 0, 0 0. Observed disagreement 2 / 6, expected 2 * 3 * 3 / (6 * 5).
    assert animal.accuracy.alpha == pytest.approx(1 - (2 / 6) / (18 / 30))
    assert animal.fluency.alpha == pytest.approx(1)
    assert (pitch.accuracy.mean, pitch.accuracy.missing, pitch.accuracy.alpha) == (None, 8, None)


def test_alpha_is_that_of_a_worked_example() -> None:
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": four observers, twelve units, missing data."""
    nan = np.nan
    answers = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert krippendorff_alpha(answers, "nominal")[0] == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(answers, "ordinal")[0] == pytest.approx(0.815, abs=5e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("annotators", "reason"),
    [
        ([[1, 0, 1]], "a single annotator"),
        ([[1, 0, None], [None, None, 1]], "no row has two answers"),
        ([[None, None], [None, None]], "no row has two answers"),
        ([[1, 1, 1], [1, 1, None]], "all answers are the same"),
        # The only 0 stands in a row that nobody else has answered.
        ([[1, 1, 0], [1, 1, None]], "all answers are the same"),
    ],
)
def test_alpha_that_is_not_defined_has_a_reason(annotators: list[list[int | None]], reason: str) -> None:
    figures = aggregate(ratings_of(*annotators)).tasks["animal"]
    for figure in (figures.accuracy, figures.fluency):
        assert (figure.alpha, figure.no_alpha) == (None, reason)


def test_disagreement_at_every_row_is_below_chance() -> None:
    figures = aggregate(ratings_of([1, 0, 1, 0], [0, 1, 0, 1])).tasks["animal"]
    assert figures.accuracy.mean == 0.5
    assert figures.accuracy.alpha < 0


def test_table_markdown_and_json() -> None:
    result = aggregate([*ratings_of([1, 0, 1, 1], [1, 0, 1, None]), *ratings_of([1], [1], task="pitch")])
    shown = io.StringIO()
    Console(file=shown, width=160).print(result.to_table())
    assert "Human evaluation, 2 annotators" in shown.getvalue()
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert "animal accuracy 4 71.4 % 7 1 1.000".split() in lines
    assert "animal fluency 4 2.14 of 3 7 1 1.000".split() in lines
    assert "pitch accuracy 1 100.0 % 2 0 - (all answers are the same)".split() in lines
    assert "| animal | fluency | 4 | 2.14 of 3 | 7 | 1 | 1.000 |" in result.to_markdown().splitlines()
    told = json.loads(result.to_json())
    assert told["annotators"] == 2
    assert told["tasks"]["animal"]["accuracy"]["mean"] == pytest.approx(5 / 7)
    assert told["tasks"]["pitch"]["fluency"]["no_alpha"] == "all answers are the same"
    with pytest.raises(ValueError, match="no ratings"):
        aggregate([])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (("2", "3"), "annotator-1.csv, line [2-5]: accuracy must be one of 1, 0, or blank, got '2'"),
        (("1", "4"), "annotator-1.csv, line [2-5]: fluency must be one of 0, 1, 2, 3, or blank, got '4'"),
        (("right", "3"), "accuracy must be one of 1, 0, or blank, got 'right'"),
    ],
)
def test_values_out_of_range_are_named_with_their_line(tmp_path: Path, answer: tuple[str, str], message: str) -> None:
    ((sheet, _),) = write_sheets({"animal": ROWS["animal"][:4]}, tmp_path, annotators=1)
    fill_in(sheet, {"animal" + ROWS["animal"][0]["sentence"]: answer})
    with pytest.raises(ValueError, match=message):
        read_sheets([sheet])


def test_sheets_that_do_not_belong_together(tmp_path: Path) -> None:
    (first, _), (second, _) = write_sheets(ROWS, tmp_path / "one", annotators=2)
    ((same_name, _),) = write_sheets(ROWS, tmp_path / "two", annotators=1)
    with pytest.raises(ValueError, match="'annotator-1' was read already"):
        read_sheets([first, same_name])
    second.write_text("\n".join(second.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(ValueError, match="annotator-2.csv: its rows are not those of annotator-1"):
        read_sheets([first, second])
