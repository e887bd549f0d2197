"""
Pitch: errors on synthesised sounds and recordings per second, beside a plain loop of librosa.

`AUDIO_DIR=FOLDER python tests/benchmarks/pitch.py`; without AUDIO_DIR only the errors. About eight minutes.

The plain loop is `librosa.load` and `librosa.pyin` (or `librosa.yin`) with the same fmin and fmax and librosa's
defaults. Errors are of frames wholly within the sound that are called voiced; "missed" are such frames called unvoiced,
"false" frames wholly outside the sound that are called voiced (librosa's yin knows no unvoiced frames).
"""

from __future__ import annotations

import io
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from audiobert.benchmark.pitch import PitchSettings, measure_pitches, track_pitch  # noqa: E402
from audiobert.sounds.decoding import load_audio  # noqa: E402

RATE = 44100
FMIN, FMAX = 40.0, 4000.0
KINDS = ("tone", "stack", "weak fundamental", "missing fundamental", "glide", "vibrato")
FREQUENCIES = np.geomspace(FMIN, FMAX, 9)
SNRS = (None, 20, 10)
SILENCE, SOUND = 0.4, 1.0
PLAIN_RATE, PLAIN_FRAME, PLAIN_HOP = 22050, 2048, 512
# Harmonics are left out above this, so that each fits the band that the plain loop keeps.
HIGHEST_HARMONIC = 10000.0
TIMED, ROUNDS, SHARED_OUT = 30, 3, 400


def true_pitch(kind: str, frequency: float) -> np.ndarray:
    seconds = np.arange(round(SOUND * RATE)) / RATE
    if kind == "glide":
        return np.clip(frequency / 2**0.5, FMIN, FMAX / 2) * 2 ** (seconds / SOUND)
    if kind == "vibrato":
        centre = np.clip(frequency, FMIN * 2 ** (1 / 24), FMAX / 2 ** (1 / 24))
        return centre * 2 ** (0.5 / 12 * np.sin(2 * np.pi * 5.5 * seconds))
    return np.full(len(seconds), frequency)


def sound(kind: str, frequencies: np.ndarray) -> np.ndarray:
    amplitudes = {"tone": [1.0], "glide": [1 / k for k in range(1, 7)], "vibrato": [1 / k for k in range(1, 7)]}.get(
        kind, [1 / k for k in range(1, 11)]
    )
    if "fundamental" in kind:
        amplitudes[0] = 0.1 if kind.startswith("weak") else 0.0
    phase = 2 * np.pi * np.cumsum(frequencies) / RATE
    waveform = sum(
        amplitude * np.sin(k * phase + 0.7 * k * k)
        for k, amplitude in enumerate(amplitudes, 1)
        if k * frequencies.max() < HIGHEST_HARMONIC
    )
    fade = np.minimum(1.0, np.arange(len(waveform)) / (0.01 * RATE))
    waveform = waveform * fade * fade[::-1]
    return 0.1 * waveform / np.sqrt(np.mean(waveform**2))


def cases() -> Iterator[tuple[str, int | None, bytes, np.ndarray]]:
    """Kind, signal-to-noise ratio in dB (None: no noise), WAV file, and the pitch of each sample (NaN: no sound)."""
    generator = np.random.default_rng(0)
    quiet = np.full(round(SILENCE * RATE), np.nan)
    for kind, frequency, snr in itertools.product(KINDS, FREQUENCIES, SNRS):
        if kind == "missing fundamental" and frequency > HIGHEST_HARMONIC / 4:
            continue
        truth = np.concatenate([quiet, true_pitch(kind, frequency), quiet])
        waveform = np.where(np.isnan(truth), 0.0, 1.0)
        waveform[~np.isnan(truth)] = sound(kind, true_pitch(kind, frequency))
        if snr is not None:
            waveform = waveform + 0.1 * 10 ** (-snr / 20) * generator.standard_normal(len(waveform))
        file = io.BytesIO()
        soundfile.write(file, waveform.astype(np.float32), RATE, format="WAV", subtype="FLOAT")
        yield kind, snr, file.getvalue(), truth


