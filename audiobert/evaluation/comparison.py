"""Accuracies with intervals, and a model with audio against its control, from predictions over several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reports.tables import TableReport, TextTable, percent
from .ceilings import CEILING_NOTE, ceiling, right_for_any_row
from .clusters import OVER_CLUSTERS, clusters_of
from .predictions import COMBINED, RowPrediction
from .significance import Clusters, Interval, bootstrap_interval, count_clusters, holm, mcnemar, paired_bootstrap

# Beside what tests are told in a table.
COMPARISON_NOTE = (
    f"{OVER_CLUSTERS} The bootstrap's p is of the same resamples. McNemar's test is by row: it takes rows that share "
    "an instrument or an onomatopoeia for independent, and is too sure wherever many do."
)

Runs = Sequence[Sequence[RowPrediction]]
"""What one model answers to the same rows, one list per training seed; a control without seeds has one list."""


@dataclass(frozen=True)
class Outcomes:
    """What one model got right.

    Attributes:
        rows: what was asked, with the answers of the first seed.
        clusters: what each row shares with others, see `clusters_of`.
        correct: bool `(seeds, rows)`.
        set_valued: bool `(seeds, rows)`, right for any row with the sentence, see `right_for_any_row`.
    """

    rows: Sequence[RowPrediction]
    clusters: Clusters
    correct: NDArray[np.bool_]
    set_valued: NDArray[np.bool_]

    @classmethod
    def of(cls, runs: Runs) -> Outcomes:
        """
        Raises:
            ValueError: there is no seed or no row, or not all seeds answered the same rows in the same order.
            TypeError: `runs` is itself a list of predictions.
        """
        if any(isinstance(run, RowPrediction) for run in runs):
            raise TypeError("Expected a list of predictions for each seed: wrap the predictions of one seed in a list.")
        if not runs or not all(runs):
            raise ValueError("There are no predictions, or none of some seed: evaluate at least one row with each.")
        check_same_rows(runs)
        correct = np.array([[row.correct for row in run] for run in runs])
        return cls(runs[0], clusters_of(runs[0]), correct, np.array([right_for_any_row(run) for run in runs]))

    def part(self, numbers: Sequence[int]) -> Outcomes:
        """Of some of the rows; what other rows have the same sentence counts as before."""
        return Outcomes(
            rows=[self.rows[number] for number in numbers],
            clusters=[self.clusters[number] for number in numbers],
            correct=self.correct[:, numbers],
            set_valued=self.set_valued[:, numbers],
        )


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one model on some rows; shares from 0 to 1."""

    rows: int
    clusters: int
    """Instruments, onomatopoeia and rows that share neither: what the interval is drawn over."""
    seeds: int
    mean: float
    """Over the seeds."""
    sd: float | None
    """The sample standard deviation over the seeds; None for one seed."""
    interval: Interval
    """95 %, by `bootstrap_interval` over the clusters."""
    ceiling: float
    """What one answer per sentence can reach at best, see `ceilings.ceiling`."""
    set_valued: float
    """Mean over the seeds of the share of rows that are right for any row with the sentence."""

    @classmethod
    def of(cls, outcomes: Outcomes) -> Accuracy:
        """From at least one row."""
        seeds, rows = outcomes.correct.shape
        by_seed = outcomes.correct.mean(1)
        return cls(
            rows=rows,
            clusters=count_clusters(outcomes.clusters),
            seeds=seeds,
            mean=float(by_seed.mean()),
            sd=float(by_seed.std(ddof=1)) if seeds > 1 else None,
            interval=bootstrap_interval(outcomes.correct, clusters=outcomes.clusters),
            ceiling=ceiling(outcomes.rows),
            set_valued=float(outcomes.set_valued.mean()),
        )


@dataclass(frozen=True)
class AccuracyReport(TableReport):
    """What [`accuracy_report`] found."""

    accuracies: dict[str, dict[str, dict[str, Accuracy]]]
    """By model, then by split, then by task: animal, pitch, and, where both are there, "combined"."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; shares stay between 0 and 1, an interval is the pair of its ends."""
        return asdict(self)["accuracies"]

    def _table(self) -> TextTable:
        sizes, figures = ("rows", "clusters", "seeds"), ("accuracy", "sd", "95 % interval", "ceiling", "set-valued")
        note = f"{OVER_CLUSTERS} {CEILING_NOTE}"
        header = ("split", "task", "model", *sizes, *figures)
        return TextTable("Accuracy on AuditoryBench", header, list(self._rows()), names=3, note=note)

    def _rows(self) -> Iterator[list[str]]:
        # The models that answered the same rows stand one under the other.
        columns = [(split, task) for splits in self.accuracies.values() for split in splits for task in splits[split]]
        for split, task in dict.fromkeys(columns):
            for name, splits in self.accuracies.items():
                if (accuracy := splits.get(split, {}).get(task)) is not None:
                    yield [
                        *(split, task, name, f"{accuracy.rows:,}", f"{accuracy.clusters:,}", f"{accuracy.seeds}"),
                        *(percent(accuracy.mean), percent(accuracy.sd), interval_text(accuracy.interval)),
                        *(percent(accuracy.ceiling), percent(accuracy.set_valued)),
                    ]


