"""The measured pitch: right on synthesised sounds, refused with a reason where there is none, equal in any process."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.benchmark import pitch
from audiobert.benchmark.pitch import NoPitch, PitchSettings, measure_pitch, measure_pitches

from audio_fixtures import tone

RATE = 22050
METHODS = ("pyin", "yin")


def content(waveform: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    return file.getvalue()


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def pink_noise(seconds: float, level: float) -> np.ndarray:
    spectrum = np.fft.rfft(noise(seconds, 1.0))
    spectrum /= np.maximum(np.fft.rfftfreq(round(seconds * RATE), 1 / RATE), 20) ** 0.5
    waveform = np.fft.irfft(spectrum)
    return (level * waveform / waveform.std()).astype(np.float32)


def stack(frequency: float, harmonics: range, seconds: float = 1.0) -> np.ndarray:
    return 0.3 * sum(tone(frequency * k, seconds, RATE) / k for k in harmonics)


def cents(measured: float, true: float) -> float:
    return abs(1200 * np.log2(measured / true))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frequency", [40, 441, 4000])
def test_pure_tones_over_the_whole_range(frequency: float, method: str) -> None:
    pitch = measure_pitch(content(tone(frequency, 1.0, RATE)), PitchSettings(method))
    assert cents(pitch.hz, frequency) < 25
    assert 0.8 <= pitch.voiced_seconds <= 1.1


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_fundamental_is_heard(method: str) -> None:
    assert cents(measure_pitch(content(stack(220, range(2, 9))), PitchSettings(method)).hz, 220) < 10


@pytest.mark.parametrize("method", METHODS)
def test_noise_around_a_sound_neither_moves_nor_lengthens_it(method: str) -> None:
    waveform = noise(3.0, 0.02)
    waveform[RATE : 2 * RATE] += stack(300, range(1, 9))
    pitch = measure_pitch(content(waveform), PitchSettings(method))
    assert cents(pitch.hz, 300) < 10
    assert 0.8 <= pitch.voiced_seconds <= 1.2


def test_a_quiet_hum_beside_a_loud_sound_is_not_heard() -> None:
    waveform = np.concatenate([tone(100, 2.0, RATE, 0.0002), tone(800, 1.0, RATE)])
    assert cents(measure_pitch(content(waveform)).hz, 800) < 10
    assert cents(measure_pitch(content(waveform), PitchSettings(silence_db=90)).hz, 100) < 25


def test_the_average_is_not_drawn_by_a_short_high_note() -> None:
    waveform = np.concatenate([tone(200, 1.0, RATE), tone(3000, 0.3, RATE)])
    assert cents(measure_pitch(content(waveform)).hz, 200) < 10


def test_a_recording_is_cut_at_its_greatest_length() -> None:
    waveform = np.concatenate([tone(200, 0.5, RATE), tone(600, 2.0, RATE)])
    assert cents(measure_pitch(content(waveform), PitchSettings(max_seconds=0.5)).hz, 200) < 10
    assert cents(measure_pitch(content(waveform)).hz, 600) < 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(RATE, dtype=np.float32), "silence"),
        (noise(1.0, 0.0001), "silence"),
        (noise(2.0, 0.1), "no voiced frames"),
        (tone(440, 0.05, RATE), "too short"),
        (tone(440, 0.15, RATE), "too few voiced frames"),
        (np.concatenate([noise(1.0, 0.02), tone(440, 0.15, RATE), noise(1.0, 0.02, 1)]), "too few voiced frames"),
    ],
)
def test_no_pitch_has_a_reason(waveform: np.ndarray, reason: str, method: str) -> None:
    with pytest.raises(NoPitch) as caught:
        measure_pitch(content(waveform), PitchSettings(method, min_voiced_seconds=0.3))
    assert caught.value.reason == reason


def test_noise_with_more_low_than_high_has_no_pitch() -> None:
    with pytest.raises(NoPitch, match="no voiced frames"):
        measure_pitch(content(pink_noise(2.0, 0.1)))


def test_unreadable_audio_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    for file in (b"", b"no sound", str(tmp_path / "broken.flac"), str(tmp_path / "absent.wav")):
        with pytest.raises(NoPitch) as caught:
            measure_pitch(file)
        assert caught.value.reason == "unreadable audio"
        assert caught.value.detail


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"method": "crepe"}, "pyin"),
        ({"fmin": 500, "fmax": 400}, "fmin"),
        ({"sampling_rate": 8000}, "sampling_rate"),
        ({"frame_length": 1000}, "frame_length"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"min_voiced_seconds": -1}, "min_voiced_seconds"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict, culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        PitchSettings(**settings)


def mixed_recordings(folder: Path) -> list[tuple[dict, str | bytes | None]]:
    path = folder / "tone.wav"
    path.write_bytes(content(tone(330, 0.5, RATE)))
    files = [content(stack(100, range(1, 6), 2.0)), str(path), b"damaged", None, content(noise(0.5, 0.1)), str(path)]
    return [({"id": str(i), "title": "a sound"}, file) for i, file in enumerate(files)]


@pytest.mark.processes
def test_rows_come_out_one_for_one_and_the_same_from_two_processes(tmp_path: Path) -> None:
    recordings = mixed_recordings(tmp_path)
    rows = list(measure_pitches(recordings))
    assert [row["id"] for row in rows] == [row["id"] for row, _ in recordings]
    assert all(row["title"] == "a sound" for row in rows)
    assert [row["refusal"] for row in rows] == [None, None, "unreadable audio", "no audio", "no voiced frames", None]
    assert [row["pitch_hz"] is None for row in rows] == [row["refusal"] is not None for row in rows]
    assert list(measure_pitches(recordings, num_proc=2)) == rows


@pytest.mark.processes
def test_recordings_are_read_only_a_few_ahead() -> None:
    read = 0

    def endless() -> Iterator[tuple[dict, None]]:
        nonlocal read
        while True:
            read += 1
            yield {"id": read}, None

    rows = measure_pitches(endless(), num_proc=2)
    assert [next(rows)["id"] for _ in range(3)] == [1, 2, 3]
    rows.close()
    assert read < 20


@pytest.mark.processes
def test_a_killed_process_is_a_clear_error() -> None:
    import multiprocessing

    def recordings() -> Iterator[tuple[dict, None]]:
        for number in range(1000):
            if number == 20:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            yield {"id": number}, None

    with pytest.raises(OSError, match="num_proc"):
        list(measure_pitches(recordings(), num_proc=2))


@pytest.mark.real_data
@pytest.mark.skipif("AUDIO_DIR" not in os.environ, reason="AUDIO_DIR does not name a folder of real recordings")
def test_real_recordings() -> None:
    paths = sorted(Path(os.environ["AUDIO_DIR"]).rglob("*.ogg"))
    sample = random.Random(0).sample(paths, min(10, len(paths)))
    rows = list(measure_pitches(({"id": path.stem}, str(path)) for path in sample))
    assert len(rows) == len(sample)
    assert all(row["refusal"] or 37 < row["pitch_hz"] < 4300 for row in rows)
    assert any(row["refusal"] is None for row in rows)


@pytest.mark.processes
def test_a_process_that_measures_loads_no_model_and_no_data_sets() -> None:
    """Each of many takes what it loads in memory, and seconds to start. What the package itself loads is not ours."""
    package = Path(pitch.__file__).parents[1]
    code = (
        "import sys, types; package = types.ModuleType('audiobert'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['audiobert'] = package; import audiobert.benchmark.pitch, audiobert.sounds.recordings; "
        "print(*{'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr
