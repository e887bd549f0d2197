"""What the commands share: where they print, and how they fail."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from enum import Enum
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec

import typer
from rich.console import Console, ConsoleDimensions
from rich.markup import escape

from .imports import MissingExtraError
from .reports.tables import TableReport

P = ParamSpec("P")


class Terminal(Console):
    """Wraps lines at the width of a terminal; where there is none, in a pipe or a file, at no width."""

    @property
    def size(self) -> ConsoleDimensions:
        return super().size if self.is_terminal else ConsoleDimensions(100_000, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


out = Terminal()
err = Terminal(stderr=True)


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


def check_output_folder(path: Path) -> Path:
    """
    A folder that a command is to write, checked before the work.

    Raises:
        ValueError: if it is the current folder, or a file or below one.
    """
    if path.resolve() == Path.cwd():
        raise ValueError(f"{path} is the current folder: name a folder of its own to write to.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file: name a folder to write to.")
    return path


def check_device(device: str) -> str:
    """
    A device that this torch can use.

    Raises:
        ValueError: if there is no such device.
    """
    if device == "cpu":
        return device
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"--device {device} cannot be used here: {reason}. Try --device cpu.") from error
    return device


# --- errors ----------------------------------------------------------------------------------------------------------


class Debugging:
    """Whether the traceback of every error is wanted: `audiobert --debug COMMAND`."""

    on = False


# What libraries raise at a damaged file of a checkpoint, by name, as none of them is imported for an error;
# tokenizers raises nothing more exact than Exception.
DAMAGED = {
    "SafetensorError",
    "StrictDataclassError",
    "RuntimeError",
    "ValueError",
    "KeyError",
    "TypeError",
    "AttributeError",
}
# ... and what a user can mend wherever it is raised.
MENDABLE = {"OutOfMemoryError", "JSONDecodeError", "UnicodeDecodeError", "ArrowInvalid", "DatasetsError"}


def plain_errors(command: Callable[P, None]) -> Callable[P, None]:
    """
    What a user can mend is one sentence and exit code 1, not a traceback; a fault of this package keeps its traceback.

    The arguments of the command that stand for a device, or were no text, are refused before it begins.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            _check_arguments(kwargs)
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # whoever read our output has seen enough
        except Exception as error:
            sentence = None if Debugging.on else sentence_of(error)
            if sentence is None:
                raise
            err.print(f"[bold red]Error:[/] {escape(sentence)}")
            raise typer.Exit(1) from error

    return run


def sentence_of(error: Exception) -> str | None:
    """What to tell a user who can mend an error; None for what only its traceback explains."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, MissingExtraError):
        return str(error)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{error}. Make room on the disk, then start the same command again." if full else str(error)
    if isinstance(error, ValueError) and _is_ours(frames[-1]):
        return str(error)
    loaded = next(_loaded(frames), None)
    if loaded is not None and (kinds & DAMAGED or type(error) is Exception):
        reason = " ".join(f"{'no ' if isinstance(error, KeyError) else ''}{error}".split()).rstrip(".!")
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights do not fit its config.json"
        return f"{loaded} cannot be loaded: {reason}. Is a file cut short, or a pointer of Git LFS? Download it again."
    return str(error) if kinds & MENDABLE else None


def _is_ours(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return module.startswith((f"{__package__}.", "transformers_modules.")) or module == __package__


def _loaded(frames: list[FrameType]) -> Iterator[str]:
    """The folders or Hub ids that were being loaded when an error came up, the innermost first."""
    for frame in reversed(frames):
        code = frame.f_code
        if code.co_name == "from_pretrained" and len(code.co_varnames) > 1:
            name = frame.f_locals.get(code.co_varnames[1])
            if isinstance(name, (str, os.PathLike)):
                yield os.fspath(name)


def _check_arguments(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        texts = [value] if type(value) is str else value if isinstance(value, list) else []
        for text in texts:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                raise ValueError(f"This argument is no UTF-8: {shown}. Save what you paste, or the terminal, as UTF-8.")
        if name == "device" and isinstance(value, str):
            check_device(value)
