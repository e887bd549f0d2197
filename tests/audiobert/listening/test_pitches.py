"""A pitch is asked about where it is plain to hear, in rows as in what is held out."""

from __future__ import annotations

import pyarrow
import pytest

from audiobert.listening.held_out import HeldOut
from audiobert.listening.pitches import clear_pitch
from audiobert.listening.rows import Sounds
from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase, Recording


@pytest.mark.parametrize(
    ("pitch_hz", "voiced_seconds", "expected"),
    [(440.0, 2.0, 440.0), (440.0, 1.5, 440.0), (440.0, 1.4, None), (440.0, None, 440.0), (None, 2.0, None)],
    ids=["throughout", "mostly", "for a moment", "nobody measured", "none"],
)
def test_a_pitch_is_clear_that_is_heard_most_of_the_time(
    pitch_hz: float | None, voiced_seconds: float | None, expected: float | None
) -> None:
    recording = Recording("a.ogg", "tuba", "tests", "CC0", 2.0, pitch_hz=pitch_hz, voiced_seconds=voiced_seconds)
    assert clear_pitch(recording) == expected


def test_noises_with_a_pitch_for_a_moment_are_neither_asked_about_nor_held_out(sounds: AudioBertKnowledgeBase) -> None:
    noisy = {"tuba", "cello", "organ"}
    labels = sounds.metadata.column("label").to_pylist()
    voiced = pyarrow.array([0.2 if label in noisy else 0.9 for label in labels])
    metadata = sounds.metadata.append_column("voiced_seconds", voiced)
    parts = (sounds.config, sounds.index, sounds.audio_embeddings, metadata, sounds.query_encoder)
    measured = AudioBertKnowledgeBase(*parts)
    assert noisy < Sounds.of(sounds, ()).pitched.keys()
    assert Sounds.of(measured, ()).pitched.keys() == Sounds.of(sounds, ()).pitched.keys() - noisy
    assert {label for seed in range(40) for label in HeldOut.draw(measured, (), seed).labels}.isdisjoint(noisy)
    assert {label for seed in range(40) for label in HeldOut.draw(sounds, (), seed).labels} > noisy
