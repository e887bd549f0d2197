"""Human evaluation (paper, table IV): a sample, a sheet for each annotator, and the figures with their agreement."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...reports.tables import TableReport, TextTable
from .sheets import Option, Question, Sheet, read_sheet, row_id

_QUESTIONS = (
    Question("accuracy", "Is the answer right?", (Option("1", "right", "y"), Option("0", "wrong", "n"))),
    Question(
        "fluency",
        "How fluent is the sentence?",
        (
            Option("0", "0 not English", "0"),
            Option("1", "1 poor", "1"),
            Option("2", "2 good", "2"),
            Option("3", "3 perfect", "3"),
        ),
    ),
)
_VALUES = {question.column: [int(option.value) for option in question.options] for question in _QUESTIONS}
_INSTRUCTIONS = (
    "Each row is a sentence about a sound with a gap, and the answer that the benchmark counts as right. Judge two "
    "things apart from each other: a wrong answer can stand in a fluent sentence.",
    "Accuracy: right, if the sentence with the answer in its gap is true as far as you know. For an animal: it does "
    "make this sound, even if others make it too. For a comparison: the one sound is usually higher, or lower, than "
    "the other. Wrong, if not.",
    "Fluency, of the sentence with the answer in its gap (overlook “a” for “an”): 0, not English or impossible to "
    "understand; 1, poor: clear errors, but one can tell what is meant; 2, good: small slips or odd wording; 3, "
    "perfect: as a careful native speaker would write it.",
    "Judge alone and by what you know. Leave blank what you cannot judge: it is counted as missing. This browser "
    "remembers your answers; when you are done, download them and send the file back.",
)


_HEADER = ("task", "question", "rows", "mean", "answers", "missing", "Krippendorff's alpha")


@dataclass(frozen=True)
class Rating:
    """What one annotator says of one row; None where nothing was filled in."""

    annotator: str
    task: str
    id: str
    accuracy: int | None
    fluency: int | None


@dataclass(frozen=True)
class Figure:
    """The answers to one question in one task."""

    mean: float | None
    """Over all answers; of accuracy, the share of answers that say "right", from 0 to 1. None if there is none."""
    answers: int
    missing: int
    """Answers that were not given; with `answers` they make up rows times annotators."""
    alpha: float | None
    """Krippendorff's alpha, nominal for accuracy and ordinal for fluency; None if it is not defined."""
    no_alpha: str | None
    """Why alpha is not defined."""


@dataclass(frozen=True)
class TaskFigures:
    """The figures of one task."""

    rows: int
    accuracy: Figure
    fluency: Figure


