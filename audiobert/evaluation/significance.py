"""How sure an accuracy is, and whether one model is better than another: a bootstrap interval and paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
LEVEL = 0.95
# Weights of rows that are held at once: few enough for a processor's cache, where they are reckoned with fastest.
_WEIGHTS_AT_ONCE = 200_000

Clusters = Sequence[tuple[Hashable, ...]]
"""For each row what it shares with others, such as both instruments of a pair; none for a row that shares nothing."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


class McNemar(NamedTuple):
    """What [`mcnemar`] found."""

    only_first: int
    """Rows that only the first model has right."""
    only_second: int
    p: float


class PairedBootstrap(NamedTuple):
    """What [`paired_bootstrap`] found."""

    difference: float
    """The first mean accuracy less the second, from -1 to 1."""
    interval: Interval
    p: float


def bootstrap_interval(
    correct: ArrayLike, level: float = LEVEL, seed: int = 0, clusters: Clusters | None = None
) -> Interval:
    """
    The percentile bootstrap interval of an accuracy, from 10,000 resamples.

    Rows that share something are not independent: 3,625 pairs of 103 instruments say less than as many pairs of
    instruments of their own would. So not rows are drawn, with replacement, but what they share, and a row counts as
    often as the product of how often each thing that it shares was drawn (the pigeonhole bootstrap: Owen, 2007; Owen
    and Eckles, Bootstrapping data arrays of arbitrary order, 2012). A thing that stands in no other combination than
    one is left out beside a thing that does, as it adds no other rows; where there is none, the combination is drawn
    as one thing. Where rows share two things each the interval errs on the side of caution: it counts what is the
    row's own three times instead of once, which matters little where each thing is shared by many.

    Where there are several training seeds, seeds are drawn too: the interval then says what to expect of another run on
    other rows. With one seed it speaks of other rows only; with few it is somewhat narrow, as five seeds vary less than
    all do, and with few clusters likewise. If every row is right, or every row wrong, all resamples are alike and both
    ends are the accuracy itself. One cluster tells nothing of another: the interval is then all that is possible, 0 to
    1. A resample that holds no row, which few clusters can give, is left out.

    Args:
        correct: bool `(rows,)` or `(seeds, rows)`.
        level: share of intervals that are to hold the true accuracy, between 0 and 1.
        seed: of the draws; the same input and seed give the same interval.
        clusters: for each row what it shares with others; if omitted, each row stands for itself.

    Raises:
        ValueError: there is no row or no seed, the shape or the level is another, or the clusters are of other rows.
        TypeError: `correct` does not hold bools.
    """
    outcomes = _outcomes(correct)
    resampled = _resampled_accuracies([outcomes], _Sampling.of(clusters, outcomes.shape[1]), seed)
    return _percentiles(resampled[0], level) if resampled else _whole_range(level, 0.0)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """
    McNemar's exact test whether two models are right on the same share of rows, two-sided.

    It takes every row for independent of the others, so it is a figure of these rows, and too sure of others wherever
    rows share something (see `bootstrap_interval`). Only rows count that one of the two has right: each is a coin toss
    if the models are equally good. Without any such row p is 1.

    Args:
        first, second: bool `(rows,)`, which rows each model has right; the same rows in the same order.

    Raises:
        ValueError: there is no row, the numbers of rows differ, or there are several seeds.
        TypeError: an argument does not hold bools.
    """
    first, second = _paired(first, second)
    if len(first) != 1 or len(second) != 1:
        raise ValueError(f"McNemar's test is of one seed against one seed, got {len(first)} and {len(second)} seeds.")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, discordant).pvalue) if discordant else 1.0)


