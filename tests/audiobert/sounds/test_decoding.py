"""Decoding: formats, rates, channels, lengths, and files that are no audio."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.sounds.decoding import AudioDecodingError, audio_seconds, load_audio

from audio_fixtures import tone


def encoded(waveform: np.ndarray, rate: int, file_format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=file_format, subtype=subtype)
    return buffer.getvalue()


def loudest_frequency(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("wanted", [16000, 48000])
def test_formats_and_rates(tmp_path: Path, file_format: str, rate: int, wanted: int) -> None:
    path = tmp_path / f"tone.{file_format.lower()}"
    soundfile.write(path, tone(440, 1.0, rate), rate, format=file_format)
    waveform = load_audio(path, wanted)
    assert waveform.dtype == np.float32
    assert waveform.shape == (pytest.approx(wanted, abs=2),)
    assert loudest_frequency(waveform, wanted) == pytest.approx(440, abs=2)
    assert np.abs(waveform[wanted // 4 : -wanted // 4]).max() == pytest.approx(0.5, abs=0.06)
    assert audio_seconds(path) == pytest.approx(1.0, abs=0.001)


def test_unchanged_where_there_is_nothing_to_change() -> None:
    waveform = tone(440, 0.5, 16000)
    np.testing.assert_array_equal(load_audio(encoded(waveform, 16000, subtype="FLOAT"), 16000), waveform)


def test_stereo_is_the_mean_of_its_channels() -> None:
    left, right = tone(440, 0.2, 16000), tone(1000, 0.2, 16000)
    stereo = encoded(np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(stereo, 16000), (left + right) / 2, atol=1e-7)


def test_path_bytes_and_open_file_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tone.ogg"
    soundfile.write(path, tone(440, 0.3, 22050), 22050)
    expected = load_audio(path, 16000)
    np.testing.assert_array_equal(load_audio(str(path), 16000), expected)
    np.testing.assert_array_equal(load_audio(path.read_bytes(), 16000), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(load_audio(file, 16000), expected)


def test_silence_and_ten_milliseconds() -> None:
    assert not load_audio(encoded(np.zeros(16000), 16000), 48000).any()
    assert len(load_audio(encoded(tone(440, 0.01, 44100), 44100), 16000)) == 160


def test_ten_minutes_are_read_as_far_as_wanted(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(tone(440, 1.0, 8000), 600), 8000)
    assert audio_seconds(path) == 600
    assert len(load_audio(path, 8000)) == 600 * 8000
    beginning = load_audio(path, 16000, max_seconds=2.5)
    assert len(beginning) == 40000
    assert loudest_frequency(beginning, 16000) == pytest.approx(440, abs=1)


def test_blocks_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = encoded(np.random.default_rng(0).normal(0, 0.1, 30000), 44100, subtype="FLOAT")
    whole = load_audio(noise, 16000)
    monkeypatch.setattr("audiobert.sounds.decoding.BLOCK_FRAMES", 777)
    np.testing.assert_allclose(load_audio(noise, 16000), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is no audio file", "not recognised"),
        (encoded(tone(440, 1.0, 16000), 16000, "FLAC")[:2000], "lost sync"),
        (encoded(np.zeros((0, 1)), 16000), "no samples"),
        (encoded(np.array([0.0, np.nan, 0.5]), 16000, subtype="FLOAT"), "not finite"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(AudioDecodingError, match=f"bad.wav.*{reason}") as raised:
        load_audio(path, 16000)
    assert isinstance(raised.value, OSError)
    assert str(tmp_path) not in raised.value.reason
    with pytest.raises(AudioDecodingError, match=reason):
        load_audio(content, 16000)


def test_a_missing_file(tmp_path: Path) -> None:
    for function in (lambda path: load_audio(path, 16000), audio_seconds):
        with pytest.raises(AudioDecodingError, match=r"nowhere.wav: there is no such file"):
            function(tmp_path / "nowhere.wav")


def test_a_length_needs_a_header() -> None:
    with pytest.raises(AudioDecodingError, match="not recognised"):
        audio_seconds(b"this is no audio file")


@pytest.mark.parametrize("arguments", [{"sampling_rate": 0}, {"sampling_rate": 16000, "max_seconds": 0}])
def test_bad_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        load_audio(encoded(np.zeros(10), 16000), **arguments)
