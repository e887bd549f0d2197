"""The average pitch of recordings, by librosa's pyin or yin (section II-A of the paper: pitch comparison).

How it is measured:

- A recording is decoded once, to mono at `sampling_rate`, and not beyond `max_seconds`. Silence at its ends is cut off.
- A gentle low-pass filter (6 dB an octave above 1.5 kHz) precedes the search: broadband noise then hides low tones
  less, and strong overtones no longer fall between two lags. The pitch itself is not moved by it.
- "pyin": most of `librosa.pyin`'s time goes into its Viterbi search, which grows with the square of the number of
  pitches. It is therefore asked in steps of half a semitone, which settles the octave and what is voiced;
  `librosa.yin`, which knows no steps, then gives the fraction of the step wherever the two agree.
- "yin": `librosa.yin` alone. It names a pitch for every frame, of noise too, so a frame counts as voiced only if it
  resembles itself one period (for short periods: a few) later, by a correlation of at least one half.
- A voiced frame is one that the method takes for voiced and that is at most `silence_db` quieter than the loudest.
- The average pitch is the median over the voiced frames. The mean would follow the few frames that are an octave off,
  and the median is the same on the scale of frequencies and on the one of notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .compiled import compiled_librosa
from .decoding import AudioDecodingError, load_audio

METHODS = ("pyin", "yin")

# Searched beyond either end of the range, as a tone at the very end is otherwise taken for its octave: a semitone.
MARGIN = 2 ** (1 / 12)
LOW_PASS_HZ = 1500.0
STEP_SEMITONES = 0.5
# pyin gives 0.01 to frames without a single clear period, and often calls them voiced all the same.
LEAST_PROBABILITY = 0.011
# The depth at which yin takes the first period rather than the clearest, which in noise is often a multiple of it.
YIN_TROUGH = 0.2
LEAST_CORRELATION = 0.5
# Shorter periods are compared at a multiple of about this lag, where rounding to whole samples weighs less.
LEAST_LAG_SECONDS = 0.00075
# Recordings whose loudest frame is below this level (full scale is 0 dB) are silent.
SILENCE_DBFS = -60.0


class NoPitch(ValueError):
    """A recording without a pitch; `reason` is one of those that `measure_pitch` lists, `detail` says more, and
    `voiced_seconds` for how long it is voiced all the same."""

    def __init__(self, reason: str, detail: str = "", voiced_seconds: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.voiced_seconds = voiced_seconds


@dataclass(frozen=True)
class PitchSettings:
    """How pitch is measured.

    Attributes:
        method: "pyin", or "yin", which is faster and makes more mistakes in noise.
        fmin, fmax: range of the pitch in Hz; a semitone beyond either end is still found.
        sampling_rate: rate in Hz at which recordings are analysed. At four times `fmax` or more, as the period of a
            high tone is otherwise too few samples.
        frame_length: samples that one pitch is taken from; at least two of the longest periods.
        hop_length: samples from one frame to the next.
        silence_db: frames that are this much quieter than the loudest are not heard.
        min_voiced_seconds: recordings with less voiced sound have no pitch.
        max_seconds: recordings are cut at this length.

    Raises ValueError for settings that contradict each other.
    """

    method: str = "pyin"
    fmin: float = 40.0
    fmax: float = 4000.0
    sampling_rate: int = 32000
    frame_length: int = 3000
    hop_length: int = 750
    silence_db: float = 60.0
    min_voiced_seconds: float = 0.1
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"The pitch method is one of {', '.join(METHODS)}, got {self.method!r}.")
        for name in ("fmin", "hop_length", "silence_db", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` has to be positive, got {getattr(self, name)}.")
        if self.min_voiced_seconds < 0:
            raise ValueError(f"`min_voiced_seconds` cannot be negative, got {self.min_voiced_seconds}.")
        if not self.fmin < self.fmax:
            raise ValueError(f"`fmin` has to be below `fmax`, got {self.fmin} and {self.fmax}.")
        if not self.sampling_rate >= 4 * self.fmax:
            raise ValueError(
                f"`sampling_rate` has to be four times `fmax` ({4 * self.fmax:g} Hz) or more, got {self.sampling_rate}."
            )
        shortest = int(2 * MARGIN * self.sampling_rate / self.fmin) + 2
        if self.frame_length < shortest:
            raise ValueError(
                f"`frame_length` has to hold two periods of `fmin`, {shortest} samples, got {self.frame_length}."
            )


@dataclass(frozen=True)
class Pitch:
    """The average pitch (median over the voiced frames) in Hz, and for how many seconds the recording is voiced."""

    hz: float
    voiced_seconds: float


def measure_pitch(file: str | bytes, settings: PitchSettings | None = None) -> Pitch:
    """Measures the average pitch of a recording, given as path or content.

    Raises:
        NoPitch: with the reason "unreadable audio" (missing, empty or damaged), "too short" (less than one frame),
            "silence", "no voiced frames" (noise) or "too few voiced frames" (less than `min_voiced_seconds`).
    """
    settings = settings or PitchSettings()
    try:
        waveform = load_audio(file, settings.sampling_rate, settings.max_seconds)
    except AudioDecodingError as error:
        raise NoPitch("unreadable audio", error.reason) from error
    return average_pitch(waveform, settings)


def average_pitch(waveform: np.ndarray, settings: PitchSettings) -> Pitch:
    """As `measure_pitch`, of a recording that is decoded: mono, float32 of shape (samples,), at the settings' rate."""
    frequencies, voiced = track_pitch(waveform, settings)
    voiced_seconds = float(voiced.sum() * settings.hop_length / settings.sampling_rate)
    if not voiced.any():
        raise NoPitch("no voiced frames")
    if voiced_seconds < settings.min_voiced_seconds:
        raise NoPitch("too few voiced frames", f"{voiced_seconds:.2f} s are voiced", voiced_seconds)
    return Pitch(float(np.median(frequencies[voiced])), voiced_seconds)


