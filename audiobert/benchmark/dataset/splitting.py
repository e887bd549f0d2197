"""Train, dev and test: split so that nothing of one stands in another, or as the paper did."""

from __future__ import annotations

import json
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SPLIT_NAMES = ("train", "dev", "test")
FRACTIONS = (0.7, 0.1, 0.2)
# A group bigger than this share of a small split goes to the largest one, so that no recording rules an evaluation.
LARGEST_GROUP = 0.1


def split_rows(
    rows: Iterable[dict[str, Any]],
    *,
    seed: int,
    grouped: bool = True,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, list[dict[str, Any]]]:
    """
    Splits rows into train, dev and test, each task towards the same fractions.

    Rows that share a recording, or whose sentences are the same but for case, punctuation and white space, are one
    group, and so are groups that share a row; no group is ever split. Groups are given out from the largest to the
    smallest, each to a split with room for it, drawn with odds by the room that is left; a group of more than a tenth
    of dev or of test goes to train, as long as train has room. Rows alone fill what is left, so that the sizes are
    exactly those asked for unless large groups stand in the way. A giant group, larger than train is meant to be,
    goes to train whole, which is then too large, and dev and test share the remaining rows in their ratio; if all rows
    are one group, dev and test are empty.

    The result depends on the rows and the seed, not on the order of the rows.

    Args:
        rows: with the keys task (str), sentence (str) and, where known, recordings (list of their ids); JSON-ready.
        seed: of the draws and of the order of the rows in each split.
        grouped: False for the plain random split of the paper (section II-A), in which a sentence or a recording can
            stand in several splits: of the published animal test sentences, 31 % stand in train too.
        fractions: of train, dev and test; positive, 1 together.

    Raises:
        ValueError: for other fractions, or a row without task or sentence, with its number.
    """
    _check_fractions(fractions)
    rows = list(rows)
    for number, row in enumerate(rows):
        if not {"task", "sentence"} <= row.keys():
            raise ValueError(f"Row {number} needs the keys task and sentence; it has {', '.join(row) or 'none'}.")
    rows.sort(key=lambda row: json.dumps(row, sort_keys=True))
    draw = random.Random(seed)
    draw.shuffle(rows)

    groups = _groups(rows) if grouped else [[row] for row in rows]
    # By size alone: the shuffled order decides between groups of a size.
    groups.sort(key=len, reverse=True)
    rows_of_task = Counter(row["task"] for row in rows)
    targets = {task: _targets(count, fractions) for task, count in rows_of_task.items()}
    splits = _give_out(groups, targets, draw)
    for part in splits.values():
        draw.shuffle(part)
    return splits


def normalise_sentence(text: str) -> str:
    """The words of a text in lower case, without punctuation: equal for sentences that count as the same."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != len(SPLIT_NAMES) or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise ValueError(f"`fractions` must be three positive numbers that add up to 1, got {tuple(fractions)}.")


def _targets(count: int, fractions: Sequence[float]) -> dict[str, int]:
    """How many of `count` rows each split is to have: whole numbers that add up."""
    exact = {name: fraction * count for name, fraction in zip(SPLIT_NAMES, fractions, strict=True)}
    targets = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(SPLIT_NAMES, key=lambda name: targets[name] - exact[name])
    for name in by_remainder[: count - sum(targets.values())]:
        targets[name] += 1
    return targets


def _groups(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Union-find over the rows: connected by a recording or by a sentence, directly or through others."""
    parents = list(range(len(rows)))

    def root_of(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    first_with: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        keys = [("sentence", normalise_sentence(row["sentence"]))]
        keys += [("recording", recording) for recording in row.get("recordings") or ()]
        for key in keys:
            parents[root_of(number)] = root_of(first_with.setdefault(key, number))
    groups: dict[int, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(root_of(number), []).append(row)
    return list(groups.values())


def _give_out(
    groups: Iterable[list[dict[str, Any]]], targets: Mapping[str, Mapping[str, int]], draw: random.Random
) -> dict[str, list[dict[str, Any]]]:
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLIT_NAMES}
    room = {task: dict(by_split) for task, by_split in targets.items()}
    largest = {task: _largest_groups(by_split) for task, by_split in targets.items()}
    for group in groups:
        counts = Counter(row["task"] for row in group)
        fitting = [
            name
            for name in SPLIT_NAMES
            if all(count <= min(room[task][name], largest[task][name]) for task, count in counts.items())
        ]
        # A group with rows of several tasks weighs the room of each by its rows.
        weights = {name: sum(count * room[task][name] for task, count in counts.items()) for name in SPLIT_NAMES}
        if fitting:
            (chosen,) = draw.choices(fitting, [weights[name] for name in fitting])
        else:
            chosen = max(SPLIT_NAMES, key=weights.__getitem__)
        splits[chosen] += group
        for task, count in counts.items():
            room[task][chosen] -= count
    return splits


def _largest_groups(targets: Mapping[str, int]) -> dict[str, int]:
    """The size of the largest group that each split takes while another has room for it."""
    limits = {name: max(1, int(LARGEST_GROUP * target)) for name, target in targets.items()}
    largest = max(SPLIT_NAMES, key=targets.__getitem__)
    return {**limits, largest: targets[largest]}
