"""Accuracy where the training texts tell the answer and where they do not, and by how well the sounds fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..benchmark.dataset.splitting import normalise_sentence
from ..reports.tables import TableReport, TextTable, percent
from .clusters import OVER_CLUSTERS
from .comparison import Accuracy, Outcomes, Runs, check_same_rows, interval_text
from .predictions import RowPrediction

# What is said of a row's sentence, of its answer and of its spans, most familiar first.
SENTENCE_LEVELS = ("seen with this answer", "seen with others only", "not seen")
ANSWER_LEVELS = ("seen", "not seen")
SPANS_LEVELS = ("all seen", "some seen", "none seen", "no spans")
NOTHING_RETRIEVED = "nothing retrieved"
SIMILARITY_BINS = 4

# The name of a kind of row, after its place in the tables.
Level = tuple[int, str]


@dataclass(frozen=True)
class Stratum:
    """The rows of one task and split that have one property in common."""

    by: str
    """What the rows are told apart by: "sentence in train", "answer in train", "spans in train" or "similarity"."""
    split: str
    task: str
    level: str
    """One of the levels above, or the range of similarities."""
    rows: int
    accuracies: dict[str, Accuracy]
    """By model."""


@dataclass(frozen=True)
class StrataReport(TableReport):
    """What [`stratify`] found."""

    strata: tuple[Stratum, ...]
    """Those with rows; of each `by`, split and task they share out all rows."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; shares stay between 0 and 1, an interval is the pair of its ends."""
        return asdict(self)

    def _table(self) -> TextTable:
        models = list(self.strata[0].accuracies)
        rows = [
            [
                *(stratum.by, stratum.split, stratum.task, stratum.level, f"{stratum.rows:,}"),
                *(f"{percent(part.mean)} {interval_text(part.interval)}" for part in stratum.accuracies.values()),
            ]
            for stratum in self.strata
        ]
        header = ("by", "split", "task", "kind", "rows", *models)
        return TextTable("Accuracy by kind of row", header, rows, names=4, note=OVER_CLUSTERS)


def stratify(
    models: Mapping[str, Runs],
    train: Iterable[Mapping[str, Any]],
    similarities: Mapping[tuple[str, int], float] | None = None,
) -> StrataReport:
    """
    Splits up the accuracy of models by what one that only reads can know from the training data, with 95 % intervals
    over what the rows of a stratum share (`clusters_of`).

    Texts are the same if their words are, whatever their case and punctuation (`normalise_sentence`), and each task is
    compared with its own training rows:

    - sentence: seen in train with this answer, which can be remembered; seen with other answers only, where memory
      misleads; or not seen.
    - answer: whether any row of train has it. That of pitch rows always is.
    - spans: how many of a row's spans are spans of train, each by itself and at any place, as each tells something of
      its pitch. (`leakage` counts rows whose spans together are those of one row.)
    - similarity, if given: quarters of each task's rows, all splits together, by rising similarity. Rows with equal
      similarities stay together, so the quarters can be unequal or fewer.

    Args:
        models: by name, the predictions of each, one list per seed; all of the same rows.
        train: the train split of `load_auditorybench`, or rows with the keys sentence, answer, spans and task.
        similarities: for (split, row), as in the predictions, how similar what was retrieved is, of several spans in
            any one way (their mean, say). A row left out is one for which nothing was retrieved.

    Raises:
        ValueError: there is no model, one has no predictions, the models answered different rows, no similarity is
            for any row of the predictions, or one is not finite.
        TypeError: a list of predictions stands where a list of such lists, one per seed, is expected.
    """
    if not models:
        raise ValueError("There is no model whose accuracy could be split up.")
    outcomes = {name: Outcomes.of(runs) for name, runs in models.items()}
    check_same_rows([runs[0] for runs in models.values()])
    rows = next(iter(models.values()))[0]

    levels = _text_levels(rows, train)
    if similarities is not None:
        levels["similarity"] = _similarity_levels(rows, similarities)

    strata = []
    for by, level_of_row in levels.items():
        for split, task in dict.fromkeys((row.split, row.task) for row in rows):
            chosen: dict[Level, list[int]] = {}
            for number, row in enumerate(rows):
                if (row.split, row.task) == (split, task):
                    chosen.setdefault(level_of_row[number], []).append(number)
            for (_, name), numbers in sorted(chosen.items()):
                accuracies = {model: Accuracy.of(right.part(numbers)) for model, right in outcomes.items()}
                strata.append(Stratum(by, split, task, name, len(numbers), accuracies))
    return StrataReport(tuple(strata))


def _text_levels(rows: Sequence[RowPrediction], train: Iterable[Mapping[str, Any]]) -> dict[str, list[Level]]:
    sentences: set[tuple[str, str]] = set()
    answered_sentences: set[tuple[str, str, str]] = set()
    answers: set[tuple[str, str]] = set()
    spans: set[tuple[str, str]] = set()
    for known in train:
        task, sentence, answer = known["task"], *map(normalise_sentence, (known["sentence"], known["answer"]))
        sentences.add((task, sentence))
        answered_sentences.add((task, sentence, answer))
        answers.add((task, answer))
        spans.update((task, normalise_sentence(span)) for span in known["spans"])

    levels: dict[str, list[Level]] = {"sentence in train": [], "answer in train": [], "spans in train": []}
    for row in rows:
        sentence, answer = normalise_sentence(row.sentence), normalise_sentence(row.answer)
        answered = (row.task, sentence, answer) in answered_sentences
        rank = 0 if answered else 1 if (row.task, sentence) in sentences else 2
        levels["sentence in train"].append((rank, SENTENCE_LEVELS[rank]))

        rank = 0 if (row.task, answer) in answers else 1
        levels["answer in train"].append((rank, ANSWER_LEVELS[rank]))

        seen = [(row.task, text) in spans for text in map(normalise_sentence, row.spans) if text]
        rank = 3 if not seen else 0 if all(seen) else 1 if any(seen) else 2
        levels["spans in train"].append((rank, SPANS_LEVELS[rank]))
    return levels


def _similarity_levels(rows: Sequence[RowPrediction], similarities: Mapping[tuple[str, int], float]) -> list[Level]:
    found = [similarities.get((row.split, row.row)) for row in rows]
    by_task: dict[str, list[float]] = {}
    for row, similarity in zip(rows, found, strict=True):
        if similarity is not None:
            if not math.isfinite(similarity):
                raise ValueError(f"The similarity of row {row.row} of {row.split} must be finite, got {similarity}.")
            by_task.setdefault(row.task, []).append(similarity)
    if not by_task:
        raise ValueError("No similarity is of a row of the predictions; the keys must be (split, row), str and int.")

    quarters = {task: _quarters(values) for task, values in by_task.items()}
    return [
        (SIMILARITY_BINS, NOTHING_RETRIEVED) if similarity is None else quarters[row.task][similarity]
        for row, similarity in zip(rows, found, strict=True)
    ]


def _quarters(values: Sequence[float]) -> dict[float, Level]:
    """The level of each value, named by the least and the largest of its quarter."""
    inner = np.quantile(values, np.arange(1, SIMILARITY_BINS) / SIMILARITY_BINS)
    members: dict[int, list[float]] = {}
    for value in sorted(set(values)):
        members.setdefault(int(np.searchsorted(inner, value, side="right")), []).append(value)
    return {value: (rank, f"{part[0]:.3f} to {part[-1]:.3f}") for rank, part in members.items() for value in part}
