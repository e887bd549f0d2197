"""
librosa, whose functions are compiled by one process at a time.

Parts of librosa are compiled by numba when they are first imported or used, and kept on disk for all processes. Where
two processes compile at once, numba (seen with 0.68) can give one of them a function under a name that only the other's
file has: a null pointer, of which the process dies. That happens where librosa is new, such as on a fresh machine.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from ..locks import locked

RATE = 8000
LOWEST_HZ, HIGHEST_HZ = 200.0, 400.0


def compiling_lock() -> Path:
    """The lock that this user's processes on this machine share."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"audiobert-{user}" / "librosa.lock"


@functools.cache
def compiled_librosa() -> ModuleType:
    """
    `librosa`, with all that is compiled for pyin, yin and what they need. To be used in place of `import librosa`.

    The first call of a process compiles, or loads what another process has compiled.
    """
    with locked(compiling_lock(), None):
        import librosa

        # Some periods of a tone in fp32, as recordings are: each type of numbers is compiled for itself.
        tone = np.sin(2 * np.pi * LOWEST_HZ * np.arange(RATE // 4) / RATE).astype(np.float32)
        librosa.pyin(tone, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=RATE, frame_length=512)
        librosa.yin(tone, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=RATE, frame_length=512)
    return librosa
