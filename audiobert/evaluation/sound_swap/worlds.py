"""The knowledge bases that the questions are asked of: one for each world, made out of the model's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...modeling.labels_audiobert import spoken
from .questions import Question

if TYPE_CHECKING:
    from ...modeling import AudioBertKnowledgeBase


def found_by_name(knowledge_base: AudioBertKnowledgeBase) -> AudioBertKnowledgeBase:
    """The same recordings, found by their labels too: no text tower places a word that nobody ever said."""
    return knowledge_base.with_retrieval("label") if knowledge_base.config.retrieval == "audio" else knowledge_base


@dataclass(frozen=True)
class World:
    """
    Attributes:
        knowledge_base: in which every span sounds as the questions of the world say.
        rows: for each span the number of a row that sounds so.
    """

    knowledge_base: AudioBertKnowledgeBase
    rows: dict[str, int]


def world_of(knowledge_base: AudioBertKnowledgeBase, questions: Iterable[Question]) -> World:
    """
    - A span that is no label is an invented name: a copy of its recording is added under it.
    - A span that is the label of other recordings: all of these get the sound of the one that the question names.
    - A span that is its recording's own label stays as it is.

    Args:
        knowledge_base: where recordings are found by their labels; it is not changed.
        questions: of one part and world, of this knowledge base (see `SoundSwap.check`).

    Raises:
        ValueError: two questions give one span different recordings.
    """
    number_of: dict[str, int] = {}
    rows_of: dict[str, list[int]] = {}
    for row in range(len(knowledge_base)):
        recording = knowledge_base.recording(row)
        number_of[recording.id] = row
        rows_of.setdefault(spoken(recording.label), []).append(row)
    sounds = list(range(len(knowledge_base)))
    rows: dict[str, int] = {}
    added: dict[str, int] = {}
    for span, identity in _recordings_of_spans(questions).items():
        heard = number_of[identity]
        if span not in rows_of:
            rows[span] = len(knowledge_base) + len(added)
            added[span] = heard
        elif heard in rows_of[span]:
            rows[span] = heard
        else:
            rows[span] = rows_of[span][0]
            for row in rows_of[span]:
                sounds[row] = heard
    world = knowledge_base if sounds == list(range(len(sounds))) else knowledge_base.with_sounds_of(sounds)
    if added:
        heard_rows = list(added.values())
        world = world.with_recordings(
            knowledge_base.index.reconstruct_batch(np.array(heard_rows, dtype=np.int64)),
            knowledge_base.audio_embeds(heard_rows),
            [
                replace(knowledge_base.recording(row), id=f"sound-swap/{name}", label=name)
                for name, row in added.items()
            ],
        )
    return World(world, rows)


def _recordings_of_spans(questions: Iterable[Question]) -> dict[str, str]:
    recordings: dict[str, str] = {}
    for question in questions:
        for span, recording in zip(question.spans, question.recordings, strict=True):
            if recordings.setdefault(span, recording) != recording:
                raise ValueError(
                    f"In world {question.world} of {question.part}, {span!r} is to sound as {recordings[span]} and as "
                    f"{recording}: ask of the same name in another world."
                )
    return recordings
