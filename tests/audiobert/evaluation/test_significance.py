import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audiobert.evaluation import significance
from audiobert.evaluation.significance import bootstrap_interval, count_clusters, holm, mcnemar, paired_bootstrap


def outcomes(right: int, rows: int) -> np.ndarray:
    return np.arange(rows) < right


@pytest.fixture
def fewer_resamples(monkeypatch):
    """Enough for an interval at 95 %, where hundreds of intervals are looked at."""
    monkeypatch.setattr(significance, "RESAMPLES", 2_000)


def test_the_interval_is_that_of_scipy():
    correct = np.random.default_rng(1).random(300) < 0.37
    low, high = bootstrap_interval(correct)
    # By this name, which scipy had before `rng` and still takes.
    drawn = {"n_resamples": 10_000, "method": "percentile", "random_state": np.random.default_rng(2)}
    other = stats.bootstrap((correct,), np.mean, **drawn).confidence_interval
    assert (low, high) == pytest.approx(other, abs=0.005)
    assert low < correct.mean() < high
    assert bootstrap_interval(correct) == (low, high)
    assert bootstrap_interval(correct, seed=1) != (low, high)


def test_the_interval_of_one_seed_is_that_of_the_binomial_distribution():
    # A resample of 40 rows of which 10 are right has a number of right ones that is binomial.
    expected = stats.binom.ppf([0.05, 0.95], 40, 0.25) / 40
    assert bootstrap_interval(outcomes(10, 40), level=0.9) == pytest.approx(expected, abs=1e-9)


def test_rows_that_are_the_same_throughout_have_an_interval_without_width():
    assert bootstrap_interval([True] * 2) == (1, 1)
    assert bootstrap_interval([[False] * 5] * 3) == (0, 0)
    assert bootstrap_interval([False] * 4, clusters=[("a",), ("a",), ("b",), ("b",)]) == (0, 0)


@pytest.mark.parametrize("clusters", [[("a",)] * 3, [("a", "b")] * 3, [("a", "b"), ("b", "a"), ("a", "b", "b")]])
def test_one_cluster_tells_nothing_of_another(clusters):
    correct = [True, True, False]
    assert count_clusters(clusters) == 1
    assert bootstrap_interval(correct, clusters=clusters) == (0, 1)
    assert paired_bootstrap([True] * 3, [False] * 3, clusters=clusters) == (1, (-1, 1), 1)
    assert bootstrap_interval([True]) == (0, 1)


def test_seeds_that_differ_widen_the_interval():
    same = [outcomes(100, 200)] * 4
    apart = [outcomes(right, 200) for right in (60, 90, 110, 140)]
    assert np.mean(same) == np.mean(apart)
    narrow, wide = bootstrap_interval(same), bootstrap_interval(apart)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("accuracy", "rows"), [(0.37, 200), (0.76, 600)])
def test_the_interval_holds_the_true_accuracy_as_often_as_it_says(accuracy, rows):
    generator = np.random.default_rng(0)
    samples = generator.random((300, rows)) < accuracy
    held = [low <= accuracy <= high for low, high in map(bootstrap_interval, samples)]
    # Of 300 intervals at 95 % one expects 285, give or take 4; the lower limit allows for a finite sample too.
    assert 275 <= sum(held) <= 296


def test_seeds_and_rows_together_hold_the_true_accuracy(fewer_resamples):
    generator = np.random.default_rng(0)
    held, held_by_rows_alone = 0, 0
    for _ in range(100):
        accuracy_of_seed = np.clip(0.5 + 0.1 * generator.standard_normal((10, 1)), 0, 1)
        correct = generator.random((10, 60)) < accuracy_of_seed
        low, high = bootstrap_interval(correct)
        held += low <= 0.5 <= high
        rows_alone = 1.96 * correct.mean(0).std() / 60**0.5
        held_by_rows_alone += abs(correct.mean() - 0.5) <= rows_alone
    assert held_by_rows_alone < 80 < 90 <= held <= 99


