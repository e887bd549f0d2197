"""What stands in the knowledge base of a world, and that it is found there by name."""

from __future__ import annotations

import pytest
import torch
from swap_fixtures import sounding_knowledge_base, tiny_sound_swap

from audiobert.evaluation.sound_swap.questions import NEW_SOUND, SWAPPED_RECORDINGS, UNHEARD_NAMES, Question
from audiobert.evaluation.sound_swap.worlds import found_by_name, world_of


@pytest.mark.parametrize("part", [UNHEARD_NAMES, SWAPPED_RECORDINGS, NEW_SOUND])
def test_a_name_finds_the_sound_that_its_question_names(part):
    swap, sounds = tiny_sound_swap(), found_by_name(sounding_knowledge_base())
    row_of = {sounds.recording(row).id: row for row in range(len(sounds))}
    for numbers in list(swap.worlds(part).values())[:4]:
        questions = [swap.questions[number] for number in numbers]
        world = world_of(sounds, questions)
        for question in questions:
            for span, recording in zip(question.spans, question.recordings, strict=True):
                wanted = sounds.audio_embeddings[row_of[recording]]
                assert torch.equal(world.knowledge_base.audio_embeddings[world.rows[span]], wanted)
                found = world.knowledge_base.search([span])[0]
                assert found.recordings[0].found_by == "label"
                if part != NEW_SOUND:
                    assert torch.equal(world.knowledge_base.audio_embeddings[found.indices[0]], wanted)


def test_a_new_sound_is_one_recording_more_and_all_others_are_as_they_were():
    swap, sounds = tiny_sound_swap(), found_by_name(sounding_knowledge_base())
    world = world_of(sounds, [swap.questions[number] for number in swap.worlds(NEW_SOUND)[0]])
    assert len(world.knowledge_base) == len(sounds) + 1
    assert torch.equal(world.knowledge_base.audio_embeddings[: len(sounds)], sounds.audio_embeddings)
    assert torch.equal(world.knowledge_base.audio_mean, sounds.audio_mean)


def test_swapped_recordings_exchange_what_sounds_under_all_rows_of_a_label_and_add_none():
    swap, sounds = tiny_sound_swap(), sounding_knowledge_base()
    world = world_of(sounds, [swap.questions[number] for number in swap.worlds(SWAPPED_RECORDINGS)[1]])
    assert len(world.knowledge_base) == len(sounds)
    tubas = [row for row in range(len(sounds)) if sounds.recording(row).label == "tuba"]
    assert len(tubas) == 5
    assert [world.knowledge_base.recording(row).label for row in tubas] == ["tuba"] * 5
    assert len({world.knowledge_base.recording(row).pitch_hz for row in tubas}) == 1
    assert world.knowledge_base.recording(tubas[0]).pitch_hz > 2 * 60


def test_one_name_for_two_sounds_in_one_world_is_refused():
    one = Question(UNHEARD_NAMES, 3, "a [MASK]", ("blick",), ("tuba-0.ogg",), ("tuba",), "higher")
    other = Question(UNHEARD_NAMES, 3, "a [MASK]", ("blick",), ("oboe-0.ogg",), ("oboe",), "higher")
    with pytest.raises(ValueError, match="world 3 of unheard names, 'blick' is to sound as tuba-0.ogg and as oboe-0"):
        world_of(sounding_knowledge_base(), [one, other])