def accuracy_report(models: Mapping[str, Runs]) -> AccuracyReport:
    """
    The accuracy of every model on every task and split it answered, with 95 % intervals over what rows share.

    Args:
        models: by name, the predictions of each, one list per seed.

    Raises:
        ValueError: a model has no predictions, or its seeds answered different rows.
        TypeError: a list of predictions stands where a list of such lists, one per seed, is expected.
    """
    report: dict[str, dict[str, dict[str, Accuracy]]] = {}
    for name, runs in models.items():
        outcomes = Outcomes.of(runs)
        columns = _columns(runs[0])
        for split in dict.fromkeys(split for split, _ in columns):
            by_task = {task: indices for (part, task), indices in columns.items() if part == split}
            if len(by_task) > 1:
                by_task[COMBINED] = sorted(index for indices in by_task.values() for index in indices)
            report.setdefault(name, {})[split] = {
                task: Accuracy.of(outcomes.part(indices)) for task, indices in by_task.items()
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
    """Of the difference, 95 %, by `paired_bootstrap` over the clusters."""
    mcnemar_p: float
    """Row by row, as if no rows shared anything: over all pairs of a seed of the one and a seed of the other; see
    `compare`."""
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
        header = (
            *("split", "task", "rows", "clusters", "ceiling", "audio", "control"),
            *("difference", "95 % interval", "bootstrap p", "McNemar p, by row", "set-valued"),
        )
        rows = [
            [
                *(column.split, column.task, f"{column.audio.rows:,}", f"{column.audio.clusters:,}"),
                *(percent(column.audio.ceiling), _mean_text(column.audio), _mean_text(column.control)),
                *(f"{100 * column.difference:+.2f}", interval_text(column.interval, sign="+")),
                *(_p_text(column.bootstrap_p_holm), _p_text(column.mcnemar_p_holm)),
                f"{percent(column.audio.set_valued)} / {percent(column.control.set_valued)}",
            ]
            for column in self.columns
        ]
        title = f"Audio against control, p by Holm over {len(rows)} column{'s' * (len(rows) != 1)}"
        return TextTable(title, header, rows, names=2, note=f"{COMPARISON_NOTE} {CEILING_NOTE}")


def compare(audio: Runs, control: Runs) -> Comparison:
    """
    Tests a model with audio against a control, on each task of each split.

    What tells them apart is `paired_bootstrap` of the mean accuracies over all seeds, over what rows share
    (`clusters_of`). Beside it, as a figure of the rows, which it takes for independent, stands McNemar's test of each
    seed of the one against each seed of the other. Of these K p values, which depend on each other, the middle one,
    p_(k) with k = K/2 rounded up, is multiplied by K/k, and 1 at most: that k of K p values are at most a has a chance
    of at most a K/k, however they depend, since a K of them are expected to be (Rüger, 1978). One seed against one is
    McNemar's test itself. A vote of the seeds would be no fair test: a vote of five is better than one of one, with
    audio or without. Both tests' p are adjusted by `holm` over the columns.

    Args:
        audio: predictions with audio, one list per seed.
        control: those of the control on the same rows; it may have fewer seeds, or one.

    Raises:
        ValueError: there are no predictions, or not all lists answer the same rows in the same order.
        TypeError: a list of predictions stands where a list of such lists, one per seed, is expected.
    """
    with_audio, without = Outcomes.of(audio), Outcomes.of(control)
    check_same_rows([audio[0], control[0]])
    columns = _columns(audio[0])
    parts = [(with_audio.part(rows), without.part(rows)) for rows in columns.values()]
    bootstraps = [paired_bootstrap(one.correct, two.correct, clusters=one.clusters) for one, two in parts]
    mcnemar_p = [_mcnemar_over_seeds(one.correct, two.correct) for one, two in parts]
    mcnemar_holm, bootstrap_holm = holm(mcnemar_p), holm([bootstrap.p for bootstrap in bootstraps])
    return Comparison(
        tuple(
            ColumnComparison(
                split=split,
                task=task,
                audio=Accuracy.of(parts[number][0]),
                control=Accuracy.of(parts[number][1]),
                difference=bootstraps[number].difference,
                interval=bootstraps[number].interval,
                mcnemar_p=mcnemar_p[number],
                bootstrap_p=bootstraps[number].p,
                mcnemar_p_holm=mcnemar_holm[number],
                bootstrap_p_holm=bootstrap_holm[number],
            )
            for number, (split, task) in enumerate(columns)
        )
    )


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
