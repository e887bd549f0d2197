"""Results that are a table: the same cells for the terminal and in Markdown, and what is to be said of them below."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console

from audiobert.console import Format, print_figures
from audiobert.reports.tables import TableReport, TextTable


class Counted(TableReport):
    def __init__(self, note: str = "") -> None:
        self.note = note

    def to_dict(self) -> dict[str, Any]:
        return {"cats": 2}

    def _table(self) -> TextTable:
        return TextTable("Animals", ("animal", "count"), [["a [red]cat|", "2"]], names=1, note=self.note)


TABLE = ["| animal | count |", "| --- | ---: |", "| a [red]cat\\| | 2 |"]


def test_a_note_stands_below_the_table_in_every_form() -> None:
    assert Counted().to_markdown().splitlines() == TABLE
    noted = Counted("Not [b]all[/b].")
    assert noted.to_markdown().splitlines() == [*TABLE, "", "Not [b]all[/b]."]
    assert noted.to_markdown(titled=True).splitlines()[:3] == ["Animals:", "", TABLE[0]]
    console = Console(width=80, file=io.StringIO())
    console.print(noted.to_table())
    text = console.file.getvalue()
    assert text.index("Animals") < text.index("a [red]cat|") < text.index("Not [b]all[/b].")


def test_two_tables_in_markdown_are_two(capsys) -> None:
    for _ in range(2):
        print_figures(Counted(), Format.markdown)
    assert capsys.readouterr().out.splitlines() == ["Animals:", "", *TABLE, ""] * 2
    print_figures(Counted(), Format.json)
    assert json.loads(capsys.readouterr().out) == {"cats": 2}
