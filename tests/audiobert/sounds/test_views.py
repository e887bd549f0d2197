"""What a page shows of a recording, against tones whose pictures are known."""

import base64
import io

import numpy as np
import pytest
import soundfile

from audiobert.sounds.compiled import compiled_librosa
from audiobert.sounds.decoding import AudioDecodingError
from audiobert.sounds.views import (
    COLUMNS,
    MAX_FILE_BYTES,
    MAX_SECONDS,
    MEL_BINS,
    SAMPLING_RATE,
    sound_view,
)

from audio_fixtures import tone


def write(path, waveform, rate=SAMPLING_RATE, **kwargs):
    soundfile.write(path, waveform, rate, **kwargs)
    return path


def played(view) -> tuple[str, bytes]:
    media_type, content = view.player.removeprefix("data:").split(";base64,")
    return media_type, base64.b64decode(content)


@pytest.mark.parametrize(
    ("name", "kwargs", "media_type"),
    [("a.wav", {}, "audio/wav"), ("a.ogg", {}, "audio/ogg"), ("a.flac", {}, "audio/flac")],
)
def test_small_files_are_played_as_they_are(tmp_path, name, kwargs, media_type):
    path = write(tmp_path / name, tone(440, 1, SAMPLING_RATE), **kwargs)
    view = sound_view(path)
    assert played(view) == (media_type, path.read_bytes())
    assert not view.shortened
    assert view.seconds == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "rate", "kwargs"),
    [(1.0, 16_000, {"subtype": "FLOAT"}), (MAX_SECONDS + 5, 16_000, {}), (14.0, 48_000, {"subtype": "PCM_16"})],
    ids=["float", "long", "large"],
)
def test_other_files_are_played_as_a_short_wav(tmp_path, seconds, rate, kwargs):
    path = write(tmp_path / "a.wav", tone(440, seconds, rate), rate, **kwargs)
    view = sound_view(path)
    media_type, content = played(view)
    assert (media_type, view.shortened) == ("audio/wav", True)
    assert len(content) <= MAX_FILE_BYTES
    waveform, rate = soundfile.read(io.BytesIO(content))
    assert rate == SAMPLING_RATE
    assert len(waveform) / rate == pytest.approx(min(seconds, MAX_SECONDS), abs=0.01)


def test_the_spectrogram_has_a_tone_where_it_belongs(tmp_path):
    view = sound_view(write(tmp_path / "a.wav", tone(1000, 2, SAMPLING_RATE)))
    frequencies = compiled_librosa().mel_frequencies(MEL_BINS + 2, fmax=SAMPLING_RATE / 2)[1:-1]
    loudest = view.mel[:, view.mel.shape[1] // 2].argmax()
    assert view.mel.max() == 255
    assert loudest == np.abs(frequencies - 1000).argmin()
    assert dict(view.ticks)[1000] == pytest.approx(loudest / MEL_BINS, abs=2 / MEL_BINS)
    assert view.mel[-1].max() < 128


def test_the_outline_follows_the_waveform(tmp_path):
    waveform = np.concatenate([np.zeros(SAMPLING_RATE), tone(440, 1, SAMPLING_RATE, amplitude=0.5)])
    view = sound_view(write(tmp_path / "a.wav", waveform))
    assert len(view.waveform) == COLUMNS
    assert set(view.waveform[: COLUMNS // 2 - 1]) == {(0, 0)}
    assert view.waveform[COLUMNS // 2 + 10] == pytest.approx((-0.5, 0.5), abs=0.02)


def test_silence_is_dark_and_one_sample_is_a_recording(tmp_path):
    assert sound_view(write(tmp_path / "a.wav", np.zeros(8000))).mel.max() == 0
    view = sound_view(write(tmp_path / "b.wav", np.full(1, 0.5)))
    assert view.waveform == ((0.5, 0.5),)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.ogg").write_bytes(b"OggS and then nothing")
    with pytest.raises(AudioDecodingError, match="a.ogg"):
        sound_view(tmp_path / "a.ogg")
