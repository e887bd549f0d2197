"""Files that are there as a whole or not at all, and what they hold."""

from __future__ import annotations

import hashlib
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


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal; read in parts, so that a file may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
