"""Locks that keep two processes from writing the same files; they end with the process, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def take_lock(file: IO[Any], taken: str | None, *, shared: bool = False) -> None:
    """
    Locks an open file until it is closed; does nothing where the system or the file system knows no such locks.

    Args:
        file: open; what is in it does not matter.
        taken: what is to be said where another process holds the lock; None waits for it.
        shared: several processes may hold it so, and none of them beside one that does not share it.

    Raises:
        OSError: another process holds the lock, and it is not waited for.
    """
    try:
        import fcntl
    except ImportError:  # Windows; nothing but the guard against a second run is lost.
        return
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if taken is None else kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(taken) from error
    except OSError:
        pass  # Some network file systems know no locks.


@contextmanager
def locked(path: Path, taken: str | None, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock of a file that is there for it alone, and stays; see `take_lock`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        take_lock(file, taken, shared=shared)
        yield