# --- rows that share something ----------------------------------------------------------------------------------------


def drawn_by_hand(correct, clusters, resamples=4_000):
    """The accuracies of resamples: each name drawn with replacement, a row as often as the product of its names."""
    generator, names = np.random.default_rng(5), sorted({name for shared in clusters for name in shared})
    accuracies = []
    for _ in range(resamples):
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names)).tolist()
        times = dict(zip(names, drawn, strict=True))
        weights = np.array([math.prod([times[name] for name in shared]) for shared in clusters])
        if weights.sum():
            accuracies.append((weights * correct).sum() / weights.sum())
    return np.quantile(accuracies, [0.025, 0.975])


@pytest.mark.parametrize(
    "clusters",
    [
        [(name,) for name in "aaaabbbccccddeeefgggg"],
        list(combinations("abcdefg", 2)),
        [*combinations("abcdef", 2), *[("g",)] * 4, *[("a",)] * 2],
    ],
)
def test_what_rows_share_is_drawn_and_not_the_rows(clusters):
    correct = np.random.default_rng(3).random(21) < 0.6
    found = bootstrap_interval(correct, clusters=clusters)
    assert found == pytest.approx(drawn_by_hand(correct, clusters), abs=0.03)
    assert bootstrap_interval(correct, clusters=clusters) == found != bootstrap_interval(correct)


def test_only_what_several_rows_share_counts():
    correct = np.random.default_rng(3).random(40) < 0.6
    alone = bootstrap_interval(correct)
    # Nothing shared: said so, by names of its own, or by two such names.
    for clusters in ([()] * 40, [(row,) for row in range(40)], [(row, f"other {row}") for row in range(40)]):
        assert bootstrap_interval(correct, clusters=clusters) == alone
        assert count_clusters(clusters) == 40
    # A sound of no other row beside one that stands in several.
    shared = [(row // 4,) for row in range(40)]
    beside = [(row // 4, f"other {row}") for row in range(40)]
    assert bootstrap_interval(correct, clusters=beside) == bootstrap_interval(correct, clusters=shared) != alone
    assert count_clusters(beside) == 10


class Name(str):
    """A text whose hash is another one in every process, as that of all texts is."""

    salt = 0

    def __hash__(self):
        return hash((self.salt, str(self)))


def test_the_interval_is_the_same_in_every_process(monkeypatch):
    correct = np.random.default_rng(3).random(28) < 0.6
    found = []
    for salt in range(4):
        monkeypatch.setattr(Name, "salt", salt)
        found.append(
            bootstrap_interval(correct, clusters=[tuple(map(Name, pair)) for pair in combinations("abcdefgh", 2)])
        )
    assert len(set(found)) == 1


def accuracies_of_clusters(generator, count):
    """Half of the clusters are easy and half hard, on the mean."""
    return generator.choice([-0.3, 0.3], size=count)


def one_way(generator):
    """40 clusters of 10 rows: by an intraclass correlation of 0.09 / 0.25 the design effect is 1 + 9 * 0.36."""
    chances = np.repeat(0.5 + accuracies_of_clusters(generator, 40), 10)
    return generator.random(400) < chances, [(row // 10,) for row in range(400)]


def crossed(generator):
    """All 300 pairs of 25 instruments; each stands in 24, which have a correlation of 0.0225 / 0.25."""
    chances = 0.5 + accuracies_of_clusters(generator, 25) / 2
    pairs = list(combinations(range(25), 2))
    return generator.random(300) < [chances[a] + chances[b] - 0.5 for a, b in pairs], pairs


@pytest.mark.parametrize(("simulate", "design_effect"), [(one_way, 1 + 9 * 0.36), (crossed, 1 + 2 * 23 * 0.09)])
def test_clustered_rows_hold_the_true_accuracy_as_often_as_it_says(monkeypatch, simulate, design_effect):
    monkeypatch.setattr(significance, "RESAMPLES", 1_000)
    generator = np.random.default_rng(0)
    means = [simulate(generator)[0].mean() for _ in range(2_000)]
    widths, held, held_by_rows = [], 0, 0
    for _ in range(150):
        correct, clusters = simulate(generator)
        low, high = bootstrap_interval(correct, clusters=clusters)
        by_rows = bootstrap_interval(correct)
        widths.append(high - low)
        held += low <= 0.5 <= high
        held_by_rows += by_rows.low <= 0.5 <= by_rows.high
    # The simulation is what it says, and the interval as wide as that: somewhat wider where rows share two things.
    variance = design_effect * 0.25 / len(correct)
    assert np.var(means) == pytest.approx(variance, rel=0.1)
    assert 0.93 < np.mean(widths) / (2 * 1.96 * variance**0.5) < 1.25
    # Of 150 intervals at 95 % one expects 142, give or take 3.
    assert held_by_rows < 112 < 135 <= held


def test_two_models_that_are_alike_are_seldom_told_apart_on_shared_rows(monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 1_000)
    generator = np.random.default_rng(0)
    told, told_by_rows = 0, 0
    pairs = list(combinations(range(25), 2))
    for _ in range(150):
        # Which of the two is better differs from instrument to instrument.
        favours = accuracies_of_clusters(generator, 25) / 2
        chances = np.array([favours[a] + favours[b] for a, b in pairs])
        first, second = generator.random((2, 300)) < (0.5 + chances, 0.5 - chances)
        told += paired_bootstrap(first, second, clusters=pairs).p <= 0.05
        told_by_rows += paired_bootstrap(first, second).p <= 0.05
    assert told <= 0.08 * 150 < 0.25 * 150 < told_by_rows


def test_few_clusters_never_tell_two_models_apart():
    first, second = outcomes(40, 40), outcomes(0, 40)
    for count, p in ((2, 0.5), (5, 0.0625), (20, 2 / 10_001)):
        found = paired_bootstrap(first, second, clusters=[(row % count,) for row in range(40)])
        assert (found.interval, found.p) == ((1, 1), pytest.approx(p))


def test_a_resample_of_no_row_is_left_out():
    # Of three instruments a resample can draw one alone, which is a pair with none.
    pairs = list(combinations("abc", 2))
    low, high = bootstrap_interval([True, False, True], clusters=pairs)
    assert (low, high) == (0, 1)
    found = paired_bootstrap([True] * 3, [False] * 3, clusters=pairs)
    assert (found.interval, found.p) == ((1, 1), 0.25)


def test_mcnemar_by_hand():
    first = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5 + [False] * 5)
    # (1 + 10 + 45) of 1024 ways for at most 2 heads in 10 tosses, and as many for at most 2 tails.
    assert mcnemar(first, second) == (8, 2, pytest.approx(2 * 56 / 1024))
    assert mcnemar(second, first) == (2, 8, pytest.approx(2 * 56 / 1024))
    assert mcnemar(first, first) == (0, 0, 1)
    assert mcnemar([True], [False]) == (1, 0, 1)


def test_mcnemar_is_seldom_wrong_where_there_is_nothing_to_find():
    generator = np.random.default_rng(0)
    p_values = [mcnemar(*(generator.random((2, 150)) < 0.6)).p for _ in range(400)]
    assert 0 < np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_the_paired_bootstrap_sees_what_the_pairs_tell():
    # One model is right wherever the other is and on 3 % more, so there is no doubt, though the intervals overlap.
    first, second = outcomes(530, 1000), outcomes(500, 1000)
    found = paired_bootstrap(first, second)
    assert found.difference == pytest.approx(0.03)
    assert found.interval == pytest.approx(stats.binom.ppf([0.025, 0.975], 1000, 0.03) / 1000, abs=1e-9)
    assert found.p == 2 / 10_001
    assert bootstrap_interval(first).low < bootstrap_interval(second).high

    turned = paired_bootstrap(second, first)
    assert turned.difference == -found.difference
    assert turned.interval == pytest.approx((-found.interval.high, -found.interval.low), abs=0.002)
    assert turned.p == found.p

    rows = np.random.default_rng(0).permutation(1000)
    assert paired_bootstrap(first, second[rows]).p > 0.05
    assert paired_bootstrap(first[rows], second[rows]).interval == found.interval


def test_the_paired_bootstrap_of_equal_models():
    assert paired_bootstrap([True, False], [True, False]) == (0, (0, 0), 1)
    # One seed against three of the same outcomes: the same model, whatever is drawn.
    assert paired_bootstrap(outcomes(1, 7), [outcomes(1, 7)] * 3) == (0, (0, 0), 1)


def test_five_seeds_that_differ_prove_less_than_five_that_do_not():
    control = outcomes(500, 1000)
    steady = paired_bootstrap([outcomes(530, 1000)] * 5, control)
    shaky = paired_bootstrap([outcomes(right, 1000) for right in (440, 485, 530, 575, 620)], control)
    assert steady.difference == shaky.difference == pytest.approx(0.03)
    assert steady.p < 0.001 < 0.1 < shaky.p
    assert shaky.interval.low < 0 < steady.interval.low
    # The seeds of the second model are drawn as well.
    assert paired_bootstrap(control, [outcomes(right, 1000) for right in (440, 485, 530, 575, 620)]).p > 0.1


@settings(max_examples=15, deadline=None)
# Fewer than six rows can not make a small p.
@given(st.integers(0, 2**32), st.integers(6, 40), st.floats(0.05, 0.95))
def test_p_and_interval_agree(seed, rows, accuracy):
    first, second = np.random.default_rng(seed).random((2, 3, rows)) < accuracy
    found = paired_bootstrap(first, second)
    if found.p < 0.049:
        assert not found.interval.low < 0 < found.interval.high
    if found.p > 0.051:
        assert found.interval.low <= 0 <= found.interval.high


def test_p_of_the_paired_bootstrap_is_seldom_small_where_there_is_nothing_to_find(fewer_resamples):
    generator = np.random.default_rng(0)
    accuracy_of_row = generator.random((200, 1, 60))
    p_values = [paired_bootstrap(*(generator.random((2, 2, 60)) < row)).p for row in accuracy_of_row]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_holm_by_hand():
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04, which comes out as no less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_its_steps_do(p_values):
    rejected = 0
    for rank, p in enumerate(sorted(p_values)):
        if p * (len(p_values) - rank) > 0.05:
            break
        rejected += 1
    assert sum(p <= 0.05 for p in holm(p_values)) == rejected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bootstrap_interval(np.zeros(0, bool)), ValueError, "not empty, got \\(0,\\)"),
        (lambda: bootstrap_interval(np.zeros((3, 0), bool)), ValueError, "not empty"),
        (lambda: bootstrap_interval(np.zeros((2, 2, 2), bool)), ValueError, "shape"),
        (lambda: bootstrap_interval([0.2, 0.4]), TypeError, "bools, right or wrong, got float64"),
        (lambda: bootstrap_interval([True], level=95), ValueError, "`level` must be between 0 and 1, got 95"),
        (lambda: mcnemar([True], [True, False]), ValueError, "1 and of 2 rows cannot be paired"),
        (lambda: mcnemar([[True], [True]], [True]), ValueError, "one seed"),
        (lambda: paired_bootstrap([[True]], [[True, False]]), ValueError, "1 and of 2 rows"),
        (lambda: bootstrap_interval([True, False], clusters=[("a",)]), ValueError, "of 1 rows do not fit .* 2 rows"),
        (lambda: bootstrap_interval([True], level=-1), ValueError, "`level` must be between 0 and 1, got -1"),
        (lambda: paired_bootstrap([True], [True], clusters=[]), ValueError, "of 0 rows do not fit"),
        (lambda: holm([0.5, 1.2]), ValueError, "between 0 and 1"),
        (lambda: holm([float("nan")]), ValueError, "between 0 and 1"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
