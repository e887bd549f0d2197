"""Train, dev and test: their sizes, and that nothing of one stands in another."""

from __future__ import annotations

import os
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.benchmark.dataset.publication import read_dataset
from audiobert.benchmark.dataset.splitting import normalise_sentence, split_rows


def rows_of(groups, task="animal"):
    """Groups of so many rows each, that share a recording and nothing else."""
    return [
        {
            "task": task,
            "sentence": f"A [MASK] makes sound {task} {group} {number}.",
            "answer": "cat",
            "spans": ["sound"],
            "recordings": [f"{task}-{group}"],
        }
        for group, size in enumerate(groups)
        for number in range(size)
    ]


def sizes(splits):
    return tuple(len(splits[name]) for name in ("train", "dev", "test"))


def things(rows):
    return {normalise_sentence(row["sentence"]) for row in rows} | {id for row in rows for id in row["recordings"]}


def assert_disjoint_and_complete(splits, rows):
    for one, other in combinations(splits.values(), 2):
        assert not things(one) & things(other)
    assert Counter(map(str, rows)) == Counter(str(row) for part in splits.values() for row in part)


@pytest.mark.parametrize("grouped", [True, False])
def test_rows_without_anything_in_common_are_split_exactly(grouped):
    rows = rows_of([1] * 1000)
    splits = split_rows(rows, seed=3, grouped=grouped)
    assert sizes(splits) == (700, 100, 200)
    assert_disjoint_and_complete(splits, rows)


@pytest.mark.parametrize(
    "groups",
    [
        [5] * 40 + [2] * 100 + [1] * 600,
        [60, 50, 40, 30] + [10] * 20 + [1] * 620,
        [3] * 330 + [1] * 10,
        [300] + [1] * 700,
        [10] * 100,
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_whole_and_the_sizes_are_kept(groups, seed):
    rows = rows_of(groups)
    splits = split_rows(rows, seed=seed)
    assert sizes(splits) == (700, 100, 200)
    assert_disjoint_and_complete(splits, rows)


@pytest.mark.parametrize("seed", range(5))
def test_a_giant_group_goes_to_train_and_the_rest_is_shared(seed):
    splits = split_rows(rows_of([900] + [1] * 100), seed=seed)
    train, dev, test = sizes(splits)
    assert train == 900
    assert dev + test == 100 and dev == pytest.approx(33, abs=15)
    assert sizes(split_rows(rows_of([50]), seed=seed)) == (50, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_large_group_rules_an_evaluation(seed):
    splits = split_rows(rows_of([90] + [1] * 910), seed=seed)
    assert max(Counter(row["recordings"][0] for row in splits["test"]).values()) == 1
    assert sizes(splits) == (700, 100, 200)


def test_a_group_is_not_left_in_one_piece_at_the_head_of_its_split():
    train = split_rows(rows_of([90] + [1] * 910), seed=0)["train"]
    places = [place for place, row in enumerate(train) if row["recordings"] == ["animal-0"]]
    assert len(places) == 90 and places[0] < 100 and places[-1] > 600


def test_what_connects_rows():
    same = ["The sound of RAIN is [MASK].", "the  sound of rain is [mask]", "The sound, of rain: is [MASK]!"]
    rows = [{"task": "pitch", "sentence": text, "recordings": [f"r{i}"]} for i, text in enumerate(same)]
    # Through the second row, and through the third recording of another.
    rows += [{"task": "pitch", "sentence": "Other [MASK] one", "recordings": ["x", "y", "r1"]}]
    rows += [{"task": "pitch", "sentence": "Other [MASK] two", "recordings": ["y"]}]
    rows += [{"task": "pitch", "sentence": f"Filler [MASK] {i}", "recordings": []} for i in range(45)]
    for seed in range(10):
        splits = split_rows(rows, seed=seed)
        (holding,) = [name for name, part in splits.items() if any(row in part for row in rows[:5])]
        assert all(row in splits[holding] for row in rows[:5])
        assert sizes(splits) == (35, 5, 10)


def test_each_task_has_the_fractions_and_a_recording_of_both_stands_in_one_split():
    rows = rows_of([1] * 200 + [3] * 30) + rows_of([2] * 200, task="pitch")
    for row in rows[200:]:
        row["recordings"] = [row["recordings"][0].replace("pitch-", "animal-")]
    splits = split_rows(rows, seed=1)
    assert_disjoint_and_complete(splits, rows)
    for task, count in (("animal", 290), ("pitch", 400)):
        shares = [sum(row["task"] == task for row in part) / count for part in splits.values()]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.05)


def test_the_plain_split_takes_no_account_of_groups():
    rows = rows_of([10] * 100)
    splits = split_rows(rows, seed=0, grouped=False)
    assert sizes(splits) == (700, 100, 200)
    assert things(splits["train"]) & things(splits["test"])


@pytest.mark.parametrize("grouped", [True, False])
def test_the_order_of_the_rows_plays_no_part_and_the_seed_does(grouped):
    rows = rows_of([3] * 20 + [1] * 100)
    splits = split_rows(rows, seed=5, grouped=grouped)
    assert split_rows(rows[::-1], seed=5, grouped=grouped) == splits
    assert split_rows(iter(rows[50:] + rows[:50]), seed=5, grouped=grouped) == splits
    other = split_rows(rows, seed=6, grouped=grouped)
    assert {row["sentence"] for row in other["test"]} != {row["sentence"] for row in splits["test"]}
    assert rows == rows_of([3] * 20 + [1] * 100)


def test_other_fractions():
    assert sizes(split_rows(rows_of([1] * 100), seed=0, fractions=(0.25, 0.25, 0.5))) == (25, 25, 50)
    assert sizes(split_rows([], seed=0)) == (0, 0, 0)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.0, 0.0, 0.0), (0.8, 0.4, -0.2)])
def test_bad_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="three positive numbers that add up to 1"):
        split_rows(rows_of([1] * 3), seed=0, fractions=fractions)


def test_a_row_without_sentence_is_named():
    with pytest.raises(ValueError, match="Row 2 needs the keys task and sentence; it has task, answer"):
        split_rows([*rows_of([2]), {"task": "animal", "answer": "cat"}], seed=0)


small_rows = st.lists(
    st.fixed_dictionaries(
        {
            "task": st.sampled_from(["animal", "pitch"]),
            "sentence": st.sampled_from(["A b [MASK].", "a B [mask]", "c [MASK]", "d [MASK]", "e [MASK]", "f [MASK]"]),
            "recordings": st.lists(st.sampled_from("123456789"), max_size=2),
        }
    ),
    max_size=30,
)


@settings(deadline=None)
@given(small_rows, st.integers(0, 100))
def test_whatever_the_rows_nothing_is_lost_and_nothing_stands_in_two_splits(rows, seed):
    splits = split_rows(rows, seed=seed)
    assert_disjoint_and_complete(splits, rows)


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_published_rows_can_be_split_without_overlap_at_no_cost_in_size():
    published = read_dataset(os.environ["AUDITORYBENCH_DIR"])
    rows = [{**row, "recordings": []} for name in ("train", "dev", "test") for row in published[name]]
    splits = split_rows(rows, seed=0)
    assert_disjoint_and_complete(splits, rows)
    for task, expected in (("animal", (4211, 601, 1203)), ("pitch", (8314, 1188, 2375))):
        counts = [sum(row["task"] == task for row in part) for part in splits.values()]
        assert counts == pytest.approx(expected, abs=1)
