"""Whole files, their checksums, and the settings that are kept beside what was made with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_SHOWN_DIFFERENCES = 5
_SHOWN_DIGITS = 12


@contextmanager
def whole_file(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[TextIO]:
    """Opens a text file to be written under another name, which becomes `path` when all of it was written.

    Line ends are written as they are given. What an error left unfinished is overwritten by the next try.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with open(unfinished, "w", encoding=encoding, errors=errors, newline="") as file:
        yield file
    os.replace(unfinished, path)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal; read in parts, so that a file may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def settle_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """
    Keeps the settings of a long job in `path`, or makes sure that they are those that are kept there: what was begun
    with one configuration is never gone on with, or taken for the result of, another.

    Args:
        path: a JSON file in the folder of what the job makes; the folder is made if it is not there.
        settings: all that the result depends on, as JSON knows it; mappings may be nested.

    Raises:
        ValueError: other settings are kept there, with each that differs and both of its values, or the file is none
            that this function wrote.
    """
    now = as_json(settings)
    if path.is_file():
        if differences := differing_settings(read_settings(path), now):
            raise ValueError(
                f"{path.parent} was made with other settings: {differences}. Name another folder, go back to the "
                f"settings in {path.name}, or remove {path.parent} to start anew."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(now, indent=2) + "\n")


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they are read back: JSON has no tuples."""
    return dict(json.loads(json.dumps(values)))


def read_settings(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: the file holds no settings.
        OSError: it cannot be read.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): name another folder, or remove {path.parent}.") from error
    if not isinstance(kept, dict):
        raise ValueError(f"{path} holds no settings: name another folder, or remove {path.parent}.")
    return kept


def differing_settings(kept: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, each by its dotted name with both values, as one line; empty if none does."""
    before, after = dict(_flat(kept)), dict(_flat(now))
    absent = object()
    changed = [name for name in {**before, **after} if before.get(name, absent) != after.get(name, absent)]
    shown = [f"{name} {_shown(before, name)}, now {_shown(after, name)}" for name in changed[:_SHOWN_DIFFERENCES]]
    more = len(changed) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; an empty mapping is a leaf."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = str(values[name])
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:_SHOWN_DIGITS] if is_digest else json.dumps(values[name])
