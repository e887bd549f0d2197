"""Decoding of audio files to mono waveforms, by soundfile and soxr."""

from __future__ import annotations

import io
import os
import re
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

AudioFile = str | os.PathLike | bytes | BinaryIO

# What a header may give as the sampling rate, in Hz: beyond these it is damaged, and a second of 1 Hz sound resampled
# for a model would fill the memory.
LOWEST_RATE = 1_000
HIGHEST_RATE = 1_000_000
# libsndfile's count of frames where the header has none.
UNKNOWN_FRAMES = 1 << 62
# Programs that write to a pipe state a length near the largest that fits, as they cannot know it.
STREAMED_BYTES = (1 << 31) - (1 << 16)
# libmpg123 may drop the first or the last MPEG frame of a whole file; one has 1,152 samples, below 32 kHz half of them.
MPEG_SLACK = 2
# The longest page that Ogg has, and the most of an MP3 that precedes the count in its first frame.
OGG_PAGE_BYTES = 65_307
MPEG_HEAD_BYTES = 4096

# What libsndfile notes about a chunk of samples that the file ends before.
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class AudioDecodingError(OSError):
    """An audio file that is missing, empty, truncated or damaged. `reason` says how, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot decode {name}: {reason}")
        self.reason = reason


def load_audio(file: AudioFile, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Decodes a recording (wav, flac, ogg, mp3 and whatever else libsndfile reads) and mixes it down to mono.

    Args:
        file: path, content or open binary file.
        sampling_rate: rate of the result in Hz; other rates are resampled.
        max_seconds: length at which the recording is cut, without reading beyond it; None reads it whole.

    Returns:
        The waveform, float32 of shape (samples,), at least one sample, all of them finite.

    Raises:
        AudioDecodingError: the file is missing, empty or damaged, or ends before its header says so and before
            `max_seconds`. An MP3 whose header has no count of its frames, and so no more than an estimate, is taken
            as it is.
    """
    if sampling_rate <= 0:
        raise ValueError(f"`sampling_rate` has to be positive, got {sampling_rate}.")
    if max_seconds is not None and max_seconds <= 0:
        raise ValueError(f"`max_seconds` has to be positive, got {max_seconds}.")
    name = name_of(file)
    try:
        with soundfile.SoundFile(opened(file, name)) as sound:
            check_header(sound, name)
            rate = sound.samplerate
            wanted = None if max_seconds is None else round(max_seconds * rate)
            # In one read: soundfile seeks after each, and libsndfile's MP3 decoder glitches where it has to seek.
            samples = sound.read(sound.frames if wanted is None else min(sound.frames, wanted), "float32", True)
            truncation = find_truncation(sound, file, len(samples), wanted)
    except soundfile.LibsndfileError as error:
        raise AudioDecodingError(name, error.error_string) from error
    except MemoryError as error:
        raise AudioDecodingError(name, "it is too long for the memory") from error
    if truncation is not None:
        raise AudioDecodingError(name, f"it is truncated: {truncation}")
    with np.errstate(over="ignore", invalid="ignore"):
        waveform = samples.mean(axis=1)
        if rate != sampling_rate and len(waveform):
            waveform = soxr.resample(waveform, rate, sampling_rate)
    if not len(waveform):
        raise AudioDecodingError(name, "it holds no samples, or too few to resample")
    if not np.isfinite(waveform).all():
        raise AudioDecodingError(name, "it holds samples that are not finite numbers")
    return waveform


def audio_seconds(file: AudioFile) -> float:
    """Returns the length of a recording in seconds, read from its header; raises AudioDecodingError as `load_audio`."""
    name = name_of(file)
    try:
        with soundfile.SoundFile(opened(file, name)) as sound:
            check_header(sound, name)
            return float(sound.frames / sound.samplerate)
    except soundfile.LibsndfileError as error:
        raise AudioDecodingError(name, error.error_string) from error


def name_of(file: AudioFile) -> str:
    if isinstance(file, bytes):
        return "audio given as bytes"
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else str(getattr(file, "name", "an open file"))


def opened(file: AudioFile, name: str) -> str | BinaryIO:
    """Returns what soundfile opens, for a readable file with content."""
    if name.lower().endswith(".raw"):
        # soundfile takes the name's word for it and asks for what such a file lacks.
        raise AudioDecodingError(name, "a .raw file has no header with its sampling rate and channels")
    if isinstance(file, bytes):
        if not file:
            raise AudioDecodingError(name, "it is empty")
        return io.BytesIO(file)
    if isinstance(file, (str, os.PathLike)):
        if os.path.isdir(file):
            raise AudioDecodingError(name, "it is a folder")
        if not os.path.isfile(file):
            raise AudioDecodingError(name, "there is no such file")
        if not os.access(file, os.R_OK):
            raise AudioDecodingError(name, "it may not be read")
        if not os.path.getsize(file):
            raise AudioDecodingError(name, "it is empty")
        return os.fspath(file)
    file.seek(0)
    return file


def check_header(sound: soundfile.SoundFile, name: str) -> None:
    if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
        raise AudioDecodingError(name, f"its header gives a sampling rate of {sound.samplerate:,} Hz")
    if sound.frames > UNKNOWN_FRAMES:
        raise AudioDecodingError(name, "its header does not say how long it is; convert it to a file that does")


def find_truncation(sound: soundfile.SoundFile, file: AudioFile, read: int, wanted: int | None) -> str | None:
    """Says what is missing of the `wanted` frames (None: all), of which `read` were there; None if nothing is."""
    stated, slack = sound.frames, 0
    if sound.format == "OGG":
        # Its pages do not say how many more were to come, but the last one says that it is the last.
        if (wanted is None or wanted > stated) and not ends_as_ogg(part_of(file, -OGG_PAGE_BYTES)):
            return "its last page is missing"
    elif sound.format == "MP3":
        if not has_mpeg_count(file):
            return None
        slack = MPEG_SLACK * (1152 if sound.samplerate >= 32_000 else 576)
    elif short := _SHORT_CHUNK.search(sound.extra_info):
        # libsndfile cuts the count of frames down to what is there.
        bytes_stated, bytes_there = int(short[1]), int(short[2])
        if bytes_stated < STREAMED_BYTES and bytes_there:
            stated, slack = round(stated * bytes_stated / bytes_there), 1
    expected = stated if wanted is None else min(stated, wanted)
    return f"{read:,} of {expected:,} frames are there" if read + slack < expected else None


def ends_as_ogg(tail: bytes) -> bool:
    """Whether the last page in `tail` is whole and marked as the end of its stream."""
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS") or len(page) < 27 or not page[5] & 4:
        return False
    segments = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(segments)


def has_mpeg_count(file: AudioFile) -> bool:
    """Whether the first frame of an MP3 holds the header (Xing, Info or VBRI) that counts its frames."""
    head = part_of(file, MPEG_HEAD_BYTES)
    if head.startswith(b"ID3"):
        # Ten bytes, the last four of which give the length of the rest, seven bits each.
        tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        head = part_of(file, tag + MPEG_HEAD_BYTES)[tag:]
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def part_of(file: AudioFile, size: int) -> bytes:
    """Returns the first `size` bytes of a recording, or the last `-size`."""
    if isinstance(file, bytes):
        return file[:size] if size > 0 else file[size:]
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as path:
            return part_of(path, size)
    length = file.seek(0, os.SEEK_END)
    file.seek(0 if size > 0 else max(0, length + size))
    return file.read(abs(size))