def paired_bootstrap(
    first_by_seed: ArrayLike,
    second_by_seed: ArrayLike,
    level: float = LEVEL,
    seed: int = 0,
    clusters: Clusters | None = None,
) -> PairedBootstrap:
    """
    The difference of two mean accuracies, with its percentile bootstrap interval and a two-sided p.

    In each of 10,000 resamples the same rows are drawn for both models, as by `bootstrap_interval`, and seeds for each
    model by itself, so that the numbers of seeds may differ. p is the smallest error level at which the interval leaves
    out 0: twice the share of resamples on the other side of 0, at 0 included, and never below 0.0002, which is what
    10,000 resamples can tell, nor below 2 ** (1 - clusters), as often as that many tosses of a coin fall alike: five
    clusters never tell two models apart at 0.05. With one cluster the interval goes from -1 to 1.

    Args:
        first_by_seed, second_by_seed: bool `(seeds, rows)`, or `(rows,)` for one seed; the same rows in the same order.
        level, clusters: as of `bootstrap_interval`.
        seed: of the draws.

    Raises:
        ValueError: there is no row or no seed, the numbers of rows differ, the clusters are of other rows, or the level
            is no share.
        TypeError: an argument does not hold bools.
    """
    sides = _paired(first_by_seed, second_by_seed)
    difference = float(sides[0].mean() - sides[1].mean())
    sampling = _Sampling.of(clusters, sides[0].shape[1])
    resampled = _resampled_accuracies(sides, sampling, seed)
    if not resampled:
        return PairedBootstrap(difference, _whole_range(level, -1.0), 1.0)
    # Exactly 0 where both are right equally often: each is one division of whole numbers.
    differences = resampled[0] - resampled[1]
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    p = max(2 * (beyond + 1) / (len(differences) + 1), 2.0 ** (1 - sampling.clusters))
    return PairedBootstrap(difference, _percentiles(differences, level), float(min(1, p)))


def count_clusters(clusters: Clusters) -> int:
    """How many things are drawn in place of so many rows."""
    return _Sampling.of(clusters, len(clusters)).clusters


