"""What the commands share: where they print, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console()
err = Console(stderr=True)


class Format(str, Enum):
    table = "table"
    json = "json"
    markdown = "markdown"


class Figures(Protocol):
    """What a measurement gives: `evaluate_model`, `benchmark_statistics` and their like."""

    def to_table(self) -> Table: ...

    def to_json(self) -> str: ...

    def to_markdown(self) -> str: ...


def print_figures(figures: Figures, output_format: Format) -> None:
    if output_format is Format.table:
        out.print(figures.to_table())
    else:
        # Not by rich, which would break the lines at the width of the terminal.
        print(figures.to_json() if output_format is Format.json else figures.to_markdown())


def plain_errors(command: Callable) -> Callable:
    """What a user can mend is one sentence and exit code 1, not a traceback."""

    @wraps(command)
    def run(*args, **kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            err.print(f"[bold red]Error:[/] {escape(str(error))}")
            raise typer.Exit(1) from error

    return run
