"""Every reply of an LLM, kept for good: no request is paid for twice, and a benchmark can be traced to its replies."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..locks import take_lock

# How long at most a reply stands in the system's memory alone. A killed process loses nothing; a power cut, this much.
SYNC_SECONDS = 5.0
# A place is one integer: the number of the file above these bits, the offset within it below.
_OFFSET_BITS = 48


def request_key(model: str, sampling: Mapping[str, Any], messages: list[dict[str, str]]) -> str:
    """The sha256, in hexadecimal, of all that a reply depends on, as JSON with sorted keys and without spaces."""
    request = {"model": model, "sampling": sampling, "messages": messages}
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class ReplyLog:
    """An append-only JSON Lines file of replies, read together with all others in its folder.

    A row holds `key` (see `request_key`), `model`, `sampling`, `prompt` (the one message, of the role user), `reply`
    as the server gave it, `finish_reason`, `usage` (tokens) and `created` (UTC). In memory stands only where each reply
    is, about 200 bytes for each. If a request was answered in several files, the first by name counts.

    A last line that was cut off, by a crash or a full disk, is removed from the log's own file. In the files of others
    it is passed over, as they may just be writing it.

    Args:
        folder: made if it is not there.
        name: the log writes `name.jsonl`. Processes that run side by side need names of their own.

    Raises:
        OSError: the file cannot be read or written, or another process writes it.
        ValueError: a line, other than a last one that was cut off, is no row of a log.
    """

    def __init__(self, folder: str | Path, name: str = "replies") -> None:
        self.path = Path(folder) / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._places: dict[bytes, int] = {}
        self._files: list[BinaryIO] = []
        # Unbuffered: a line is the system's as soon as it is written, so that a killed process loses none.
        self._out = open(self.path, "ab", buffering=0)
        try:
            take_lock(self._out, f"Another run writes {self.path}; wait for its end, or use another folder.")
            for number, path in enumerate(sorted(self.path.parent.glob("*.jsonl"))):
                self._files.append(open(path, "rb"))
                end = self._read(number, path)
                if path == self.path:
                    self._number, self._end = number, end
            self._out.truncate(self._end)
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> str | None:
        """The reply to a request, None if there is none yet."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        file = self._files[place >> _OFFSET_BITS]
        file.seek(place & ((1 << _OFFSET_BITS) - 1))
        return json.loads(file.readline())["reply"]

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes a row, whole or not at all.

        Raises:
            OSError: the disk is full, or the file cannot be written; the rows before are kept.
        """
        line = json.dumps({**row, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, ensure_ascii=False)
        data = f"{line}\n".encode()
        try:
            self._write(data)
        except OSError as error:
            self._out.truncate(self._end)
            raise OSError(
                error.errno,
                f"{error.strerror}; the replies before it are kept: make room, and start the same command again",
                str(self.path),
            ) from error
        self._places.setdefault(bytes.fromhex(row["key"]), self._number << _OFFSET_BITS | self._end)
        self._end += len(data)

    def close(self) -> None:
        if not self._out.closed:
            os.fsync(self._out.fileno())
            self._out.close()
        for file in self._files:
            file.close()

    def __enter__(self) -> ReplyLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, number: int, path: Path) -> int:
        """Notes where the replies of a file are, and returns the end of its last whole line."""
        end = 0
        for line_number, line in enumerate(self._files[number], 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                key, _ = bytes.fromhex(row["key"]), row["reply"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}, line {line_number} is no row of a reply log; remove the line.") from error
            self._places.setdefault(key, number << _OFFSET_BITS | end)
            end += len(line)
        return end

    def _write(self, data: bytes) -> None:
        # A disk that is almost full takes a part of the line, and says no only to the rest.
        while data:
            data = data[self._out.write(data) :]
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._out.fileno())
            self._synced = time.monotonic()
