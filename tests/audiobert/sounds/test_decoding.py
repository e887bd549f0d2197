"""Decoding: formats, rates, channels, lengths, and files that are no audio."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.sounds import decoding
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


FORMATS = [
    ("WAV", "PCM_16", 16000),
    ("WAV", "FLOAT", 44100),
    ("WAV", "GSM610", 8000),
    ("WAVEX", "PCM_24", 16000),
    ("AIFF", "PCM_16", 16000),
    ("AU", "PCM_16", 16000),
    ("FLAC", "PCM_16", 44100),
    ("OGG", "VORBIS", 16000),
    ("OGG", "OPUS", 48000),
    ("MP3", "MPEG_LAYER_III", 16000),
    ("MP3", "MPEG_LAYER_III", 22050),
    ("MP3", "MPEG_LAYER_III", 44100),
]
LONG_SECONDS = 9


@pytest.fixture(scope="module", params=FORMATS, ids=lambda of: "-".join(map(str, of)))
def long_file(request: pytest.FixtureRequest) -> tuple[bytes, int]:
    """A recording in one of the formats, of several times 65,536 frames, and its rate."""
    file_format, subtype, rate = request.param
    if not soundfile.check_format(file_format, subtype):
        pytest.skip(f"this libsndfile writes no {file_format} {subtype}")
    return encoded(tone(440, LONG_SECONDS, rate), rate, file_format, subtype), rate


def test_every_format_gives_what_one_read_gives(long_file: tuple[bytes, int], tmp_path: Path) -> None:
    content, rate = long_file
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        whole = sound.read(sound.frames, dtype="float32")
    path = tmp_path / "long.audio"
    path.write_bytes(content)
    for file in (content, path, io.BytesIO(content)):
        np.testing.assert_allclose(load_audio(file, rate), whole, atol=1e-6)
        np.testing.assert_allclose(load_audio(file, rate, max_seconds=6.5), whole[: round(6.5 * rate)], atol=1e-6)
    assert len(load_audio(content, 8000)) == pytest.approx(len(whole) * 8000 / rate, abs=1)


def test_what_is_cut_off_is_not_taken_as_whole(long_file: tuple[bytes, int], tmp_path: Path) -> None:
    content, rate = long_file
    for kept in (len(content) // 2, len(content) // 50):
        path = tmp_path / "cut.audio"
        path.write_bytes(content[:kept])
        for file in (path, content[:kept], io.BytesIO(content[:kept])):
            with pytest.raises(AudioDecodingError):
                load_audio(file, rate)
            with pytest.raises(AudioDecodingError):
                load_audio(file, 8000, max_seconds=60)


@pytest.mark.parametrize(
    ("file_format", "reason"),
    [
        ("WAV", r"truncated: 15,989 of 32,000 frames"),
        ("AIFF", r"truncated: 15,986 of 3\d,\d{3} frames"),
        ("OGG", "truncated: its last page is missing"),
        ("MP3", r"truncated: 1\d,\d{3} of 32,000 frames"),
    ],
)
def test_what_is_cut_off_says_so(file_format: str, reason: str) -> None:
    content = encoded(tone(440, 2, 16000), 16000, file_format)
    # Half of an Ogg file of this length is no whole page.
    kept = len(content) - 100 if file_format == "OGG" else len(content) // 2
    with pytest.raises(AudioDecodingError, match=reason):
        load_audio(content[:kept], 16000)


def test_the_beginning_of_what_is_cut_off_is_whole() -> None:
    content = encoded(tone(440, 4, 16000), 16000)
    assert len(load_audio(content[: len(content) // 2], 16000, max_seconds=1.5)) == 24000


def test_a_wav_whose_writer_could_not_know_its_length_is_whole() -> None:
    content = bytearray(encoded(tone(440, 1, 16000), 16000))
    size = content.index(b"data") + 4
    for stated in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFD7):
        content[size : size + 4] = stated.to_bytes(4, "little")
        assert len(load_audio(bytes(content), 16000)) == 16000


def test_an_mp3_without_a_count_is_taken_as_it_is() -> None:
    buffer = io.BytesIO()
    # Of constant bitrate: no Xing header in front of the first frame.
    soundfile.write(buffer, tone(440, 2, 16000), 16000, format="MP3", bitrate_mode="CONSTANT", compression_level=0.9)
    content = buffer.getvalue()
    assert b"Xing" not in content and b"Info" not in content
    assert len(load_audio(content, 16000)) == pytest.approx(32000, abs=2304)
    # A tag of 2,000 bytes in front makes the estimate longer than what is there.
    tagged = b"ID3\x04\x00\x00\x00\x00\x0f\x50" + bytes(2000) + content
    assert len(load_audio(tagged, 16000)) == pytest.approx(32000, abs=2304)


def test_a_tag_before_an_mp3_hides_no_count() -> None:
    content = encoded(tone(440, 2, 16000), 16000, "MP3")
    tag = b"ID3\x04\x00\x00\x00\x00\x40\x00" + bytes(64 << 7)
    assert len(load_audio(tag + content, 16000)) == 32000
    with pytest.raises(AudioDecodingError, match="truncated"):
        load_audio(tag + content[: len(content) // 2], 16000)


def with_header(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """A file with `value` at `offset` bytes behind `mark`."""
    at = content.index(mark) + offset
    return content[:at] + value + content[at + len(value) :]


WAV = encoded(np.zeros(16000), 16000)
FLAC = encoded(np.zeros(16000), 16000, "FLAC")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_header(WAV, b"fmt ", 12, (0).to_bytes(4, "little")), "cannot decode"),
        (with_header(WAV, b"fmt ", 12, (1).to_bytes(4, "little")), "sampling rate of 1 Hz"),
        (with_header(WAV, b"fmt ", 12, (2**31 - 1).to_bytes(4, "little")), "sampling rate of 2,147,483,647 Hz"),
        (with_header(WAV, b"fmt ", 12, (2**32 - 1).to_bytes(4, "little")), "cannot decode"),
        (with_header(WAV, b"fmt ", 10, bytes(2)), "[Cc]hannel"),
        (with_header(WAV, b"fmt ", 10, b"\xff\xff"), "channels"),
        # The count of samples is 36 bits long.
        (with_header(FLAC, b"fLaC", 22, bytes(4)), "does not say how long"),
        (with_header(FLAC, b"fLaC", 22, (1 << 20).to_bytes(4, "big")), "cannot decode"),
        (with_header(FLAC, b"fLaC", 22, b"\xff\xff\xff\xff"), "cannot decode"),
    ],
    ids=["0-hz", "1-hz", "2-ghz", "4-ghz", "no-channels", "65535-channels", "no-length", "longer", "4g-frames"],
)
def test_headers_that_cannot_be_true(content: bytes, reason: str) -> None:
    with pytest.raises(AudioDecodingError, match=reason):
        load_audio(content, 48000)


def test_more_than_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(AudioDecodingError, match="too long for the memory"):
        load_audio(WAV, 16000)


@pytest.mark.parametrize("name", ["sound.raw", "SOUND.RAW"])
def test_a_raw_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WAV)
    with open(path, "rb") as file:
        for given in (path, str(path), file):
            for function in (lambda given: load_audio(given, 16000), audio_seconds):
                with pytest.raises(AudioDecodingError, match="no header"):
                    function(given)


def test_what_is_no_file_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioDecodingError, match="it is a folder"):
        load_audio(tmp_path / "folder.wav", 16000)
    with pytest.raises(AudioDecodingError, match="no such file"):
        load_audio("nul\0.wav", 16000)
    (tmp_path / "secret.wav").write_bytes(WAV)
    # Root may read everything.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(AudioDecodingError, match="may not be read"):
        load_audio(tmp_path / "secret.wav", 16000)


DECODING_ALONE = """
import importlib, sys, types
package = types.ModuleType("audiobert")
package.__path__ = [sys.argv[1]]
sys.modules["audiobert"] = package
for name in ("decoding", "views", "recordings"):
    importlib.import_module(f"audiobert.sounds.{name}")
print(sorted({"torch", "transformers", "datasets", "librosa"} & set(sys.modules)))
"""


@pytest.mark.processes
def test_decoding_loads_no_model_library() -> None:
    # Under an empty package, as what `import audiobert` itself loads is its own matter.
    folder = Path(decoding.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", DECODING_ALONE, str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is no audio file", "not recognised"),
        (encoded(tone(440, 1.0, 16000), 16000, "FLAC")[:2000], "lost sync"),
        (encoded(np.zeros((0, 1)), 16000), "no samples"),
        (encoded(np.array([0.0, np.nan, 0.5]), 16000, subtype="FLOAT"), "not finite"),
    ],
    # Named, as the last one's bytes hold the time at which it was written.
    ids=["empty", "text", "cut off", "no samples", "not finite"],
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
