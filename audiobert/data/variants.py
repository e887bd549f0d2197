"""Rows made of train rows and plain text: other ways to ask the same, and sentences without a sound to be heard."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from .alignment import find_spans
from .auditorybench import FEATURES, MASK

FLIPPED = {"higher": "lower", "lower": "higher"}
# Other ways to ask what the train rows ask, all of them phrased as train rows are.
TEMPLATES = (
    "{} is the sound a [MASK] makes.",
    "A [MASK] makes a {} sound.",
    "The sound of a [MASK] is {}.",
    "A [MASK] makes a {}.",
)
COMPARISONS = (
    "The {} typically has a [MASK] pitch than the {}.",
    "{} has a [MASK] pitch than {}.",
    "The sound of {} has a [MASK] pitch than the sound of {}.",
    "The sound of {} typically has a [MASK] pitch than the sound of {}.",
)

Row = dict[str, Any]


def varied_rows(train: Dataset, seed: int) -> Dataset:
    """The train rows of `load_auditorybench`, and a variant of each, half of them thinned."""
    draw = random.Random(seed)
    variants = [varied(row, draw, swap=0.5, otherwise=0.3) for row in train]
    variants = [thinned(row, draw) if draw.random() < 0.5 else row for row in variants]
    return Dataset.from_list([*train, *variants], features=FEATURES)


def varied(row: Row, draw: random.Random, swap: float, otherwise: float) -> Row:
    """The row, or with these probabilities a variant of it."""
    if row["task"] == "pitch" and draw.random() < swap:
        row = swapped(row) or row
    if all(span.strip() for span in row["spans"]) and draw.random() < otherwise:
        row = asked_otherwise(row, draw)
    return row


def swapped(row: Row) -> Row | None:
    """A pitch row with its two sounds in each other's place and the other answer; None if a span is not there."""
    ranges = [range_ for range_ in find_spans(row["sentence"], row["spans"], MASK) if range_ is not None]
    if len(ranges) != 2:
        return None
    (start, end), (other_start, other_end) = sorted(ranges)
    text = row["sentence"]
    sentence = text[:start] + text[other_start:other_end] + text[end:other_start] + text[start:end] + text[other_end:]
    return {**row, "sentence": sentence, "answer": FLIPPED[row["answer"]], "spans": row["spans"][::-1]}


def asked_otherwise(row: Row, draw: random.Random) -> Row:
    """The row's knowledge in a sentence of another form."""
    if row["task"] == "animal":
        return {**row, "sentence": draw.choice(TEMPLATES).format(row["spans"][0])}
    return {**row, "sentence": draw.choice(COMPARISONS).format(*row["spans"])}


def thinned(row: Row, draw: random.Random, drop: float = 0.3) -> Row:
    """The row without some of the words around its spans and its mask, so that no turn of phrase is relied on."""
    text, words, end = row["sentence"], [], 0
    ranges = sorted(range_ for range_ in find_spans(text, row["spans"], MASK) if range_ is not None)
    for start, stop in [*ranges, (len(text), len(text))]:
        words += [word for word in text[end:start].split() if MASK in word or draw.random() >= drop]
        words.append(text[start:stop])
        end = stop
    return {**row, "sentence": " ".join(words).strip()}


def silent_rows(passages: Sequence[str], words: int = 20) -> list[Row]:
    """Sentences in which nothing is to be heard: the beginnings of passages, one word of each masked."""
    draw = random.Random(0)
    rows = []
    for passage in passages:
        text = passage.split()[: draw.randint(5, words)]
        place = draw.randrange(len(text))
        text[place], answer = MASK, text[place]
        rows.append({"sentence": " ".join(text), "answer": answer, "spans": [], "task": "plain"})
    return rows
