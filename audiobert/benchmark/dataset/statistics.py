"""The size of a benchmark, as in Table I of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ...data.auditorybench import SPLITS, TASKS
from ...reports.tables import TableReport, TextTable

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SplitStatistics:
    """The three figures of one task in one split."""

    captions: int
    """Rows."""
    total_tokens: int
    """Words of all sentences together: what stands between white space, `[MASK]` among them."""

    @property
    def words_per_caption(self) -> float | None:
        """The mean; None if there is no row."""
        return self.total_tokens / self.captions if self.captions else None


# Table I of the paper. The published files give all of its figures except one: animal train has 39,033 tokens there,
# 39,024 in the paper, as the file was corrected later.
PAPER_TABLE_I = {
    "animal": {
        "train": SplitStatistics(4211, 39024),
        "dev": SplitStatistics(593, 5567),
        "test": SplitStatistics(1211, 11268),
        "wiki": SplitStatistics(197, 1381),
    },
    "pitch": {
        "train": SplitStatistics(8312, 151081),
        "dev": SplitStatistics(1178, 21343),
        "test": SplitStatistics(2387, 43431),
        "wiki": SplitStatistics(3625, 44987),
    },
}
_FIGURES = ("captions", "words per caption", "total tokens")


@dataclass(frozen=True)
class Statistics(TableReport):
    """What [`benchmark_statistics`] counted."""

    tasks: dict[str, dict[str, SplitStatistics]]
    """By task, then by split."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; words per caption are not rounded."""
        return {
            task: {
                split: {
                    "captions": counted.captions,
                    "words_per_caption": counted.words_per_caption,
                    "total_tokens": counted.total_tokens,
                }
                for split, counted in by_split.items()
            }
            for task, by_split in self.tasks.items()
        }

    def to_table(self, paper: bool = False) -> Table:
        """A table for `rich`; with `paper`, the figures of the paper's Table I stand beside."""
        return self._table(paper).to_rich()

    def _table(self, paper: bool = False) -> TextTable:
        header = ["task", "split", *_FIGURES, *(f"{name} (paper)" for name in _FIGURES if paper)]
        rows = [[*row, *_cells(PAPER_TABLE_I[row[0]][row[1]])] if paper else row for row in self._rows()]
        return TextTable("AuditoryBench", header, rows, names=2)

    def _rows(self) -> list[list[str]]:
        return [
            [task, split, *_cells(counted)]
            for task, by_split in self.tasks.items()
            for split, counted in by_split.items()
        ]


def benchmark_statistics(splits: Mapping[str, Iterable[Row]]) -> Statistics:
    """
    Counts rows and words of every task and split (Table I of the paper).

    Args:
        splits: the rows of each split, with the keys task and sentence; what `read_dataset` or `load_auditorybench`
            give. A task without rows counts 0.

    Raises:
        ValueError: for a split or a task that the benchmark does not have.
    """
    return Statistics(
        {
            task: {
                split: SplitStatistics(len(rows), sum(len(row["sentence"].split()) for row in rows))
                for split, rows in by_split.items()
            }
            for task, by_split in rows_by_task(splits).items()
        }
    )


def rows_by_task(splits: Mapping[str, Iterable[Row]]) -> dict[str, dict[str, list[Row]]]:
    """
    The rows of each task and, within it, of each split.

    Raises:
        ValueError: for a split or a task that the benchmark does not have.
    """
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise ValueError(f"The splits of a benchmark are {', '.join(SPLITS)}; got {', '.join(unknown) or 'none'}.")
    rows: dict[str, dict[str, list[Row]]] = {task: {split: [] for split in SPLITS if split in splits} for task in TASKS}
    for split, part in splits.items():
        for row in part:
            if row["task"] not in rows:
                raise ValueError(f"The tasks of a benchmark are {', '.join(TASKS)}; {split} has {row['task']!r}.")
            rows[row["task"]][split].append(row)
    return rows


def _cells(counted: SplitStatistics) -> list[str]:
    words = "-" if counted.words_per_caption is None else f"{counted.words_per_caption:.2f}"
    return [f"{counted.captions:,}", words, f"{counted.total_tokens:,}"]
