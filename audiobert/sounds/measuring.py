"""What a knowledge base may say of a sound besides its name: pitch, for how long it has one, and brightness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .compiled import compiled_librosa
from .decoding import load_audio
from .pitch import SILENCE_DBFS, NoPitch, PitchSettings, average_pitch
from .recordings import SourceRecording

# Semitones above C.
NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "##": 2, "b": -1, "♭": -1, "bb": -2}
CONCERT_A_HZ = 440.0
FFT_SAMPLES = 2048


@dataclass(frozen=True)
class Measured:
    """What was measured of a recording: its pitch in Hz, its voiced seconds and its brightness in Hz; None for what it
    has not."""

    pitch_hz: float | None
    voiced_seconds: float | None
    brightness_hz: float | None


def note_hz(note: str) -> float:
    """The frequency of a note in scientific pitch notation, such as "C#4" or "Bb-1": equal temperament, A4 = 440 Hz.

    Raises:
        ValueError: it is no such note.
    """
    parts = re.fullmatch(r"([A-Ga-g])(##|#|♯|bb|b|♭|)(-?\d{1,2})", note.strip())
    if parts is None:
        raise ValueError(f"{note!r} is no note in scientific pitch notation, such as A4, C#3 or Bb5")
    semitones = NOTES[parts[1].upper()] + ACCIDENTALS[parts[2]] - NOTES["A"] + 12 * (int(parts[3]) - 4)
    return CONCERT_A_HZ * 2.0 ** (semitones / 12)


def check_notes(recordings: Sequence[SourceRecording]) -> None:
    """Raises ValueError for the first recording whose source names a note that is none."""
    for recording in recordings:
        if recording.pitch_note:
            try:
                note_hz(recording.pitch_note)
            except ValueError as error:
                raise ValueError(
                    f"pitch_note of the recording {recording.id!r}: {error}; correct or empty it."
                ) from None


def measure(recording: SourceRecording, settings: PitchSettings | None = None) -> Measured:
    """Measures a recording; the pitch is that of the note which its source names, where it names one.

    Raises:
        AudioDecodingError: it cannot be decoded.
        ValueError: the note is none.
    """
    settings = settings or PitchSettings()
    waveform = load_audio(recording.open(), settings.sampling_rate, settings.max_seconds)
    pitch: float | None
    try:
        found = average_pitch(waveform, settings)
        pitch, voiced_seconds = found.hz, found.voiced_seconds
    except NoPitch as error:
        pitch, voiced_seconds = None, error.voiced_seconds
    if recording.pitch_note:
        pitch = note_hz(recording.pitch_note)
    brightness = measure_brightness(waveform, settings)
    return Measured(
        pitch_hz=None if pitch is None else round(pitch, 3),
        voiced_seconds=round(voiced_seconds, 3),
        brightness_hz=None if brightness is None else round(brightness, 3),
    )


def measure_brightness(waveform: np.ndarray, settings: PitchSettings) -> float | None:
    """The mean spectral centroid in Hz over the frames that sound, those at most `settings.silence_db` quieter than the
    loudest; None for silence.

    Args:
        waveform: mono, float32 of shape (samples,), at `settings.sampling_rate`.
    """
    librosa = compiled_librosa()

    waveform = np.pad(waveform, (0, max(0, FFT_SAMPLES - len(waveform))))
    spectrum = np.abs(librosa.stft(waveform, n_fft=FFT_SAMPLES))
    level = librosa.feature.rms(S=spectrum, frame_length=FFT_SAMPLES)[0]
    if level.max() < 10 ** (SILENCE_DBFS / 20):
        return None
    centroids = librosa.feature.spectral_centroid(S=spectrum, sr=settings.sampling_rate, n_fft=FFT_SAMPLES)[0]
    return float(centroids[level >= level.max() * 10 ** (-settings.silence_db / 20)].mean())
