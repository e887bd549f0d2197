"""What is answered without a language model: the most frequent answer, and what a linear classifier reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datasets import Dataset, DatasetDict

from ...data.auditorybench import FEATURES
from ..text_only import TRAIN, linear_control
from .answers import SwapAnswer
from .questions import PARTS, SoundSwap

MAJORITY = "majority answer"
LINEAR = "linear text-only"


def majority_answers(swap: SoundSwap) -> list[SwapAnswer]:
    """The most frequent answer of each part to all of its questions: one answer cannot get more."""
    answers = []
    for part in PARTS:
        asked = swap.part(part)
        counts = Counter(question.answer for question in asked)
        answers += [SwapAnswer(question, counts.most_common(1)[0][0]) for question in asked]
    return answers


def linear_answers(swap: SoundSwap, train: Dataset) -> list[SwapAnswer]:
    """
    The answers of `audiobert.evaluation.text_only.linear_control`.

    Args:
        swap: the questions.
        train: split train of `load_auditorybench`. Of its animals those count that are among the part's answers, so
            that the classifier chooses between the same as a model.

    Raises:
        ValueError: train has too few rows or answers of a task.
    """
    answers, learned_from = [], train.to_list()
    for part in PARTS:
        asked = swap.part(part)
        choices = {answer.casefold(): answer for answer in swap.answers(part)}
        rows = [
            {"sentence": question.sentence, "answer": question.answer, "spans": question.spans, "task": question.task}
            for question in asked
        ]
        if rows:
            known = [row for row in learned_from if row["answer"].casefold() in choices]
            found = linear_control(DatasetDict({TRAIN: _dataset(known), "swap": _dataset(rows)}), ["swap"])
            answers += [SwapAnswer(one, choices[row.predicted]) for one, row in zip(asked, found, strict=True)]
    return answers


def _dataset(rows: Sequence[dict]) -> Dataset:
    return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