def track_pitch(waveform: np.ndarray, settings: PitchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pitch of each frame in Hz, float of shape (frames,), and which frames are voiced, bool of that shape.

    Args:
        waveform: mono, float32 of shape (samples,), at `settings.sampling_rate`.

    Frame t is centred on sample t * hop_length of the waveform. Unvoiced frames have a pitch too, without meaning.
    Raises NoPitch for a waveform that is "too short" or "silence".
    """
    librosa = compiled_librosa()

    framing: dict[str, Any] = {"frame_length": settings.frame_length, "hop_length": settings.hop_length}
    if len(waveform) < settings.frame_length:
        raise NoPitch("too short", f"{len(waveform) / settings.sampling_rate:.3f} s")
    level = librosa.feature.rms(y=waveform, **framing)[0]
    if level.max() < 10 ** (SILENCE_DBFS / 20):
        raise NoPitch("silence")
    audible = level >= level.max() * 10 ** (-settings.silence_db / 20)

    # Whole hops, so that frames stay where they were; a frame more on either side keeps the outermost ones complete.
    around = -(-settings.frame_length // settings.hop_length)
    first, last = (int(edge) for edge in np.flatnonzero(audible)[[0, -1]])
    first, last = max(first - around, 0), min(last + around, len(level) - 1)
    heard = waveform[first * settings.hop_length : last * settings.hop_length + settings.hop_length]
    heard = librosa.effects.deemphasis(heard, coef=np.exp(-2 * np.pi * LOW_PASS_HZ / settings.sampling_rate))

    frequencies = np.full(len(level), settings.fmin)
    voiced = np.zeros(len(level), dtype=bool)
    track = track_by_pyin if settings.method == "pyin" else track_by_yin
    found, found_voiced = track(heard, settings)
    count = min(len(found), len(level) - first)
    frequencies[first : first + count] = found[:count]
    voiced[first : first + count] = found_voiced[:count]
    return frequencies, voiced & audible


def track_by_pyin(waveform: np.ndarray, settings: PitchSettings) -> tuple[np.ndarray, np.ndarray]:
    librosa = compiled_librosa()

    search: dict[str, Any] = {
        "fmin": settings.fmin / MARGIN,
        "fmax": settings.fmax * MARGIN,
        "sr": settings.sampling_rate,
        "frame_length": settings.frame_length,
        "hop_length": settings.hop_length,
    }
    steps, voiced, probability = librosa.pyin(waveform, resolution=STEP_SEMITONES, fill_na=None, **search)
    exact = librosa.yin(waveform, **search)
    # In noise yin often finds a multiple of the period, which tells the period as well.
    multiple = np.clip(np.round(steps / exact), 1, 8)
    agree = np.abs(12 * np.log2(multiple * exact / steps)) < STEP_SEMITONES
    return np.where(agree, multiple * exact, steps), voiced & (probability > LEAST_PROBABILITY)


def track_by_yin(waveform: np.ndarray, settings: PitchSettings) -> tuple[np.ndarray, np.ndarray]:
    librosa = compiled_librosa()

    framing: dict[str, Any] = {"frame_length": settings.frame_length, "hop_length": settings.hop_length}
    frequencies = librosa.yin(
        waveform,
        fmin=settings.fmin / MARGIN,
        fmax=settings.fmax * MARGIN,
        sr=settings.sampling_rate,
        trough_threshold=YIN_TROUGH,
        **framing,
    )
    padded = np.pad(waveform, settings.frame_length // 2)
    frames = librosa.util.frame(padded, **framing).T
    periods = settings.sampling_rate / frequencies
    multiples = np.maximum(np.round(LEAST_LAG_SECONDS * settings.sampling_rate / periods), 1)
    lags = np.round(multiples * periods).astype(int)
    correlations = [correlation(frame[:-lag], frame[lag:]) for frame, lag in zip(frames, lags, strict=True)]
    return frequencies, np.array(correlations) >= LEAST_CORRELATION


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the normalised correlation of two waveforms about their means, 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    energy = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return float(np.dot(a, b)) / energy if energy > 0 else 0.0