def compare_frames(
    found: np.ndarray, voiced: np.ndarray, truth: np.ndarray, hop: float, frame: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors in cents, misses and false alarms of the frames that lie wholly within or wholly outside the sound."""
    sounding = np.concatenate([[0], np.cumsum(~np.isnan(truth))])
    centres = np.minimum((np.arange(len(found)) * hop * RATE).round().astype(int), len(truth) - 1)
    starts = np.maximum(centres - round(frame / 2 * RATE), 0)
    ends = np.minimum(centres + round(frame / 2 * RATE), len(truth))
    filled = sounding[ends] - sounding[starts]
    inside, outside = filled == ends - starts, filled == 0
    heard = inside & voiced
    return 1200 * np.abs(np.log2(found[heard] / truth[centres[heard]])), ~voiced[inside], voiced[outside]


def plain_track(file: bytes, method: str) -> tuple[np.ndarray, np.ndarray]:
    waveform, rate = librosa.load(io.BytesIO(file))
    if method == "yin":
        found = librosa.yin(waveform, fmin=FMIN, fmax=FMAX, sr=rate)
        return found, np.ones(len(found), dtype=bool)
    found, voiced, _ = librosa.pyin(waveform, fmin=FMIN, fmax=FMAX, sr=rate)
    return found, voiced


def errors_table(method: str) -> Table:
    table = Table("sounds", "SNR, dB", "who", "median", "95th", "over 50", "missed", "false", title=f"{method}: cents")
    settings = PitchSettings(method)
    rate, frame, hop = settings.sampling_rate, settings.frame_length, settings.hop_length
    results: dict[tuple[str, int | None, str], list[tuple[np.ndarray, ...]]] = {}
    for kind, snr, file, truth in cases():
        ours = compare_frames(*track_pitch(load_audio(file, rate), settings), truth, hop / rate, frame / rate)
        plain = compare_frames(*plain_track(file, method), truth, PLAIN_HOP / PLAIN_RATE, PLAIN_FRAME / PLAIN_RATE)
        for name in (kind, "all"):
            results.setdefault((name, snr, "ours"), []).append(ours)
            results.setdefault((name, snr, "plain"), []).append(plain)
    for name, snr, who in itertools.product(("all", *KINDS), SNRS, ("ours", "plain")):
        errors, missed, false = (np.concatenate(part) for part in zip(*results[name, snr, who], strict=True))
        table.add_row(
            name,
            "clean" if snr is None else str(snr),
            who,
            f"{np.median(errors):.1f}",
            f"{np.percentile(errors, 95):.1f}",
            *(f"{100 * share.mean():.2f} %" for share in (errors > 50, missed, false)),
        )
    return table


def plain_loop(paths: list[Path], method: str) -> list[float | None]:
    pitches = []
    for path in paths:
        waveform, rate = librosa.load(path)
        if method == "pyin":
            found, voiced, _ = librosa.pyin(waveform, fmin=FMIN, fmax=FMAX, sr=rate)
            found = found[voiced]
        else:
            found = librosa.yin(waveform, fmin=FMIN, fmax=FMAX, sr=rate)
        pitches.append(float(np.median(found)) if len(found) else None)
    return pitches


def our_loop(paths: list[Path], method: str, num_proc: int = 1) -> list[dict]:
    return list(measure_pitches((({"id": p.name}, str(p)) for p in paths), PitchSettings(method), num_proc))


def speed_tables(folder: Path) -> Iterator[Table | str]:
    paths = random.Random(0).sample(sorted(folder.rglob("*.ogg")), SHARED_OUT)
    for method in ("pyin", "yin"):
        timed = paths[:TIMED]
        plain_loop(timed[:2], method), our_loop(timed[:2], method)
        ours_seconds, plain_seconds = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            ours = [row["pitch_hz"] for row in our_loop(timed, method)]
            middle = time.perf_counter()
            plain = plain_loop(timed, method)
            ours_seconds.append(middle - start)
            plain_seconds.append(time.perf_counter() - middle)
        ratio = statistics.median(p / o for o, p in zip(ours_seconds, plain_seconds, strict=True))
        table = Table("who", "recordings/s", title=f"{method}: {TIMED} recordings, median of {ROUNDS} rounds")
        table.add_row("ours, 1 process", f"{TIMED / statistics.median(ours_seconds):.2f}")
        table.add_row("plain loop", f"{TIMED / statistics.median(plain_seconds):.2f}")
        table.add_row("ours / plain", f"{ratio:.2f}")
        yield table
        both = [(a, b) for a, b in zip(ours, plain, strict=True) if a and b]
        close = sum(max(pair) < 1.1 * min(pair) for pair in both)
        yield (
            f"a pitch by both: {len(both)}, within 10 %: {close}; by ours alone: "
            f"{sum(bool(a and not b) for a, b in zip(ours, plain, strict=True))}; by the plain loop alone: "
            f"{sum(bool(b and not a) for a, b in zip(ours, plain, strict=True))}"
        )

        table = Table("processes", "recordings/s", "the same rows", title=f"{method}: {SHARED_OUT} recordings")
        rows = {}
        for num_proc in (1, 2):
            start = time.perf_counter()
            rows[num_proc] = our_loop(paths, method, num_proc)
            rate = SHARED_OUT / (time.perf_counter() - start)
            table.add_row(f"{num_proc}", f"{rate:.2f}", "yes" if rows[num_proc] == rows[1] else "NO")
        yield table
        refusals = [row["refusal"] or "a pitch" for row in rows[1]]
        yield ", ".join(f"{reason}: {refusals.count(reason)}" for reason in sorted(set(refusals)))


def main() -> None:
    console = Console(width=120)
    for method in ("yin", "pyin"):
        console.print(errors_table(method))
    if "AUDIO_DIR" in os.environ:
        for result in speed_tables(Path(os.environ["AUDIO_DIR"])):
            console.print(result)
    else:
        console.print("AUDIO_DIR does not name a folder of recordings: no speed measured.")


if __name__ == "__main__":
    main()
