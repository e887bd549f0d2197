"""Sheets that people fill in: a CSV for a spreadsheet, and a single-file page with the same rows for a browser."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...csv_files import read_csv
from ...files import whole_file
from ...reports.pages import write_page

COMMENT = "comment"

# What a spreadsheet takes for a formula, whatever it does then: a comment of a stranger may hold one.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_MADE_PLAIN = re.compile(r"'+[=+\-@\t\r\n]")


@dataclass(frozen=True)
class Option:
    """One of the answers to a question: what stands in the CSV, what the page says, and the key that chooses it."""

    value: str
    label: str
    key: str


@dataclass(frozen=True)
class Question:
    """A column that a person fills in."""

    column: str
    label: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Sheet:
    """Rows for a person to judge.

    Attributes:
        name: the stem of both files, and the name under which the browser offers the CSV.
        storage: the browser keeps what was filled in under this key and the row's id.
        title, instructions: the page's heading, and paragraphs on what is to be done.
        columns: the columns that come filled in; `id` and `sentence` are among them. The questions' follow, and
            `comment`.
        details: those of `columns` that the page shows in small print.
        questions: what is asked of each row.
        rows: one dict of strings for each row, by column; columns to fill in that are missing are blank.
        spans: for each row, the parts of its sentence that the page marks.
    """

    name: str
    storage: str
    title: str
    instructions: tuple[str, ...]
    columns: tuple[str, ...]
    details: tuple[str, ...]
    questions: tuple[Question, ...]
    rows: tuple[Mapping[str, str], ...]
    spans: tuple[Sequence[str], ...]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Writes `NAME.csv` and `NAME.html` into a folder, each as a whole or not at all, and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {**asdict(self), "to_fill_in": self._to_fill_in()}
        return self._write_csv(folder / f"{self.name}.csv"), write_page(
            "sheet.html", data, folder / f"{self.name}.html"
        )

    def _write_csv(self, path: Path) -> Path:
        columns = [*self.columns, *self._to_fill_in()]
        # With the byte order mark, spreadsheets see that it is UTF-8.
        with whole_file(path, encoding="utf-8-sig", errors="replace") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({column: plain_cell(text) for column, text in row.items()} for row in self.rows)
        return path

    def _to_fill_in(self) -> list[str]:
        return [*(question.column for question in self.questions), COMMENT]


def row_id(row: Mapping[str, Any]) -> str:
    """A short digest of a row's sentence and answer: the same whenever and wherever the sheet is made."""
    content = json.dumps([row["sentence"], row["answer"]]).encode()
    # A letter comes first, as spreadsheets take digits with an "e" among them for a number.
    return "r" + hashlib.sha256(content).hexdigest()[:12]


def plain_cell(text: str) -> str:
    """The text as no spreadsheet takes it for a formula, an apostrophe before it; `original_cell` undoes it."""
    return f"'{text}" if _FORMULA.match(text) else text


def original_cell(text: str) -> str:
    return text[1:] if _MADE_PLAIN.match(text) else text


def read_sheet(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """
    The rows of a CSV that has these columns and maybe others, each with its place ("sheet.csv, line 3").

    Commas, semicolons and tabs between fields are all understood, as spreadsheets write what their language uses.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a row has more or fewer fields than the header, an id is blank or stands there
            twice, or the file is no CSV in UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no sheet {path}.")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    seen: dict[str, int] = {}
    for row in read_csv(path, ("id", *columns), delimiter=max(",;\t", key=header.count)):
        where = f"{path}, line {row.line}"
        if row.misfit is not None:
            raise ValueError(f"{where}: the row has more or fewer fields than the header: {row.misfit}.")
        cells = {column: original_cell(text) for column, text in row.cells.items()}
        if not cells["id"].strip():
            raise ValueError(f"{where}: the id is blank; leave that column as it was.")
        if cells["id"] in seen:
            raise ValueError(f"{where}: the id {cells['id']!r} stands in line {seen[cells['id']]} already.")
        seen[cells["id"]] = row.line
        yield where, cells
