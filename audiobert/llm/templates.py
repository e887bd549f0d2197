"""Instructions for an LLM: text files with `{{placeholders}}`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def load_template(file: str | Path, placeholders: Iterable[str]) -> str:
    """Reads an instruction and checks that it has all of its placeholders and no others.

    Args:
        file: the text.
        placeholders: the names that have to stand in the file as `{{name}}`, each at least once.

    Returns:
        The text without the line ends at its end, on which editors differ.

    Raises:
        ValueError: a placeholder is missing or unknown, or the file is no UTF-8 text.
        OSError: the file cannot be read.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig").rstrip("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"The template {file} is no UTF-8 text ({error}); save it as UTF-8.") from error
    expected, found = set(placeholders), set(_PLACEHOLDER.findall(text))
    if missing := sorted(expected - found):
        raise ValueError(f"The template {file} lacks {_written(missing)}; write it where the text of a record goes.")
    if unknown := sorted(found - expected):
        raise ValueError(
            f"The template {file} has unknown {_written(unknown)}; known are {_written(sorted(expected))}."
        )
    return text


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts `values` in the place of the placeholders. What a value holds is never taken for a placeholder itself."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _written(names: Iterable[str]) -> str:
    return ", ".join(f"{{{{{name}}}}}" for name in names)
