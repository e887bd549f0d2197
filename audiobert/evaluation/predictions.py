"""What a model answers, row by row: what every score, interval and test of the evaluation is computed from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The column of both tasks together, where a split has both: their rows pooled, as in the paper.
COMBINED = "combined"


@dataclass(frozen=True)
class RowPrediction:
    """The answer to one row of AuditoryBench.

    Attributes:
        split, task: where the row stands.
        row: its number, from 0, among the rows of its split as they were given to the evaluation.
        sentence, answer, spans: of the data.
        predicted: what the model answered, as text.
        correct: whether that is right by the rule of the model's kind.
    """

    split: str
    task: str
    row: int
    sentence: str
    answer: str
    spans: tuple[str, ...]
    predicted: str
    correct: bool

    @classmethod
    def of(cls, split: str, number: int, row: Mapping[str, Any], predicted: str, correct: bool) -> RowPrediction:
        """The answer to `row` of `load_auditorybench`, number `number` of its split."""
        given = {name: row[name] for name in ("task", "sentence", "answer")}
        return cls(split=split, row=number, spans=tuple(row["spans"]), predicted=predicted, correct=correct, **given)


def save_predictions(path: str | Path, rows: Iterable[RowPrediction]) -> None:
    """Writes predictions as JSON Lines."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def load_predictions(path: str | Path) -> list[RowPrediction]:
    """Reads what `save_predictions` wrote.

    Raises:
        ValueError: a line is none of its rows, with the file and the line.
    """
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                values = json.loads(line)
                rows.append(RowPrediction(**{**values, "spans": tuple(values["spans"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}, line {number}: no prediction ({error}).") from error
    return rows
