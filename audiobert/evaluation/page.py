"""A page on a whole evaluation: what audio changed, row by row and answer by answer, and which animals are confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..reports.pages import write_page
from .predictions import RowPrediction

OTHER = "(other)"

# By whether the prediction was right without audio and is right with it.
OUTCOMES = {(False, True): "helped", (True, False): "harmed", (True, True): "both right"}
CHANGED_BUT_WRONG, SAME_AND_WRONG = "wrong otherwise", "wrong alike"


@dataclass(frozen=True)
class AnswerChange:
    """How the rows with one answer fared: of `rows`, those right without audio and with it.

    Answers that differ in case alone are one; `answer` is in lower case.
    """

    task: str
    split: str
    answer: str
    rows: int
    right_without: int
    right_with: int


@dataclass(frozen=True)
class Confusion:
    """
    Which answers are given for which.

    Attributes:
        labels: the answers of the data that most rows have, most first, in lower case.
        counts: one row for each label, how often each of `labels` was predicted, and at the end anything else.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def outcome(without: RowPrediction, with_audio: RowPrediction) -> str:
    """ "helped" (wrong without audio, right with it), "harmed", "both right", and of rows that are wrong twice
    "wrong otherwise" if the prediction changed, else "wrong alike"."""
    right = without.correct, with_audio.correct
    if right in OUTCOMES:
        return OUTCOMES[right]
    return SAME_AND_WRONG if without.predicted == with_audio.predicted else CHANGED_BUT_WRONG


def answer_changes(rows_with: Sequence[RowPrediction], rows_without: Sequence[RowPrediction]) -> list[AnswerChange]:
    """For each split, task and answer how many rows were right without and with audio: the largest gain first, the
    largest loss last, and of equal changes the answer with more rows first.

    Raises:
        ValueError: as `write_evaluation_page`.
    """
    _check_pairs(rows_with, rows_without)
    total: Counter[tuple[str, str, str]] = Counter()
    right_with: Counter[tuple[str, str, str]] = Counter()
    right_without: Counter[tuple[str, str, str]] = Counter()
    for with_audio, without in zip(rows_with, rows_without, strict=True):
        key = with_audio.task, with_audio.split, _label(with_audio.answer)
        total[key] += 1
        right_with[key] += with_audio.correct
        right_without[key] += without.correct
    changes = [AnswerChange(*key, rows, right_without[key], right_with[key]) for key, rows in total.items()]
    return sorted(changes, key=lambda change: (change.right_without - change.right_with, -change.rows))


def confusion(rows: Sequence[RowPrediction], labels: Sequence[str]) -> Confusion:
    """
    Counts what was predicted in the rows whose answer is one of `labels` (in lower case).

    A right prediction counts as the answer, however it is spelt; a wrong one by its text in lower case.
    """
    places = {label: place for place, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for row in rows:
        place = places.get(_label(row.answer))
        if place is not None:
            predicted = row.answer if row.correct else row.predicted
            counts[place][places.get(_label(predicted), len(labels))] += 1
    return Confusion(tuple(labels), tuple(map(tuple, counts)))


def write_evaluation_page(
    rows_with: Sequence[RowPrediction],
    rows_without: Sequence[RowPrediction],
    path: str | Path,
    *,
    top_answers: int = 25,
) -> Path:
    """
    Writes one HTML file that needs no server and loads nothing: accuracy by split and task, the answers that gained
    and lost most, every row with both predictions (those that audio changed first), and a confusion map of the
    animals.

    Args:
        rows_with: what the model answered with audio.
        rows_without: what it, or a text-only control, answered without, to the same rows in the same order.
        path: the file to write.
        top_answers: animals in the confusion map, those that most rows have as their answer.

    Returns:
        The path.

    Raises:
        ValueError: there are no rows, the rows are not the same ones, or `top_answers` is below 1.
    """
    _check_pairs(rows_with, rows_without)
    if top_answers < 1:
        raise ValueError(f"`top_answers` must be 1 or more, got {top_answers}.")
    data = {
        "summary": _summary(rows_with, rows_without),
        "answers": [asdict(change) for change in answer_changes(rows_with, rows_without)],
        "outcomes": ["helped", "harmed", CHANGED_BUT_WRONG, SAME_AND_WRONG, "both right"],
        "rows": [
            [
                *(with_audio.split, with_audio.task, with_audio.row, with_audio.sentence, with_audio.answer),
                *(list(with_audio.spans), without.predicted, with_audio.predicted, outcome(without, with_audio)),
            ]
            for with_audio, without in zip(rows_with, rows_without, strict=True)
        ],
        "other": OTHER,
        "confusion": _confusion_by_split(rows_with, rows_without, top_answers),
    }
    return write_page("evaluation.html", data, path)


def _check_pairs(rows_with: Sequence[RowPrediction], rows_without: Sequence[RowPrediction]) -> None:
    if not rows_with and not rows_without:
        raise ValueError("There are no rows to show.")
    if len(rows_with) != len(rows_without):
        raise ValueError(f"{len(rows_with)} rows with audio and {len(rows_without)} without cannot be compared.")
    for number, (first, second) in enumerate(zip(rows_with, rows_without, strict=True)):
        names = ("split", "task", "row", "sentence", "answer")
        differing = [name for name in names if getattr(first, name) != getattr(second, name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"The predictions are not of the same rows: at {number} the {name} is {getattr(first, name)!r} with "
                f"audio and {getattr(second, name)!r} without. Give both of the same data in the same order."
            )


def _summary(rows_with: Sequence[RowPrediction], rows_without: Sequence[RowPrediction]) -> list[dict[str, Any]]:
    tallies: dict[tuple[str, str], Counter] = {}
    for with_audio, without in zip(rows_with, rows_without, strict=True):
        tallies.setdefault((with_audio.split, with_audio.task), Counter())[outcome(without, with_audio)] += 1
    return [{"split": split, "task": task, "outcomes": dict(tally)} for (split, task), tally in tallies.items()]


def _confusion_by_split(
    rows_with: Sequence[RowPrediction], rows_without: Sequence[RowPrediction], top_answers: int
) -> dict[str, dict[str, Any]]:
    """For each split, and for all together as "", the labels and both counts; nothing if there are no animals."""
    animals_with, animals_without = ([row for row in rows if row.task != "pitch"] for rows in (rows_with, rows_without))
    splits = list(dict.fromkeys(row.split for row in animals_with))
    result = {}
    for split in ["", *splits] if len(splits) > 1 else splits:
        chosen = [row for row in animals_with if split in ("", row.split)]
        labels = [label for label, _ in Counter(_label(row.answer) for row in chosen).most_common(top_answers)]
        result[split] = {
            "labels": labels,
            "with": confusion(chosen, labels).counts,
            "without": confusion([row for row in animals_without if split in ("", row.split)], labels).counts,
        }
    return result


def _label(text: str) -> str:
    return text.strip().lower()
