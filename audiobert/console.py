"""What the commands share: where they print, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import wraps

import typer
from rich.console import Console
from rich.markup import escape

from .reports.tables import TableReport

out = Console()
err = Console(stderr=True)


class Format(str, Enum):
    table = "table"
    json = "json"
    markdown = "markdown"


def print_figures(figures: TableReport, output_format: Format) -> None:
    if output_format is Format.table:
        out.print(figures.to_table())
    # Not by rich, which would break the lines at the width of the terminal.
    elif output_format is Format.json:
        print(figures.to_json())
    else:
        # With an empty line, as another table may follow.
        print(figures.to_markdown(titled=True), end="\n\n")


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
