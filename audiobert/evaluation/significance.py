"""How sure an accuracy is, and whether one model is better than another: a bootstrap interval and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
LEVEL = 0.95


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


def bootstrap_interval(correct: ArrayLike, level: float = LEVEL, seed: int = 0) -> Interval:
    """
    The percentile bootstrap interval of an accuracy, from 10,000 resamples.

    Rows are drawn with replacement and, where there are several training seeds, seeds too: the interval then says what
    to expect of another run on other rows. With one seed it speaks of other rows only; with few it is somewhat narrow,
    as five seeds vary less than all do. If every row is right, or every row wrong, or there is but one, all resamples
    are alike and both ends are the accuracy itself.

    Args:
        correct: bool `(rows,)` or `(seeds, rows)`.
        level: share of intervals that are to hold the true accuracy, between 0 and 1.
        seed: of the draws; the same input and seed give the same interval.

    Raises:
        ValueError: there is no row or no seed, the shape or the level is another.
        TypeError: `correct` does not hold bools.
    """
    (accuracies,) = _resampled_accuracies([_outcomes(correct)], seed)
    return _percentiles(accuracies, level)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """
    McNemar's exact test whether two models are right on the same share of rows, two-sided.

    Only rows count that one of the two has right: each is a coin toss if the models are equally good. Without any such
    row p is 1.

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
    first_by_seed: ArrayLike, second_by_seed: ArrayLike, level: float = LEVEL, seed: int = 0
) -> PairedBootstrap:
    """
    The difference of two mean accuracies, with its percentile bootstrap interval and a two-sided p.

    In each of 10,000 resamples the same rows are drawn for both models, and seeds for each model by itself, so that
    the numbers of seeds may differ. (Drawing rows and seeds errs on the side of caution: Owen, The pigeonhole
    bootstrap, 2007.) p is the smallest error level at which the interval leaves out 0: twice the share of resamples on
    the other side of 0, at 0 included, and never below 0.0002, which is what 10,000 resamples can tell.

    Args:
        first_by_seed, second_by_seed: bool `(seeds, rows)`, or `(rows,)` for one seed; the same rows in the same order.
        level: as of `bootstrap_interval`.
        seed: of the draws.

    Raises:
        ValueError: there is no row or no seed, the numbers of rows differ, or the level is no share.
        TypeError: an argument does not hold bools.
    """
    sides = _paired(first_by_seed, second_by_seed)
    first, second = _resampled_accuracies(sides, seed)
    # Exactly 0 where both are right equally often: each is one division of whole numbers.
    differences = first - second
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return PairedBootstrap(
        difference=float(sides[0].mean() - sides[1].mean()),
        interval=_percentiles(differences, level),
        p=float(min(1, 2 * (beyond + 1) / (RESAMPLES + 1))),
    )


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


def _resampled_accuracies(sides: Sequence[NDArray[np.bool_]], seed: int) -> list[NDArray[np.float64]]:
    """The accuracy of each side, bool `(seeds, rows)`, in each resample: rows drawn for all sides, seeds for each."""
    generator = np.random.default_rng(seed)
    rows = sides[0].shape[1]
    # Rows with the same outcomes are interchangeable, so only how often each kind of row comes up is drawn.
    kinds, counts = np.unique(np.concatenate(sides).T, axis=0, return_counts=True)
    drawn = generator.multinomial(rows, counts / rows, size=RESAMPLES)
    accuracies, start = [], 0
    for side in sides:
        seeds = len(side)
        right = drawn @ kinds[:, start : start + seeds].astype(np.int64)
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
        accuracies.append((weights * right).sum(1) / (seeds * rows))
        start += seeds
    return accuracies


def _percentiles(resampled: NDArray[np.float64], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level}.")
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
