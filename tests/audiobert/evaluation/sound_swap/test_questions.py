"""The folder of questions: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
from swap_fixtures import sounding_knowledge_base, tiny_sound_swap

from audiobert.evaluation.sound_swap.questions import SETTINGS_FILE, UNHEARD_NAMES, SoundSwap
from audiobert.files import sha256_of

from audio_fixtures import tiny_knowledge_base


@pytest.fixture
def folder(tmp_path):
    tiny_sound_swap().save(tmp_path / "swap")
    return tmp_path / "swap"


def test_questions_are_read_back_as_they_were_and_written_to_the_same_bytes(folder, tmp_path):
    read = SoundSwap.load(folder, sounding_knowledge_base())
    assert read == tiny_sound_swap()
    read.save(tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    assert [(folder / name).read_bytes() for name in names] == [
        (tmp_path / "again" / name).read_bytes() for name in names
    ]


def test_a_line_says_sentence_spans_recordings_and_answer(folder):
    question = tiny_sound_swap().part(UNHEARD_NAMES)[0]
    line = json.loads((folder / "unheard_names.jsonl").read_text().splitlines()[0])
    assert line == {
        "world": 0,
        "sentence": question.sentence,
        "spans": list(question.spans),
        "recordings": list(question.recordings),
        "labels": list(question.labels),
        "answer": question.answer,
    }


def test_questions_of_another_knowledge_base_are_refused(folder):
    with pytest.raises(ValueError, match="of another knowledge base.*are not in this one"):
        SoundSwap.load(folder, tiny_knowledge_base())


def test_a_recording_under_another_label_is_refused(folder):
    sounds = sounding_knowledge_base()
    labels = sounds.metadata.column("label").to_pylist()
    labels[labels.index("tuba")] = "horn"
    place = sounds.metadata.column_names.index("label")
    relabelled = sounding_knowledge_base()
    other = type(sounds)(
        sounds.config,
        sounds.index,
        sounds.audio_embeddings,
        relabelled.metadata.set_column(place, "label", [labels]),
        sounds.query_encoder,
    )
    with pytest.raises(ValueError, match="tuba-0.ogg was 'tuba', in this one it is 'horn'"):
        SoundSwap.load(folder, other)


def test_a_folder_without_questions_says_how_they_are_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="make-sound-swap"):
        SoundSwap.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "seed": 0, "files": {}}', '{"format": 1}'])
def test_settings_that_are_none_are_refused(folder, content):
    (folder / SETTINGS_FILE).write_text(content)
    with pytest.raises(ValueError, match="no file of the sound swap"):
        SoundSwap.load(folder)


def test_a_file_that_was_changed_or_lost_is_refused(folder):
    path = folder / "new_sound.jsonl"
    path.write_text(path.read_text().replace("higher", "lower", 1))
    with pytest.raises(ValueError, match="new_sound.jsonl is not the file"):
        SoundSwap.load(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="new_sound.jsonl is missing"):
        SoundSwap.load(folder)


@pytest.mark.parametrize(
    "change", [{"spans": ["a", "b", "c"]}, {"sentence": "no mask"}, {"loud": 1}, {"spans": [], "recordings": []}]
)
def test_a_line_that_is_no_question_is_named(folder, change):
    path = folder / "animals_by_ear.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    path.write_text("\n".join(lines) + "\n")
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    settings["files"][path.name] = sha256_of(path)
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"animals_by_ear.jsonl, line 2: no question"):
        SoundSwap.load(folder)
