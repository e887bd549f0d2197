"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_file(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[TextIO]:
    """Opens a text file to be written under another name, which becomes `path` when all of it was written.

    Line ends are written as they are given. What an error left unfinished is overwritten by the next try.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with open(unfinished, "w", encoding=encoding, errors=errors, newline="") as file:
        yield file
    os.replace(unfinished, path)
