"""Recordings as a page shows them: bytes for its player, the outline of the waveform and a mel spectrogram."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from .compiled import compiled_librosa
from .decoding import load_audio

# AST hears at this rate, so this is the part of a recording that can have reached the model.
SAMPLING_RATE = 16_000
MAX_FILE_BYTES = 1 << 20
MAX_SECONDS = 20.0
COLUMNS = 400
MEL_BINS = 64
FFT_SAMPLES = 1024
DECIBELS = 80.0
TICKS_HERTZ = (500, 1000, 2000, 4000)

# What browsers play, by libsndfile's name of the format.
_MEDIA_TYPES = {"OGG": "audio/ogg", "MP3": "audio/mpeg", "FLAC": "audio/flac"}


@dataclass(frozen=True)
class SoundView:
    """
    A recording, its first `MAX_SECONDS` at most.

    Attributes:
        player: a `data:` URI that a browser plays.
        seconds: how much of the recording is shown.
        waveform: lowest and highest sample, from -1 to 1, of each of `COLUMNS` stretches of equal length (fewer if
            there are fewer samples).
        mel: uint8 `(mel bins, frames)`, lowest frequency first: 255 is the loudest place, 0 is `DECIBELS` below it.
        ticks: frequencies in Hz, each with its place on the mel axis, from 0 (bottom) to 1.
        shortened: whether the player has less than the whole recording, or another encoding of it.
    """

    player: str
    seconds: float
    waveform: tuple[tuple[float, float], ...]
    mel: np.ndarray
    ticks: tuple[tuple[int, float], ...]
    shortened: bool


def sound_view(path: str | Path) -> SoundView:
    """
    What a page shows of an audio file.

    Ogg, MP3, FLAC and 16-bit WAV of up to `MAX_FILE_BYTES` are played as they are; anything else as 16-bit WAV at
    `SAMPLING_RATE`.

    Raises:
        AudioDecodingError: the file is missing, empty or damaged.
    """
    waveform = load_audio(path, SAMPLING_RATE, MAX_SECONDS)
    original = _playable(Path(path))
    mel, ticks = _mel_spectrogram(waveform)
    return SoundView(
        player=original or _data_uri("audio/wav", _wav(waveform)),
        seconds=len(waveform) / SAMPLING_RATE,
        waveform=_outline(waveform),
        mel=mel,
        ticks=ticks,
        shortened=original is None,
    )


def _playable(path: Path) -> str | None:
    info = soundfile.info(path)
    is_plain_wav = info.format in ("WAV", "WAVEX") and info.subtype == "PCM_16"
    media_type = "audio/wav" if is_plain_wav else _MEDIA_TYPES.get(info.format)
    if media_type is None or path.stat().st_size > MAX_FILE_BYTES or info.duration > MAX_SECONDS:
        return None
    return _data_uri(media_type, path.read_bytes())


def _wav(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _outline(waveform: np.ndarray) -> tuple[tuple[float, float], ...]:
    parts = np.array_split(waveform, min(COLUMNS, len(waveform)))
    return tuple((round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts)


def _mel_spectrogram(waveform: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, float], ...]]:
    librosa = compiled_librosa()

    # One window at least; the hop grows with the recording, so that the picture has about as many columns for each.
    waveform = np.pad(waveform, (0, max(0, FFT_SAMPLES - len(waveform))))
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=SAMPLING_RATE,
        n_fft=FFT_SAMPLES,
        hop_length=max(FFT_SAMPLES // 8, len(waveform) // COLUMNS),
        n_mels=MEL_BINS,
    )
    # Silence has no loudest place; relative to itself it would be all of one brightness.
    decibels = librosa.power_to_db(power, ref=max(power.max(), 1e-8), amin=1e-16, top_db=None)
    mel = np.clip(255 * (1 + decibels / DECIBELS), 0, 255).round().astype(np.uint8)
    top = librosa.hz_to_mel(SAMPLING_RATE / 2)
    return mel, tuple((hertz, round(float(librosa.hz_to_mel(hertz) / top), 4)) for hertz in TICKS_HERTZ)
