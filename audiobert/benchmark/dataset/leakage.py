"""How much of a benchmark's later splits stands in its train split."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...reports.tables import TableReport, TextTable, percent
from .splitting import normalise_sentence
from .statistics import Row, rows_by_task

_HEADER = (
    *("task", "split", "rows", "sentence", "sentence and answer", "alike sentence", "alike sentence and answer"),
    *("answer", "spans", "audio"),
)


@dataclass(frozen=True)
class Overlap:
    """The rows of one split and task that have something in common with train.

    All but `rows` are shares of the rows, from 0 to 1, or None where there is no row. The first two compare texts as
    they are written, character by character; the others ignore case, punctuation and white space, as the grouped split
    does.
    """

    rows: int
    sentence: float | None
    """Rows whose sentence is that of a row in train; 31 % of the published animal test rows."""
    sentence_and_answer: float | None
    """Rows whose sentence and answer are both those of one row in train; 5 % of the published animal test rows."""
    alike_sentence: float | None
    alike_sentence_and_answer: float | None
    answer: float | None
    spans: float | None
    """Rows all of whose spans, in their order, are those of one row in train."""
    recording: float | None
    """Rows made from a recording that a row in train was made from too; None also where the recordings are not known,
    as in the published files."""


@dataclass(frozen=True)
class LeakageReport(TableReport):
    """What [`leakage`] found."""

    tasks: dict[str, dict[str, Overlap]]
    """By task, then by split."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; shares stay between 0 and 1."""
        return asdict(self)["tasks"]

    def _table(self) -> TextTable:
        return TextTable("Rows, in %, with the same in train", _HEADER, self._rows(), names=2)

    def _rows(self) -> list[list[str]]:
        return [
            [task, split, f"{overlap.rows:,}", *(percent(share) for share in list(asdict(overlap).values())[1:])]
            for task, by_split in self.tasks.items()
            for split, overlap in by_split.items()
        ]


def leakage(splits: Mapping[str, Iterable[Row]]) -> LeakageReport:
    """
    Compares dev, test and wiki with train, each task by itself.

    Args:
        splits: the rows of each split, with the keys task, sentence, answer, spans and, where known, recordings; what
            `read_dataset` or `load_auditorybench` give.

    Raises:
        ValueError: if there is no split train, or a split or a task that the benchmark does not have.
    """
    if "train" not in splits:
        raise ValueError(f"There is no split train to compare with; the splits are {', '.join(splits) or 'none'}.")
    return LeakageReport(
        {
            task: {split: _overlap(by_split["train"], rows) for split, rows in by_split.items() if split != "train"}
            for task, by_split in rows_by_task(splits).items()
        }
    )


def _overlap(train: Sequence[Row], rows: Sequence[Row]) -> Overlap:
    def share(key: Callable[[Row], Hashable]) -> float | None:
        known = {key(row) for row in train}
        return _share(key(row) in known for row in rows)

    return Overlap(
        rows=len(rows),
        sentence=share(lambda row: row["sentence"]),
        sentence_and_answer=share(lambda row: (row["sentence"], row["answer"])),
        alike_sentence=share(lambda row: normalise_sentence(row["sentence"])),
        alike_sentence_and_answer=share(
            lambda row: (normalise_sentence(row["sentence"]), normalise_sentence(row["answer"]))
        ),
        answer=share(lambda row: normalise_sentence(row["answer"])),
        spans=share(lambda row: tuple(normalise_sentence(span) for span in row["spans"])),
        recording=_recording_overlap(train, rows),
    )


def _recording_overlap(train: Sequence[Row], rows: Sequence[Row]) -> float | None:
    if any(row.get("recordings") is None for part in (train, rows) for row in part):
        return None
    known = {recording for row in train for recording in row["recordings"]}
    return _share(not known.isdisjoint(row["recordings"]) for row in rows)


def _share(found: Iterable[bool]) -> float | None:
    found = list(found)
    return sum(found) / len(found) if found else None
