"""The pitch of many recordings, in several processes; how each is measured stands in `audiobert.sounds.pitch`."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from ..sounds.pitch import NoPitch, Pitch, PitchSettings, measure_pitch, track_pitch

WAITING_PER_PROCESS = 4


def measure_pitches(
    recordings: Iterable[tuple[dict[str, Any], str | bytes | None]],
    settings: PitchSettings | None = None,
    num_proc: int = 1,
) -> Iterator[dict[str, Any]]:
    """Measures the pitch of recordings, one row out for each row in, in their order.

    Args:
        recordings: each a row and its audio: path, content, or None where it is gone. Read as they are needed, a few
            for each process ahead.
        settings: how pitch is measured.
        num_proc: processes to measure in; the results do not depend on it. Each is started afresh ("spawn"), which
            takes some seconds, so more than one pays from some hundred recordings on; a script of one's own that asks
            for more than one needs the usual `if __name__ == "__main__":`.

    Yields:
        The row with `pitch_hz` and `voiced_seconds` (rounded to 0.001; None without a pitch), `refusal` (None, "no
        audio", or a reason of `measure_pitch`) and `detail`.

    Raises:
        OSError: a process was ended from outside.
    """
    if num_proc < 1:
        raise ValueError(f"`num_proc` has to be at least 1, got {num_proc}.")
    settings = settings or PitchSettings()
    if num_proc == 1:
        return (measured_row(row, file, settings) for row, file in recordings)
    return measured_in_processes(recordings, settings, num_proc)


def measured_in_processes(
    recordings: Iterable[tuple[dict[str, Any], str | bytes | None]], settings: PitchSettings, num_proc: int
) -> Iterator[dict[str, Any]]:
    remaining = iter(recordings)
    pool = ProcessPoolExecutor(num_proc, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[Future[dict[str, Any]]] = deque()
    try:
        while True:
            for row, file in islice(remaining, WAITING_PER_PROCESS * num_proc - len(waiting)):
                waiting.append(pool.submit(measured_row, row, file, settings))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "A process that measures pitch was ended, as the system does when memory runs out. Run again with a "
            "smaller `num_proc` or `max_seconds`; what was measured before is kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def measured_row(row: dict[str, Any], file: str | bytes | None, settings: PitchSettings) -> dict[str, Any]:
    row = {**row, "pitch_hz": None, "voiced_seconds": None, "refusal": None, "detail": ""}
    try:
        if file is None:
            raise NoPitch("no audio")
        pitch = measure_pitch(file, settings)
    except NoPitch as error:
        return {**row, "refusal": error.reason, "detail": error.detail}
    return {**row, "pitch_hz": round(pitch.hz, 3), "voiced_seconds": round(pitch.voiced_seconds, 3)}


__all__ = ["NoPitch", "Pitch", "PitchSettings", "measure_pitch", "measure_pitches", "track_pitch"]
