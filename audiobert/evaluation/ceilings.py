"""How well a sentence can be answered at all, where the data has several answers to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..benchmark.dataset.splitting import normalise_sentence
from .predictions import RowPrediction

# Beside tables that show them.
CEILING_NOTE = (
    "Ceiling: the accuracy that one answer per sentence can reach at best, that of the answer which most rows with "
    "the sentence have (Bayes-optimal on these rows, given the sentence). Set-valued: right if any row with the "
    "sentence has the answer."
)


def ceiling(rows: Sequence[RowPrediction]) -> float:
    """
    The accuracy, from 0 to 1, that one answer to each sentence can reach at best on these rows: in each split and task
    the share of rows with the answer that most rows of their sentence have. It is below 1 where equal sentences have
    different answers ("growl is the sound a [MASK] makes."), and no choice of one answer can be right for all.

    A masked model is told how many word pieces the answer has, so that it can pass it.

    Args:
        rows: at least one. Only the data's side of them counts.
    """
    answers: dict[tuple[str, str, str], Counter[str]] = {}
    for row in rows:
        answers.setdefault(_sentence(row), Counter())[normalise_sentence(row.answer)] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(rows)


def right_for_any_row(rows: Sequence[RowPrediction]) -> list[bool]:
    """
    Which rows are right if a sentence may have any of its answers (set-valued accuracy is their share): those that are
    right, and those whose prediction is the answer of another row of `rows` with the same sentence, in the same split
    and task. Answers are the same if their words are, whatever their case and punctuation.
    """
    answers: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        answers.setdefault(_sentence(row), set()).add(normalise_sentence(row.answer))
    return [row.correct or normalise_sentence(row.predicted) in answers[_sentence(row)] for row in rows]


def _sentence(row: RowPrediction) -> tuple[str, str, str]:
    return row.split, row.task, row.sentence
