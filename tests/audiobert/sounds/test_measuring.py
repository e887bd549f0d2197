"""What is measured of a recording: the note that its source names, or its pitch; how long; how bright."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from audiobert.sounds.measuring import check_notes, measure, measure_brightness, note_hz
from audiobert.sounds.pitch import PitchSettings
from audiobert.sounds.recordings import SourceRecording, read_recordings

from audio_fixtures import tone

RATE = 32000


def recording(waveform: np.ndarray, note: str = "", rate: int = RATE) -> SourceRecording:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    opened: Callable[[], bytes] = file.getvalue
    return SourceRecording("it.wav", "it", "", "", None, opened, note)


@pytest.mark.parametrize(
    ("note", "hz"),
    [
        ("A4", 440.0),
        ("a4", 440.0),
        ("C4", 261.6256),
        ("C#4", 277.1826),
        ("Db4", 277.1826),
        ("D♭4", 277.1826),
        ("B#3", 261.6256),
        ("Cb4", 246.9417),
        ("Bb-1", 14.5676),
        ("C##5", 587.3295),
        ("Ebb5", 587.3295),
        (" G9 ", 12543.85),
    ],
)
def test_notes_in_scientific_pitch_notation(note: str, hz: float) -> None:
    assert note_hz(note) == pytest.approx(hz, rel=1e-5)


@pytest.mark.parametrize("note", ["H4", "A", "4", "A#b4", "A4.5", "A440", "do", "A4 B4", ""])
def test_a_bad_note_is_told(note: str) -> None:
    with pytest.raises(ValueError, match="no note in scientific pitch notation"):
        note_hz(note)


def test_the_recording_whose_note_is_bad_is_named() -> None:
    good, bad = recording(tone(440, 0.5, RATE), "A4"), recording(tone(440, 0.5, RATE), "H4")
    check_notes([good])
    with pytest.raises(ValueError, match=r"pitch_note of the recording 'it.wav': 'H4' is no note .*correct or empty"):
        check_notes([good, bad])


def test_the_note_that_its_source_names_is_its_pitch_else_what_is_measured() -> None:
    waveform = tone(300, 0.5, RATE)
    found = measure(recording(waveform))
    assert found.pitch_hz == pytest.approx(300, rel=0.005)
    assert found.voiced_seconds == pytest.approx(0.5, abs=0.1)
    stated = measure(recording(waveform, "A4"))
    assert stated.pitch_hz == 440
    assert (stated.voiced_seconds, stated.brightness_hz) == (found.voiced_seconds, found.brightness_hz)


def test_noise_has_no_pitch_and_silence_no_brightness_either() -> None:
    noise = measure(recording(np.random.default_rng(0).normal(0, 0.1, RATE)))
    assert noise.pitch_hz is None
    # White noise is as bright in every octave's worth of Hz: its centroid is half of the highest frequency.
    assert noise.brightness_hz == pytest.approx(RATE / 4, rel=0.05)
    silence = measure(recording(np.zeros(RATE)))
    assert (silence.pitch_hz, silence.voiced_seconds, silence.brightness_hz) == (None, 0.0, None)


def test_brightness_is_that_of_what_sounds() -> None:
    settings = PitchSettings()
    low, high = (measure_brightness(tone(hz, 0.5, RATE), settings) for hz in (500, 4000))
    assert low == pytest.approx(500, rel=0.1)
    assert high == pytest.approx(4000, rel=0.1)
    # Silence around it, however long, changes little; and a click of a few samples has one too.
    padded = np.pad(tone(500, 0.5, RATE), RATE)
    assert measure_brightness(padded, settings) == pytest.approx(low, rel=0.2)
    assert measure_brightness(tone(500, 0.005, RATE), settings) is not None


@pytest.mark.real_data
@pytest.mark.skipif("SOUNDS_DIR" not in os.environ, reason="SOUNDS_DIR does not name a folder of recordings with notes")
def test_what_is_measured_of_real_instruments_is_the_note_that_they_play() -> None:
    recordings = [recording for recording in read_recordings(os.environ["SOUNDS_DIR"]) if recording.pitch_note]
    check_notes(recordings)
    assert len(recordings) > 1000
    right = 0
    sample = recordings[::40]
    for noted in sample:
        heard = measure(dataclasses.replace(noted, pitch_note="")).pitch_hz
        # Octaves apart counts: an organ's stop, or a double bass an octave below what is written.
        cents = None if heard is None else (1200 * np.log2(heard / note_hz(noted.pitch_note)) + 600) % 1200 - 600
        right += cents is not None and abs(cents) < 50
    assert right / len(sample) > 0.9
