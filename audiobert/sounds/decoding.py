"""Decoding of audio files to mono waveforms, by soundfile and soxr."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

BLOCK_FRAMES = 1 << 16

AudioFile = str | os.PathLike | bytes | BinaryIO


class AudioDecodingError(OSError):
    """An audio file that is missing, empty or damaged. `reason` says how, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot decode {name}: {reason}")
        self.reason = reason


def load_audio(file: AudioFile, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Decodes a recording (wav, flac, ogg, mp3 and whatever else libsndfile reads) and mixes it down to mono.

    The file is read in blocks, and not beyond `max_seconds`, so a long one takes no more memory than its result.

    Args:
        file: path, content or open binary file.
        sampling_rate: rate of the result in Hz; other rates are resampled.
        max_seconds: length at which the recording is cut; None reads it whole.

    Returns:
        The waveform, float32 of shape (samples,), at least one sample.

    Raises:
        AudioDecodingError: the file is missing, empty or damaged.
    """
    if sampling_rate <= 0:
        raise ValueError(f"`sampling_rate` has to be positive, got {sampling_rate}.")
    if max_seconds is not None and max_seconds <= 0:
        raise ValueError(f"`max_seconds` has to be positive, got {max_seconds}.")
    name = name_of(file)
    try:
        with soundfile.SoundFile(opened(file, name)) as sound:
            frames = sound.frames if max_seconds is None else min(sound.frames, round(max_seconds * sound.samplerate))
            waveform = read_mono(sound, frames, sampling_rate)
    except soundfile.LibsndfileError as error:
        raise AudioDecodingError(name, error.error_string) from error
    except ValueError as error:
        raise AudioDecodingError(name, f"it cannot be resampled to {sampling_rate} Hz ({error})") from error
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
            return sound.frames / sound.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioDecodingError(name, error.error_string) from error


def name_of(file: AudioFile) -> str:
    if isinstance(file, bytes):
        return "audio given as bytes"
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else str(getattr(file, "name", "an open file"))


def opened(file: AudioFile, name: str) -> str | BinaryIO:
    """Returns what soundfile opens, for a readable file with content."""
    if isinstance(file, bytes):
        if not file:
            raise AudioDecodingError(name, "it is empty")
        return io.BytesIO(file)
    if isinstance(file, (str, os.PathLike)):
        if not os.path.isfile(file):
            raise AudioDecodingError(name, "there is no such file")
        if not os.path.getsize(file):
            raise AudioDecodingError(name, "it is empty")
        return os.fspath(file)
    return file


def read_mono(sound: soundfile.SoundFile, frames: int, sampling_rate: int) -> np.ndarray:
    """Reads the next `frames` frames block by block, mixed down and resampled."""
    resampler = None
    if sound.samplerate != sampling_rate:
        resampler = soxr.ResampleStream(sound.samplerate, sampling_rate, 1, dtype="float32")
    blocks = []
    while frames > 0:
        block = sound.read(min(BLOCK_FRAMES, frames), dtype="float32", always_2d=True).mean(axis=1)
        # A damaged file can end before its header says so.
        frames = frames - len(block) if len(block) else 0
        blocks.append(resampler.resample_chunk(block, last=frames == 0) if resampler else block)
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
