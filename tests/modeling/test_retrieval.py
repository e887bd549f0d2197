"""Recordings found by name as well as by sound."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase, Recording
from audiobert.modeling.knowledge_files_audiobert import LABEL_VECTORS_FILE, sha256_of
from audiobert.modeling.labels_audiobert import LabelVectors

from audio_fixtures import WORDS, named_knowledge_base, tiny_knowledge_base


@pytest.fixture(scope="module")
def named() -> AudioBertKnowledgeBase:
    return named_knowledge_base()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cosines(knowledge_base: AudioBertKnowledgeBase, span: str) -> np.ndarray:
    vectors = knowledge_base.index.reconstruct_n(0, len(knowledge_base))
    return (vectors @ knowledge_base.query_encoder(f"{span} sound").T)[:, 0]


def test_by_label_a_span_finds_the_recordings_of_its_name_the_best_sounding_first(
    named: AudioBertKnowledgeBase,
) -> None:
    for word in ("dog", "cat", "rain"):
        (found,) = named.search([word], top_k=12, retrieval="label")
        assert {recording.label for recording in found.recordings} == {word}
        assert len(found.indices) == 4
        assert {recording.found_by for recording in found.recordings} == {"label"}
        assert found.recordings[0].similarity == pytest.approx(1, abs=1e-5)
        similarities = cosines(named, word)[list(found.indices)]
        assert list(similarities) == sorted(similarities, reverse=True)


def test_by_both_a_span_finds_by_whichever_is_nearer(named: AudioBertKnowledgeBase) -> None:
    # One recording sounds just like the text that asks for meows, and bears another name.
    purring = named.query_encoder("meow sound")
    described = Recording("purr.ogg", "rain", "tests", "CC0", 1.0)
    named = named.with_recordings(purring, torch.zeros(1, 6), [described])
    for word in WORDS:
        (audio,), (label,), (both,) = (named.search([word], 2, mode) for mode in ("audio", "label", "both"))
        nearer = max((audio, label), key=lambda found: found.recordings[0].similarity)
        assert both == nearer
        if word in ("dog", "meow"):
            assert both.recordings[0].found_by == {"dog": "label", "meow": "audio"}[word]
    # It is the knowledge base's own way; the paper's is asked for by name.
    assert named.search(WORDS) == named.search(WORDS, retrieval="both")
    assert named.search(WORDS, retrieval="audio") == named.with_retrieval("audio").search(WORDS)


def test_what_is_injected_is_the_recordings_sound(named: AudioBertKnowledgeBase) -> None:
    (found,) = named.search(["dog"], retrieval="label")
    assert torch.equal(named.audio_embeds(found.indices), tiny_knowledge_base().audio_embeds(found.indices))


def test_what_is_equally_near_comes_in_the_order_of_the_rows() -> None:
    plain = named_knowledge_base("label")
    twice = plain.subset([0, 0, 3, 1, 0])
    (found,) = twice.search(["dog"], top_k=5)
    zeros = [index for index in found.indices if index in (0, 1, 4)]
    assert zeros == [0, 1, 4]
    # Labels of the same vector: the one that comes first.
    vectors = np.tile(plain.query_encoder("dog sound"), (2, 1))
    labels = LabelVectors(["hound", "dog", "hound"], vectors)
    assert labels.nearest(vectors[0])[1] == (0, 2)


def test_underscores_are_read_as_spaces_and_labels_that_are_said_alike_are_one() -> None:
    asked: list[str] = []

    def encode(label: str) -> np.ndarray:
        asked.append(label)
        return np.ones((1, 2), dtype=np.float32)

    made = LabelVectors.made_by(encode, ["door_knock", "rain", "door knock"])
    assert asked == ["door knock", "rain"]
    assert (made.labels, made.rows) == (("door knock", "rain"), ((0, 2), (1,)))
    LabelVectors.made_by(encode, ["rain", "hum"], known=made)
    assert asked[2:] == ["hum"]


def test_answers_are_cached_for_each_way() -> None:
    named = named_knowledge_base("label")
    ways = [named.search(["dog"], retrieval=way) for way in ("audio", "label", "audio", None)]
    assert ways[0] == ways[2] != ways[1] == ways[3]


def test_a_way_that_it_has_no_vectors_for_is_refused() -> None:
    plain = tiny_knowledge_base()
    for way in ("label", "both"):
        with pytest.raises(ValueError, match=f"retrieval '{way}'.*no label vectors.*--retrieval both"):
            plain.search(["dog"], retrieval=way)
    with pytest.raises(ValueError, match=r"one of \['audio', 'label', 'both'\], got 'name'"):
        plain.search(["dog"], retrieval="name")
    with pytest.raises(ValueError, match="no label vectors"):
        config = dataclasses.replace(plain.config, retrieval="both")
        AudioBertKnowledgeBase(config, plain.index, plain.audio_embeddings, plain.metadata, plain.query_encoder)


def test_it_is_saved_and_loaded(named: AudioBertKnowledgeBase, tmp_path: Path) -> None:
    named.save_pretrained(tmp_path / "one")
    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path / "one")
    assert loaded.config.retrieval == "both"
    for way in ("audio", "label", "both"):
        assert loaded.search(WORDS, 3, way) == named.search(WORDS, 3, way)
    loaded.save_pretrained(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    # Over it one that has none: nothing of them stays behind.
    tiny_knowledge_base().save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two" / LABEL_VECTORS_FILE).exists()
    assert AudioBertKnowledgeBase.from_pretrained(tmp_path / "two").config.retrieval == "audio"


def test_without_a_choice_it_is_written_as_before_there_was_one(tmp_path: Path) -> None:
    tiny_knowledge_base().save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert "retrieval" not in described
    assert LABEL_VECTORS_FILE not in described["files"]
    assert list(load_file(tmp_path / "audio_embeddings.safetensors")) == ["audio_embeddings"]


def test_damaged_label_vectors_are_told(named: AudioBertKnowledgeBase, tmp_path: Path) -> None:
    named.save_pretrained(tmp_path / "saved")
    for vectors, message in (
        (torch.zeros(2, 8), "the recordings have 3 labels"),
        (torch.full((3, 8), float("nan")), "not finite"),
        (torch.zeros(3, 9), "width of label_vectors.safetensors is 9"),
    ):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "saved", folder)
        path = folder / LABEL_VECTORS_FILE
        save_file({"label_vectors": vectors}, path)
        with pytest.raises(OSError, match="label_vectors.safetensors"):
            AudioBertKnowledgeBase.from_pretrained(folder)
        described = json.loads((folder / "config.json").read_text())
        described["files"][LABEL_VECTORS_FILE] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        (folder / "config.json").write_text(json.dumps(described))
        with pytest.raises(ValueError, match=message):
            AudioBertKnowledgeBase.from_pretrained(folder)
        shutil.rmtree(folder)


def test_a_part_of_it_is_found_by_name_too(named: AudioBertKnowledgeBase) -> None:
    part = named.subset([1, 4, 2])
    assert part.label_vectors.labels == ("cat", "rain")
    (found,) = part.search(["cat"], top_k=3, retrieval="label")
    assert sorted(found.indices) == [0, 1]
    (gone,) = part.search(["dog"], retrieval="label")
    assert gone.recordings[0].label != "dog"
    assert isinstance(gone.recordings[0], Recording)