@dataclass(frozen=True)
class HumanEvaluation(TableReport):
    """What [`aggregate`] found."""

    tasks: dict[str, TaskFigures]
    annotators: int

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers; the accuracy stays between 0 and 1."""
        return asdict(self)

    def _table(self) -> TextTable:
        title = f"Human evaluation, {self.annotators} annotator{'s' * (self.annotators != 1)}"
        return TextTable(title, _HEADER, list(self._cells()), names=2)

    def _cells(self) -> Iterator[list[str]]:
        for task, figures in self.tasks.items():
            for question in ("accuracy", "fluency"):
                figure: Figure = getattr(figures, question)
                if figure.mean is None:
                    mean = "-"
                else:
                    mean = f"{100 * figure.mean:.1f} %" if question == "accuracy" else f"{figure.mean:.2f} of 3"
                alpha = f"- ({figure.no_alpha})" if figure.alpha is None else f"{figure.alpha:.3f}"
                yield [task, question, f"{figures.rows:,}", mean, f"{figure.answers:,}", f"{figure.missing:,}", alpha]


def sample_for_evaluation(
    rows_by_task: Mapping[str, Iterable[Mapping[str, Any]]], *, per_task: int = 100, seed: int = 42
) -> dict[str, list[Mapping[str, Any]]]:
    """
    Draws rows of each task without replacement, all of a task that has fewer than `per_task`.

    The same rows give the same sample in whatever order they come; rows with the same sentence and answer count once.

    Raises:
        ValueError: a task has no row, or `per_task` is below 1.
    """
    if per_task < 1:
        raise ValueError(f"`per_task` must be at least 1, got {per_task}.")
    sample = {}
    for task, rows in rows_by_task.items():
        by_id = {row_id(row): row for row in rows}
        if not by_id:
            raise ValueError(f"The task {task} has no row to evaluate.")
        names = sorted(by_id)
        chosen = random.Random(f"{seed} {task}").sample(names, min(per_task, len(names)))
        sample[task] = [by_id[name] for name in chosen]
    return sample


def write_sheets(
    sample: Mapping[str, Sequence[Mapping[str, Any]]], folder: str | Path, annotators: int = 3, *, seed: int = 42
) -> list[tuple[Path, Path]]:
    """
    Writes `annotator-1.csv` and `annotator-1.html`, and so on: each annotator fills in one of the two.

    The rows are the same for all, the tasks mixed, and their order is shuffled for each annotator, so that tiredness
    and habit do not fall on the same rows.

    Returns:
        The paths of the CSV and of the page of each annotator. The CSV has the columns id, task, sentence, answer,
        accuracy, fluency and comment; the page downloads the same.

    Raises:
        ValueError: the sample is empty, or `annotators` is below 1.
        FileExistsError: there is a sheet already, which somebody may have filled in.
    """
    folder = Path(folder)
    rows = {row_id(row): (task, row) for task in sample for row in sample[task]}
    if annotators < 1 or not rows:
        raise ValueError(f"Sheets need rows and annotators; got {len(rows)} rows and {annotators} annotators.")
    names = [f"annotator-{number}" for number in range(1, annotators + 1)]
    for name in names:
        if (folder / f"{name}.csv").exists():
            raise FileExistsError(f"{folder / f'{name}.csv'} is there already; remove it, or name another folder.")
    digest = hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()[:12]
    written = []
    for name in names:
        order = sorted(rows)
        random.Random(f"{seed} {name}").shuffle(order)
        shuffled = [(key, *rows[key]) for key in order]
        sheet = Sheet(
            name=name,
            storage=f"audiobert evaluation {digest} {name}",
            title=f"Evaluation of the benchmark: {name.replace('-', ' ')}",
            instructions=_INSTRUCTIONS,
            columns=("id", "task", "sentence", "answer"),
            details=("task",),
            questions=_QUESTIONS,
            rows=tuple(
                {"id": key, "task": task, "sentence": row["sentence"], "answer": row["answer"]}
                for key, task, row in shuffled
            ),
            spans=tuple(row["spans"] for _, _, row in shuffled),
        )
        written.append(sheet.write(folder))
    return written


def read_sheets(paths: Sequence[str | Path]) -> list[Rating]:
    """
    Reads the sheets of `write_sheets` that were filled in, one for each annotator, whose name is the file's.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: with file and line, for a value out of range, a missing column, or a double id; for two files of
            one name, or files whose rows are not the same: a row that cannot be judged is left blank, not removed.
    """
    ratings: list[Rating] = []
    tasks: dict[str, dict[str, str]] = {}
    for path in map(Path, paths):
        if path.stem in tasks:
            raise ValueError(f"{path}: the annotator {path.stem!r} was read already; give each file a name of its own.")
        tasks[path.stem] = {}
        for where, line in read_sheet(path, ("task", *_VALUES)):
            values = {column: _value(line[column], column, where) for column in _VALUES}
            ratings.append(Rating(path.stem, line["task"].strip(), line["id"], **values))
            tasks[path.stem][line["id"]] = line["task"].strip()
        _refuse_other_rows(path, tasks[path.stem], next(iter(tasks)), next(iter(tasks.values())))
    return ratings


def _value(text: str, column: str, where: str) -> int | None:
    if not text.strip():
        return None
    allowed = {str(value): value for value in _VALUES[column]}
    if text.strip() not in allowed:
        raise ValueError(f"{where}: {column} must be one of {', '.join(allowed)}, or blank, got {text!r}.")
    return allowed[text.strip()]


def _refuse_other_rows(path: Path, tasks: dict[str, str], first_name: str, first: dict[str, str]) -> None:
    other = sorted(tasks.items() ^ first.items())
    if other:
        raise ValueError(
            f"{path}: its rows are not those of {first_name} (such as {other[0][0]!r}); all sheets must come from one "
            "sample, with rows that cannot be judged left blank."
        )


def aggregate(ratings: Iterable[Rating]) -> HumanEvaluation:
    """
    The two figures of table IV for each task: the mean of all answers given, each with Krippendorff's alpha.

    Raises:
        ValueError: there are no ratings.
    """
    ratings = sorted(ratings, key=lambda rating: (rating.task, rating.id))
    if not ratings:
        raise ValueError("There are no ratings to aggregate.")
    annotators = sorted({rating.annotator for rating in ratings})
    tasks = {}
    for task, group in groupby(ratings, key=lambda rating: rating.task):
        of_task = list(group)
        rows = sorted({rating.id for rating in of_task})
        accuracy, fluency = np.full((2, len(annotators), len(rows)), np.nan)
        for rating in of_task:
            place = annotators.index(rating.annotator), rows.index(rating.id)
            # None becomes NaN.
            accuracy[place], fluency[place] = rating.accuracy, rating.fluency
        tasks[task] = TaskFigures(len(rows), _figure(accuracy, "nominal"), _figure(fluency, "ordinal"))
    return HumanEvaluation(tasks, len(annotators))


def _figure(answers: np.ndarray, level: Literal["nominal", "ordinal"]) -> Figure:
    """`answers`: annotators times rows, float64, NaN where none was given."""
    given = answers[~np.isnan(answers)]
    alpha, no_alpha = krippendorff_alpha(answers, level)
    mean = float(given.mean()) if given.size else None
    return Figure(mean, given.size, answers.size - given.size, alpha, no_alpha)


def krippendorff_alpha(answers: np.ndarray, level: Literal["nominal", "ordinal"]) -> tuple[float | None, str | None]:
    """
    Krippendorff's alpha: 1 is full agreement, 0 what chance gives, below 0 less than that.

    As in K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), by the matrix of coincidences. Ours,
    since the packages that have it are under the GPL, which this one is not.

    Args:
        answers: annotators times rows, float64, NaN where none was given.
        level: whether values only differ, or also have an order.

    Returns:
        Alpha and None, or None and the reason why it is not defined.
    """
    if len(answers) < 2:
        return None, "a single annotator"
    # A row that only one has answered says nothing of agreement.
    shared = answers[:, (~np.isnan(answers)).sum(axis=0) >= 2]
    if not shared.size:
        return None, "no row has two answers"
    if np.unique(shared[~np.isnan(shared)]).size == 1:
        return None, "all answers are the same"
    values = np.unique(shared[~np.isnan(shared)])
    # How many annotators gave a row each value: rows times values.
    counts = np.stack([(shared == value).sum(axis=0) for value in values], axis=1).astype(float)
    weights = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidences = weights.T @ counts - np.diag(weights.sum(axis=0))
    totals = coincidences.sum(axis=0)
    if level == "nominal":
        distances = 1.0 - np.eye(len(values))
    else:
        ranks = np.cumsum(totals) - totals / 2
        distances = (ranks[:, None] - ranks[None]) ** 2
    observed = (coincidences * distances).sum() / totals.sum()
    expected = (np.outer(totals, totals) * distances).sum() / (totals.sum() * (totals.sum() - 1))
    return float(1 - observed / expected), None
