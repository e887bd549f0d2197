"""What is held out is drawn by the seed, travels as a file, and is refused where it does not belong."""

from collections import Counter

import pytest

from audiobert.listening.held_out import HELD_OUT_FILE, HeldOut, source_file_of

from audio_fixtures import tiny_knowledge_base

ANIMALS = ["cat", "dog", "owl"]


@pytest.fixture
def held_out(sounds):
    return HeldOut.draw(sounds, ANIMALS)


def test_a_fifth_of_the_labels_with_a_pitch_and_of_each_animals_files(sounds, held_out):
    assert len(held_out.labels) == 2
    assert not set(held_out.labels) & {*ANIMALS, "rain", "wind"}
    labels = Counter(one.label for one in map(sounds.recording, held_out.rows(sounds)))
    # One of five files of each animal, both takes of it.
    assert labels == {**dict.fromkeys(held_out.labels, 3), **dict.fromkeys(ANIMALS, 2)}
    assert len({source_file_of(one) for one in held_out.recordings}) == 3
    assert HeldOut.draw(sounds, ANIMALS, seed=1) != held_out == HeldOut.draw(sounds, ANIMALS)


def test_training_hears_all_others_and_nothing_of_it(sounds, held_out):
    rest = held_out.without(sounds)
    assert len(rest) + len(held_out.rows(sounds)) == len(sounds)
    assert held_out.rows(rest) == []


def test_takes_of_one_file_are_known_by_their_names():
    assert source_file_of("esc50/4-59579-B-20.ogg") == source_file_of("esc10/4-59579-A-20.wav")
    assert source_file_of("sounds/cat_001.ogg") != source_file_of("sounds/cat_002.ogg")


def test_it_comes_back_from_its_file(sounds, held_out, tmp_path):
    held_out.save(tmp_path / HELD_OUT_FILE)
    assert HeldOut.load(tmp_path / HELD_OUT_FILE, sounds) == held_out


def test_what_is_not_in_the_knowledge_base_is_named(held_out, tmp_path):
    held_out.save(tmp_path / HELD_OUT_FILE)
    with pytest.raises(ValueError, match=rf"held_out.json holds out 8 labels or recordings .*{held_out.labels[0]}"):
        HeldOut.load(tmp_path / HELD_OUT_FILE, tiny_knowledge_base())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"seed": 0}',
        '{"seed": 0, "labels": [1], "recordings": []}',
        '{"seed": null, "labels": [], "recordings": []}',
    ],
)
def test_another_file_is_refused_by_name(text, tmp_path):
    (tmp_path / "list.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.json is no list of what is held out"):
        HeldOut.load(tmp_path / "list.json")


@pytest.mark.parametrize("share", [0, 1, 2.5])
def test_a_share_is_between_none_and_all(share, sounds):
    with pytest.raises(ValueError, match="between 0 and 1"):
        HeldOut.draw(sounds, ANIMALS, share=share)
