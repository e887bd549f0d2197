"""Accuracies with intervals, and a model with audio against its control, from predictions over several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reports.tables import TableReport, TextTable, percent
from .predictions import COMBINED, RowPrediction
from .significance import Interval, bootstrap_interval, holm, mcnemar, paired_bootstrap

Runs = Sequence[Sequence[RowPrediction]]
"""What one model answers to the same rows, one list per training seed; a control without seeds has one list."""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one model on some rows; shares from 0 to 1."""

    rows: int
    seeds: int
    mean: float
    """Over the seeds."""
    sd: float | None
    """The sample standard deviation over the seeds; None for one seed."""
    interval: Interval
    """95 %, by `bootstrap_interval`."""

    @classmethod
    def of(cls, correct: NDArray[np.bool_]) -> Accuracy:
        """From bool `(seeds, rows)` with at least one of each; errors as of `bootstrap_interval`."""
        seeds, rows = correct.shape
        by_seed = correct.mean(1)
        deviation = float(by_seed.std(ddof=1)) if seeds > 1 else None
        return cls(rows, seeds, float(by_seed.mean()), deviation, bootstrap_interval(correct))


@dataclass(frozen=True)
class AccuracyReport(TableReport):
    """What [`accuracy_report`] found."""

    accuracies: dict[str, dict[str, dict[str, Accuracy]]]
    """By model, then by split, then by task: animal, pitch, and, where both are there, "combined"."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; shares stay between 0 and 1, an interval is the pair of its ends."""
        return asdict(self)["accuracies"]

    def _table(self) -> TextTable:
        header = ("split", "task", "model", "rows", "seeds", "accuracy", "sd", "95 % interval")
        return TextTable("Accuracy on AuditoryBench", header, list(self._rows()), names=3)

    def _rows(self) -> Iterator[list[str]]:
        # The models that answered the same rows stand one under the other.
        columns = [(split, task) for splits in self.accuracies.values() for split in splits for task in splits[split]]
        for split, task in dict.fromkeys(columns):
            for name, splits in self.accuracies.items():
                if (accuracy := splits.get(split, {}).get(task)) is not None:
                    numbers = f"{accuracy.rows:,}", f"{accuracy.seeds}", percent(accuracy.mean), percent(accuracy.sd)
                    yield [split, task, name, *numbers, interval_text(accuracy.interval)]


def accuracy_report(models: Mapping[str, Runs]) -> AccuracyReport:
    """
    The accuracy of every model on every task and split it answered, with 95 % intervals.

    Args:
        models: by name, the predictions of each, one list per seed.

    Raises:
        ValueError: a model has no predictions, or its seeds answered different rows.
        TypeError: a list of predictions stands where a list of such lists, one per seed, is expected.
    """
    report: dict[str, dict[str, dict[str, Accuracy]]] = {}
    for name, runs in models.items():
        matrix = outcomes_by_seed(runs)
        columns = _columns(runs[0])
        for split in dict.fromkeys(split for split, _ in columns):
            by_task = {task: indices for (part, task), indices in columns.items() if part == split}
            if len(by_task) > 1:
                by_task[COMBINED] = sorted(index for indices in by_task.values() for index in indices)
            report.setdefault(name, {})[split] = {
                task: Accuracy.of(matrix[:, indices]) for task, indices in by_task.items()
            }
    return AccuracyReport(report)


@dataclass(frozen=True)
class ColumnComparison:
    """Two models on one task of one split; shares from 0 to 1, differences from -1 to 1."""

    split: str
    task: str
    audio: Accuracy
    control: Accuracy
    difference: float
    """Mean accuracy with audio less that of the control."""
    interval: Interval
    """Of the difference, 95 %, by `paired_bootstrap`."""
    mcnemar_p: float
    """Over all pairs of a seed of the one and a seed of the other; see `compare`."""
    bootstrap_p: float
    mcnemar_p_holm: float
    """Adjusted by `holm` over the columns, as is the next."""
    bootstrap_p_holm: float


