"""Controls without a language model and without audio: what the texts of AuditoryBench give away by themselves.

On the published files (accuracy in percent, scikit-learn 1.9):

| control | animal dev | animal test | animal wiki | pitch dev | pitch test | pitch wiki |
|---|---:|---:|---:|---:|---:|---:|
| linear | 37.10 | 37.49 | 17.26 | 75.98 | 75.12 | 78.57 |

Answers are compared without regard to case: those of wiki are capitalised ("Alligator") and those of train are not, so
that by exact text none of wiki could be right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from ..data.auditorybench import PITCH_ANSWERS, choose_splits
from .predictions import RowPrediction

TRAIN = "train"
ANIMAL_C = 0.3
PITCH_C = 1.0

Rows = Sequence[dict[str, Any]]
# What answers rows once it has learned from those of train.
Classifier = Callable[[Rows], Sequence[str]]


def majority_control(dataset: DatasetDict, splits: Sequence[str] | None = None) -> list[RowPrediction]:
    """
    Answers every row of a task with that task's most frequent answer in train, of equally frequent ones the first.

    Args:
        dataset: what `load_auditorybench` gives; split train must be there.
        splits: names of the splits to answer; all but train if omitted.

    Returns:
        The answers, in lower case, split by split in the data's order. They are right if they are the data's but for
        case.

    Raises:
        TypeError: if `dataset` is no `DatasetDict`.
        ValueError: for a split or a column that is not there, or a task without rows in train.
    """
    return _answers(dataset, splits, lambda task: _majority)


def linear_control(dataset: DatasetDict, splits: Sequence[str] | None = None) -> list[RowPrediction]:
    """
    Answers by linear classifiers over character n-grams, trained on split train.

    Both see the TF-IDF of the 2- to 5-grams within words of the text in lower case, with logarithmic counts. Animals
    (and any task but pitch): a linear SVM, C = 0.3, over the sentence as it is, with `[MASK]`. Pitch: a logistic
    regression, C = 1, over the features of the first span less those of the second, without an intercept. So it is
    antisymmetric: with the spans swapped the answer is the other one, and that "higher" is more frequent in train
    cannot help. The exception is a row whose spans it cannot tell apart, as they are equal or hold no known n-gram: it
    gets the more frequent answer of train. Spans are taken in the order of the data, which is that of the sentence
    wherever both are found in it. All else is scikit-learn's default.

    Args, results and errors: as those of `majority_control`.

    Raises:
        ValueError: also if train has a single answer in a task, so that nothing can be learned, or if a row of pitch
            has not two spans.
    """
    return _answers(dataset, splits, lambda task: _pair_regression if task == "pitch" else _sentence_svm)


def _answers(
    dataset: DatasetDict, splits: Sequence[str] | None, learner_of: Callable[[str], Callable[[Rows], Classifier]]
) -> list[RowPrediction]:
    """`learner_of` names, for a task, the function that makes a classifier of the rows of train."""
    chosen = _checked_splits(dataset, splits)
    train = dataset[TRAIN].to_list()
    parts = {name: dataset[name].to_list() for name in chosen}
    predicted = {name: [""] * len(rows) for name, rows in parts.items()}
    for task in dict.fromkeys(row["task"] for rows in parts.values() for row in rows):
        learned_from = [row for row in train if row["task"] == task]
        if not learned_from:
            raise ValueError(f"Split {TRAIN} has no row of task {task!r} to learn from.")
        classifier = learner_of(task)(learned_from)
        for name, rows in parts.items():
            numbers = [number for number, row in enumerate(rows) if row["task"] == task]
            if numbers:
                answers = classifier([rows[number] for number in numbers])
                for number, answer in zip(numbers, answers, strict=True):
                    predicted[name][number] = str(answer)
    return [
        RowPrediction.of(name, number, row, predicted[name][number], predicted[name][number] == _key(row["answer"]))
        for name, rows in parts.items()
        for number, row in enumerate(rows)
    ]


def _checked_splits(dataset: DatasetDict, splits: Sequence[str] | None) -> list[str]:
    if not isinstance(dataset, DatasetDict):
        raise TypeError(
            f"A control learns from split {TRAIN}: give the DatasetDict of load_auditorybench, "
            f"not a {type(dataset).__name__}."
        )
    if TRAIN not in dataset:
        raise ValueError(f"A control learns from split {TRAIN}, but the splits are {', '.join(dataset) or 'none'}.")
    splits = list(choose_splits(dataset, splits))
    for name in (TRAIN, *splits):
        missing = {"sentence", "answer", "spans", "task"} - set(dataset[name].column_names)
        if missing:
            raise ValueError(
                f"Split {name} has no column {', '.join(sorted(missing))}; "
                f"its columns are {dataset[name].column_names}."
            )
    return splits


def _key(answer: str) -> str:
    return answer.strip().casefold()


def _most_frequent(rows: Rows) -> str:
    # Of equal counts the first one met comes first.
    return Counter(_key(row["answer"]) for row in rows).most_common(1)[0][0]


def _majority(train: Rows) -> Classifier:
    answer = _most_frequent(train)
    return lambda rows: [answer] * len(rows)


def _sentence_svm(train: Rows) -> Classifier:
    features = _ngrams()
    # The seed is that of the order in which the solver takes the rows.
    model = LinearSVC(C=ANIMAL_C, random_state=0)
    model.fit(features.fit_transform([row["sentence"] for row in train]), _several_answers(train))
    return lambda rows: model.predict(features.transform([row["sentence"] for row in rows])).tolist()


def _pair_regression(train: Rows) -> Classifier:
    pairs = _span_pairs(train)
    texts = [text for pair in pairs for text in pair]
    if not any(text.strip() for text in texts):
        raise ValueError(f"All pitch spans of split {TRAIN} are empty: there is nothing to learn from.")
    features = _ngrams().fit(texts)

    def differences(pairs: list[tuple[str, str]]) -> Any:
        return features.transform([first for first, _ in pairs]) - features.transform([second for _, second in pairs])

    model = LogisticRegression(C=PITCH_C, fit_intercept=False)
    model.fit(differences(pairs), [answer == PITCH_ANSWERS[0] for answer in _several_answers(train)])
    undecided = _most_frequent(train)

    def classify(rows: Rows) -> list[str]:
        margins = model.decision_function(differences(_span_pairs(rows)))
        return np.where(margins == 0, undecided, np.where(margins > 0, *PITCH_ANSWERS)).tolist()

    return classify


def _ngrams() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)


def _several_answers(train: Rows) -> list[str]:
    answers = [_key(row["answer"]) for row in train]
    if len(set(answers)) == 1:
        raise ValueError(
            f"All {len(train)} rows of task {train[0]['task']!r} in split {TRAIN} have the answer {answers[0]!r}: "
            f"a classifier needs two answers to tell apart. Use majority_control, or more rows."
        )
    return answers


def _span_pairs(rows: Rows) -> list[tuple[str, str]]:
    for row in rows:
        if len(row["spans"]) != 2:
            raise ValueError(
                f"A pitch row needs two spans to compare, but {row['sentence']!r} has {len(row['spans'])}: "
                f"{row['spans']!r}."
            )
    return [tuple(row["spans"]) for row in rows]