def holm(p_values: Sequence[float]) -> list[float]:
    """
    p values adjusted for being several tests (Holm, 1979), in the order given; none for none.

    Those that are at most 0.05 after it hold together: the chance that any of them is a false alarm is at most 0.05.

    Raises:
        ValueError: a value is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values are between 0 and 1, got {list(p_values)}.")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # One that is less surprising never comes out as more so.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _outcomes(correct: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(correct)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"Outcomes must be of shape (rows,) or (seeds, rows) and not empty, got {array.shape}.")
    if array.dtype != np.bool_:
        raise TypeError(f"Outcomes must be bools, right or wrong, got {array.dtype}.")
    return np.atleast_2d(array)


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = _outcomes(first), _outcomes(second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"Outcomes of {first.shape[1]:,} and of {second.shape[1]:,} rows cannot be paired.")
    return first, second


class _Sampling(NamedTuple):
    """
    What is drawn in place of rows.

    Attributes:
        clusters: how many there are to draw.
        groups: int `(rows,)`, which set of clusters each row is in; rows of one set always count as often.
        members: for each group its clusters, by number.
    """

    clusters: int
    groups: NDArray[np.int64]
    members: list[list[int]]

    @classmethod
    def of(cls, clusters: Clusters | None, rows: int) -> _Sampling:
        if clusters is None:
            return cls(rows, np.arange(rows), [[row] for row in range(rows)])
        if len(clusters) != rows:
            raise ValueError(f"Clusters of {len(clusters):,} rows do not fit outcomes of {rows:,} rows.")
        numbers: dict[Hashable, int] = {}
        # In the order in which they come up, as that of sets of texts is another one in every process.
        shared_by_group: list[tuple[Hashable, ...]] = []
        groups = np.empty(rows, np.int64)
        for row, shared in enumerate(clusters):
            key = frozenset(shared) or row
            if key not in numbers:
                numbers[key] = len(shared_by_group)
                shared_by_group.append(tuple(dict.fromkeys(shared)))
            groups[row] = numbers[key]
        groups_of = Counter(thing for shared in shared_by_group for thing in shared)
        drawn: dict[Hashable, int] = {}
        members = []
        for group, shared in enumerate(shared_by_group):
            # A thing of one group alone is shared by no rows but the group's, as is the group itself.
            wide: list[Hashable] = [("shared", thing) for thing in shared if groups_of[thing] > 1]
            members.append([drawn.setdefault(thing, len(drawn)) for thing in wide or [("group", group)]])
        return cls(len(drawn), groups, members)


def _resampled_accuracies(
    sides: Sequence[NDArray[np.bool_]], sampling: _Sampling, seed: int
) -> list[NDArray[np.float64]]:
    """
    The accuracy of each side, bool `(seeds, rows)`, in each resample that holds a row: rows drawn for all sides, seeds
    for each; nothing where there is but one cluster to draw.
    """
    if sampling.clusters == 1:
        return []
    generator = np.random.default_rng(seed)
    # For each group the number of its rows and, by seed of each side, of those that are right. Sums of such whole
    # numbers are exact in floats, in which they are many times as fast.
    counted = np.concatenate([np.ones((1, len(sampling.groups)), bool), *sides])
    table: NDArray[np.float64] = np.stack([np.bincount(sampling.groups, row) for row in counted], axis=1, dtype=float)
    if max(map(len, sampling.members)) == 1:
        totals = _drawn_one_way(table, sampling, generator)
    else:
        totals = np.concatenate(list(_drawn_crossed(table, sampling, generator)))
    totals = totals[totals[:, 0] > 0]
    accuracies, start = [], 1
    for side in sides:
        seeds = len(side)
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(totals))
        right = (weights * totals[:, start : start + seeds]).sum(1)
        accuracies.append(right / (seeds * totals[:, 0]))
        start += seeds
    return accuracies


def _drawn_one_way(
    table: NDArray[np.float64], sampling: _Sampling, generator: np.random.Generator
) -> NDArray[np.float64]:
    """The table's sums in each resample, `(resamples, columns)`, where each group is in one cluster."""
    sums = np.zeros((sampling.clusters, table.shape[1]))
    np.add.at(sums, [cluster for (cluster,) in sampling.members], table)
    # Clusters with the same sums are interchangeable, so only how often each kind of them comes up is drawn.
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    drawn = generator.multinomial(sampling.clusters, counts / sampling.clusters, size=RESAMPLES)
    return drawn @ kinds


def _drawn_crossed(
    table: NDArray[np.float64], sampling: _Sampling, generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """The same, some resamples at a time, where groups are in several clusters."""
    clusters = sampling.clusters
    crossed = [group for group, members in enumerate(sampling.members) if len(members) > 1]
    sums = np.zeros((clusters, table.shape[1]))
    for group, found in enumerate(sampling.members):
        if len(found) == 1:
            sums[found[0]] += table[group]
    width = max(len(sampling.members[group]) for group in crossed)
    # What stands in the place of a cluster that is not there is always drawn once.
    members = np.array([[*sampling.members[group], *[clusters] * width][:width] for group in crossed])
    at_once = max(1, _WEIGHTS_AT_ONCE // max(clusters, len(crossed)))
    for start in range(0, RESAMPLES, at_once):
        resamples = min(at_once, RESAMPLES - start)
        drawn = generator.integers(clusters, size=(resamples, clusters)) * resamples + np.arange(resamples)[:, None]
        times = np.ones((clusters + 1, resamples))
        times[:-1] = np.bincount(drawn.ravel(), minlength=clusters * resamples).reshape(clusters, resamples)
        weights = times[members[:, 0]]
        for other in members.T[1:]:
            weights *= times[other]
        yield times[:-1].T @ sums + weights.T @ table[crossed]


def _whole_range(level: float, low: float) -> Interval:
    _check_level(level)
    return Interval(low, 1.0)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level}.")


def _percentiles(resampled: NDArray[np.float64], level: float) -> Interval:
    _check_level(level)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