@dataclass(frozen=True)
class Comparison(TableReport):
    """What [`compare`] found."""

    columns: tuple[ColumnComparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers, not rounded; an interval is the pair of its ends."""
        return asdict(self)

    def _table(self) -> TextTable:
        tests = ("difference", "95 % interval", "McNemar p", "bootstrap p")
        header = ("split", "task", "rows", "audio", "control", *tests)
        rows = [
            [
                *(column.split, column.task, f"{column.audio.rows:,}"),
                *(_mean_text(column.audio), _mean_text(column.control)),
                *(f"{100 * column.difference:+.2f}", interval_text(column.interval, sign="+")),
                *(_p_text(column.mcnemar_p_holm), _p_text(column.bootstrap_p_holm)),
            ]
            for column in self.columns
        ]
        title = f"Audio against control, p by Holm over {len(rows)} column{'s' * (len(rows) != 1)}"
        return TextTable(title, header, rows, names=2)


def compare(audio: Runs, control: Runs) -> Comparison:
    """
    Tests a model with audio against a control, on each task of each split.

    Two paired tests: `paired_bootstrap` of the mean accuracies over all seeds, and McNemar's test of each seed of the
    one against each seed of the other. Of these K p values, which depend on each other, the middle one, p_(k) with
    k = K/2 rounded up, is multiplied by K/k, and 1 at most: that k of K p values are at most a has a chance of at most
    a K/k, however they depend, since a K of them are expected to be (Rüger, 1978). One seed against one is McNemar's
    test itself. A vote of the seeds would be no fair test: a vote of five is better than one of one, with audio or
    without. Both tests' p are adjusted by `holm` over the columns.

    Args:
        audio: predictions with audio, one list per seed.
        control: those of the control on the same rows; it may have fewer seeds, or one.

    Raises:
        ValueError: there are no predictions, or not all lists answer the same rows in the same order.
        TypeError: a list of predictions stands where a list of such lists, one per seed, is expected.
    """
    with_audio, without = outcomes_by_seed(audio), outcomes_by_seed(control)
    check_same_rows([audio[0], control[0]])
    columns = _columns(audio[0])
    bootstraps = [paired_bootstrap(with_audio[:, rows], without[:, rows]) for rows in columns.values()]
    mcnemar_p = [_mcnemar_over_seeds(with_audio[:, rows], without[:, rows]) for rows in columns.values()]
    mcnemar_holm, bootstrap_holm = holm(mcnemar_p), holm([bootstrap.p for bootstrap in bootstraps])
    return Comparison(
        tuple(
            ColumnComparison(
                split=split,
                task=task,
                audio=Accuracy.of(with_audio[:, rows]),
                control=Accuracy.of(without[:, rows]),
                difference=bootstraps[number].difference,
                interval=bootstraps[number].interval,
                mcnemar_p=mcnemar_p[number],
                bootstrap_p=bootstraps[number].p,
                mcnemar_p_holm=mcnemar_holm[number],
                bootstrap_p_holm=bootstrap_holm[number],
            )
            for number, ((split, task), rows) in enumerate(columns.items())
        )
    )


def outcomes_by_seed(runs: Runs) -> NDArray[np.bool_]:
    """
    Which rows are right, bool `(seeds, rows)`.

    Raises:
        ValueError: there is no seed or no row, or not all seeds answered the same rows in the same order.
        TypeError: `runs` is itself a list of predictions.
    """
    if any(isinstance(run, RowPrediction) for run in runs):
        raise TypeError("Expected a list of predictions for each seed: wrap the predictions of one seed in a list.")
    if not runs or not all(runs):
        raise ValueError("There are no predictions, or none of some seed: evaluate at least one row with each.")
    check_same_rows(runs)
    return np.array([[row.correct for row in run] for run in runs])


def check_same_rows(runs: Runs) -> None:
    """
    Tests that pair rows need the same rows in the same order.

    Raises:
        ValueError: they are not, with the first that differs.
    """
    for run in runs[1:]:
        if len(run) != len(runs[0]):
            raise ValueError(
                f"Predictions of {len(runs[0]):,} and of {len(run):,} rows cannot be paired: evaluate the same splits."
            )
        for number, (one, other) in enumerate(zip(runs[0], run, strict=True)):
            if _key(one) != _key(other):
                raise ValueError(
                    f"Predictions are paired row by row, but number {number} is of {_key(one)} in one list and of "
                    f"{_key(other)} in another: evaluate the same splits of the same data, in the same order."
                )


def interval_text(interval: Interval, sign: str = "") -> str:
    """Both ends in percent."""
    return f"[{100 * interval.low:{sign}.2f}, {100 * interval.high:{sign}.2f}]"


def _key(row: RowPrediction) -> tuple[str, str, int, str, str]:
    return row.split, row.task, row.row, row.sentence, row.answer


def _columns(rows: Sequence[RowPrediction]) -> dict[tuple[str, str], list[int]]:
    """The numbers of the rows of each split and task."""
    columns: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        columns.setdefault((row.split, row.task), []).append(number)
    return columns


def _mcnemar_over_seeds(audio: NDArray[np.bool_], control: NDArray[np.bool_]) -> float:
    p_values = sorted(mcnemar(one, other).p for one in audio for other in control)
    middle = math.ceil(len(p_values) / 2)
    return min(1.0, p_values[middle - 1] * len(p_values) / middle)


def _mean_text(accuracy: Accuracy) -> str:
    return percent(accuracy.mean) + ("" if accuracy.sd is None else f" ± {percent(accuracy.sd)}")


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
