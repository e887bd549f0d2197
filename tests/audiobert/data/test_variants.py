"""Variants of train rows say the same, and keep their spans and their mask."""

import random

from datasets import Dataset

from audiobert.data.auditorybench import FEATURES, MASK
from audiobert.data.variants import silent_rows, swapped, varied, varied_rows


def test_a_swapped_pitch_row_says_the_same():
    row = {
        "sentence": "The hum of rain has a [MASK] pitch than a siren.",
        "answer": "lower",
        "spans": ["hum of rain", "siren"],
        "task": "pitch",
    }
    assert swapped(row) == {
        "sentence": "The siren has a [MASK] pitch than a hum of rain.",
        "answer": "higher",
        "spans": ["siren", "hum of rain"],
        "task": "pitch",
    }
    assert swapped({**row, "spans": ["drum", "siren"]}) is None


def test_variants_keep_mask_and_spans():
    draw = random.Random(0)
    row = {"sentence": "Meow is what [MASK] says.", "answer": "cat", "spans": ["Meow"], "task": "animal"}
    variants = [varied(row, draw, swap=0.5, otherwise=0.5) for _ in range(20)]
    assert len({variant["sentence"] for variant in variants}) > 2
    assert all(variant["sentence"].count("[MASK]") == 1 and "Meow" in variant["sentence"] for variant in variants)


def test_each_row_is_there_with_a_variant_of_it():
    row = {"sentence": "Meow is what [MASK] says.", "answer": "cat", "spans": ["Meow"], "task": "animal"}
    train = Dataset.from_list([{**row, "answer": f"cat {number}"} for number in range(20)], features=FEATURES)
    rows = varied_rows(train, seed=0)
    assert rows[:20] == train[:] and rows[20:]["answer"] == train["answer"][:]
    assert 3 < sum(sentence != row["sentence"] for sentence in rows[20:]["sentence"]) < 20
    assert varied_rows(train, seed=0)[:] == rows[:] != varied_rows(train, seed=1)[:]


def test_silent_rows_have_a_mask_and_no_span():
    passages = ["the city has a church and a river", "he was born in the town of his father " * 5]
    for row, passage in zip(silent_rows(passages), passages, strict=True):
        assert row["spans"] == [] and row["sentence"].count(MASK) == 1
        assert passage.startswith(row["sentence"].replace(MASK, row["answer"]))
        assert 5 <= len(row["sentence"].split()) <= 20
