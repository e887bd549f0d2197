"""Results that are one table: for the terminal, for Markdown, and as JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class TextTable:
    """
    Cells under a header; the first `names` columns hold words and stand to the left, the others numbers. A note of
    whole sentences stands below.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int
    note: str = ""

    def to_rich(self) -> Table:
        # Ten columns fit into the 80 of a plain terminal only without lines and margins between them.
        table = Table(title=self.title, caption=Text(self.note) if self.note else None, box=box.SIMPLE, padding=0)
        for number, name in enumerate(self.header):
            table.add_column(name, justify="left" if number < self.names else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def to_markdown(self) -> str:
        """The table without its title; whatever a cell holds, it stays one cell and shows as it is."""
        ruler = ["---" if number < self.names else "---:" for number in range(len(self.header))]
        cells = [[plain_markdown(cell) for cell in row] for row in self.rows]
        table = "\n".join("| " + " | ".join(row) + " |" for row in (self.header, ruler, *cells))
        return f"{table}\n\n{plain_markdown(self.note)}" if self.note else table


class TableReport(ABC):
    """What a measurement gives: `evaluate_model`, `benchmark_statistics` and their like."""

    @abstractmethod
    def to_dict(self) -> Any:
        """Plain dicts, lists, strings and numbers; shares from 0 to 1, not rounded."""

    @abstractmethod
    def _table(self) -> TextTable: ...

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_table(self) -> Table:
        """A table for `rich`, shares in percent."""
        return self._table().to_rich()

    def to_markdown(self, titled: bool = False) -> str:
        """The same table in Markdown, its title before it if `titled`."""
        table = self._table()
        return f"{table.title}:\n\n{table.to_markdown()}" if titled else table.to_markdown()


def plain_markdown(text: str) -> str:
    """The text on one line, with what would end a table's cell or begin HTML escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
