"""CSV files that people and other programs write, read strictly: what is wrong is told with the file and the line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CsvRow:
    """A row under its header.

    Attributes:
        line: on which the row begins, from 1.
        cells: by column, for every column.
        misfit: what is to be done about a row with more or fewer cells than the header; None of any other. Which cell
            belongs to which column cannot be told then.
    """

    line: int
    cells: dict[str, str]
    misfit: str | None


def read_csv(path: Path, required: Iterable[str] = (), delimiter: str = ",") -> Iterator[CsvRow]:
    """
    The rows of a CSV file in UTF-8, with or without a byte order mark; lines that are empty are passed over.

    Args:
        path: of the file, whose first row names the columns.
        required: columns that it has to have.
        delimiter: between the cells.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: with the file, and the line where there is one: a column is missing or stands there twice, a
            quotation mark is not closed, a cell is longer than 131,072 characters, or a byte is no UTF-8.
    """
    line = 1
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(_without_nul(file, path), delimiter=delimiter, strict=True)
            header = next(reader, [])
            _check_header(header, required, path)
            line = reader.line_num + 1
            for values in reader:
                begin, line = line, reader.line_num + 1
                if values:
                    cells = dict.fromkeys(header, "") | dict(zip(header, values, strict=False))
                    yield CsvRow(begin, cells, _misfit(len(values), len(header)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {_described(error)}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}{_first_byte_that_is_no_utf8(path)}; save the file as UTF-8.") from error


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    """Some releases of Python's csv let a NUL through, which a file in UTF-16 is full of; others stop at it."""
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: a NUL character, as UTF-16 has them; save the file as UTF-8.")
        yield line


def _check_header(header: list[str], required: Iterable[str], path: Path) -> None:
    if missing := [name for name in required if name not in header]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {header or 'none'}.")
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise ValueError(f"{path} has several columns {', '.join(map(repr, double))}; rename or remove one of each.")


def _misfit(cells: int, columns: int) -> str | None:
    if cells > columns:
        return f'{cells} cells under {columns} columns; put "quotation marks" around a cell that holds a comma'
    if cells < columns:
        return f"{cells} cells under {columns} columns; write the comma of a cell that is empty, too"
    return None


def _described(error: csv.Error) -> str:
    if "field limit" in str(error):
        limit = csv.field_size_limit()
        return f"a cell of more than {limit:,} characters; close the quotation mark that opens it, or shorten it"
    if "unexpected end" in str(error):
        return "a quotation mark opens a cell and none closes it; close it, or double one that belongs to the text"
    return f"no valid CSV ({error}); double a quotation mark that belongs to the text of a cell"


def _first_byte_that_is_no_utf8(path: Path) -> str:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f", line {line}: byte 0x{content[error.start]:02x} at position {error.start:,} is no UTF-8"
    return " was no UTF-8 when it was read"
