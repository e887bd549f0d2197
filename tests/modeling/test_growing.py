"""A knowledge base out of another: with recordings added, with sounds exchanged, and with CLAP's audio tower along."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from transformers import ClapFeatureExtractor, ClapModel

from audiobert.modeling import audio_tower_audiobert
from audiobert.modeling.audio_tower_audiobert import AudioEncoder
from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase, EncoderReference, Recording
from audiobert.modeling.knowledge_files_audiobert import write_config

from audio_fixtures import WORDS, named_knowledge_base, save_tiny_clap, tiny_knowledge_base


@pytest.fixture(scope="module")
def named() -> AudioBertKnowledgeBase:
    return named_knowledge_base()


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clap(tmp_path_factory.mktemp("clap") / "tiny-clap")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recording(identity: str = "new.ogg", label: str = "hum", **measured: float) -> Recording:
    return Recording(identity, label, "mine", "CC0", 2.5, **measured)


def unit(count: int = 1, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measured(knowledge_base: AudioBertKnowledgeBase) -> AudioBertKnowledgeBase:
    count = len(knowledge_base)
    table = knowledge_base.metadata.append_column(
        "pitch_hz", pyarrow.array([None if i % 2 else 100.0 + i for i in range(count)], pyarrow.float64())
    )
    parts = (knowledge_base.index, knowledge_base.audio_embeddings, table, knowledge_base.query_encoder)
    return AudioBertKnowledgeBase(knowledge_base.config, *parts)


# --- mean and deviation ----------------------------------------------------------------------------------------------


def test_mean_and_deviation_are_those_of_the_recordings_it_was_built_from(tmp_path: Path) -> None:
    knowledge_base = tiny_knowledge_base()
    embeddings = knowledge_base.audio_embeds(range(12)).double()
    torch.testing.assert_close(knowledge_base.audio_mean, embeddings.mean(0).float())
    torch.testing.assert_close(knowledge_base.audio_deviation, embeddings.std(0, correction=0).float())
    mean, deviation = knowledge_base.audio_mean, knowledge_base.audio_deviation
    assert mean.dtype == deviation.dtype == torch.float32

    added = knowledge_base.with_recordings(unit(), torch.full((1, 6), 9.0), [recording()])
    for derived in (added, knowledge_base.subset([3, 1]), added.with_sounds_of([0] * 13), added.subset([12])):
        assert torch.equal(derived.audio_mean, mean)
        assert torch.equal(derived.audio_deviation, deviation)
    added.save_pretrained(tmp_path / "added")
    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path / "added")
    assert torch.equal(loaded.audio_mean, mean)
    assert torch.equal(loaded.audio_deviation, deviation)
    loaded.save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(tmp_path / "added")
    # Another encoder's embeddings have a mean of their own.
    other = added.with_audio_embeddings(torch.ones(13, 4))
    assert torch.equal(other.audio_mean, torch.ones(4))
    assert torch.equal(other.audio_deviation, torch.zeros(4))


def test_a_mean_that_does_not_fit_is_refused() -> None:
    knowledge_base = tiny_knowledge_base()
    parts = (knowledge_base.index, knowledge_base.audio_embeddings, knowledge_base.metadata)
    for bad in (torch.zeros(5), torch.zeros(6).double(), torch.full((6,), float("nan"))):
        with pytest.raises(ValueError, match=r"`audio_mean` has to be a finite fp32 tensor of shape \(6,\)"):
            AudioBertKnowledgeBase(
                knowledge_base.config, *parts, knowledge_base.query_encoder, audio_statistics=(bad, torch.ones(6))
            )


# --- recordings added ------------------------------------------------------------------------------------------------


def test_an_added_recording_is_found_by_its_sound_and_by_its_name(named: AudioBertKnowledgeBase) -> None:
    vectors = named.query_encoder("beep sound")
    grown = named.with_recordings(vectors, torch.arange(6.0)[None], [recording(label="hum")])
    assert len(grown) == 13
    for span, found_by in (("beep", "audio"), ("hum", "label")):
        (found,) = grown.search([span])
        assert found.indices == (12,)
        assert dataclasses.replace(found.recordings[0], similarity=None, found_by=None) == recording(label="hum")
        assert found.recordings[0].found_by == found_by
    assert grown.audio_embeds([12]).tolist() == [[0, 1, 2, 3, 4, 5]]
    # What was there is as it was, and the old knowledge base knows nothing of it.
    assert torch.equal(grown.audio_embeds(range(12)), named.audio_embeds(range(12)))
    np.testing.assert_array_equal(grown.index.reconstruct_n(0, 12), named.index.reconstruct_n(0, 12))
    np.testing.assert_array_equal(grown.label_vectors.vectors[:3], named.label_vectors.vectors)
    assert grown.label_vectors.labels == ("dog", "cat", "rain", "hum")
    assert len(named) == 12


def test_a_grown_knowledge_base_is_saved_and_grows_again(named: AudioBertKnowledgeBase, tmp_path: Path) -> None:
    grown = named.with_recordings(unit(2), torch.ones(2, 6), [recording("a", pitch_hz=440.0), recording("b")])
    grown.save_pretrained(tmp_path / "grown")
    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path / "grown")
    assert [loaded.recording(row).pitch_hz for row in (0, 12, 13)] == [None, 440.0, None]
    again = loaded.with_recordings(unit(1, 2), torch.ones(1, 6), [recording("c", pitch_hz=220.5)])
    assert [again.recording(row) for row in range(14)] == [loaded.recording(row) for row in range(14)]
    assert again.recording(14).pitch_hz == 220.5
    # Without a measured column, as there was none to fill.
    plain = named.with_recordings(unit(), torch.ones(1, 6), [recording()])
    assert plain.metadata.column_names == named.metadata.column_names


REFUSED = {
    "double": (unit(2), torch.ones(2, 6), [recording("a"), recording("a")], "'a' is there already"),
    "there": (unit(), torch.ones(1, 6), [recording("sounds/3.ogg")], "'sounds/3.ogg' is there already"),
    "none": (unit(0), torch.ones(0, 6), [], "no recording to add"),
    "width": (unit(), torch.ones(1, 5), [recording()], r"`embeddings` has to be of shape \(1, 6\), got \(1, 5\)"),
    "count": (unit(2), torch.ones(1, 6), [recording()], r"`vectors` has to be of shape \(1, 8\), got \(2, 8\)"),
    "nan": (unit(), torch.full((1, 6), float("nan")), [recording()], r"\['new.ogg'\] are not finite"),
    "fp16": (unit(), torch.full((1, 6), 1e6), [recording()], r"\['new.ogg'\] are not finite, or too large for fp16"),
    "infinite": (unit() * np.float32(np.inf), torch.ones(1, 6), [recording()], "are not finite"),
    "long": (2 * unit(), torch.ones(1, 6), [recording()], "have to be unit vectors"),
    "label": (unit(), torch.ones(1, 6), [recording(label=" ")], "'new.ogg' has no label"),
    "pitch": (unit(), torch.ones(1, 6), [recording(pitch_hz=float("nan"))], "`pitch_hz` of .* has to be a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_added_is_refused(named: AudioBertKnowledgeBase, name: str) -> None:
    vectors, embeddings, recordings, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        named.with_recordings(vectors, embeddings, recordings)


# --- sounds exchanged ------------------------------------------------------------------------------------------------


def test_exchanged_sounds_are_heard_under_the_names_of_others(tmp_path: Path) -> None:
    knowledge_base = measured(tiny_knowledge_base())
    rows = [3, 4, 5, 0, 1, 2, *range(6, 12)]
    exchanged = knowledge_base.with_sounds_of(rows)
    for row, sound in enumerate(rows):
        old, new, heard = knowledge_base.recording(row), exchanged.recording(row), knowledge_base.recording(sound)
        assert (new.id, new.label, new.source, new.license) == (old.id, old.label, old.source, old.license)
        assert (new.seconds, new.pitch_hz) == (heard.seconds, heard.pitch_hz)
        np.testing.assert_array_equal(exchanged.index.reconstruct(row), knowledge_base.index.reconstruct(sound))
    assert torch.equal(exchanged.audio_embeds(range(12)), knowledge_base.audio_embeds(rows))
    for bad, error in (([0, 1], ValueError), ([12] * 12, IndexError)):
        with pytest.raises(error, match=r"each of the 12|0 to 11"):
            knowledge_base.with_sounds_of(bad)
    exchanged.save_pretrained(tmp_path)
    assert AudioBertKnowledgeBase.from_pretrained(tmp_path).recording(0) == exchanged.recording(0)


def test_by_name_an_exchanged_sound_is_found_where_the_name_is(named: AudioBertKnowledgeBase) -> None:
    # All cats sound as dogs do, and the other way round.
    rows = [row + 1 if row % 3 == 0 else row - 1 if row % 3 == 1 else row for row in range(12)]
    exchanged = named.with_sounds_of(rows)
    (found,) = exchanged.search(["dog"], top_k=4, retrieval="label")
    assert sorted(found.indices) == [0, 3, 6, 9]
    assert torch.equal(exchanged.audio_embeds([0]), named.audio_embeds([1]))


def test_a_measured_column_that_holds_no_numbers_is_told() -> None:
    plain = tiny_knowledge_base()
    for values in (["bright"] * 12, [1.0, float("nan")] * 6, [None, float("inf")] * 6):
        table = plain.metadata.append_column("brightness_hz", pyarrow.array(values))
        with pytest.raises(ValueError, match="brightness_hz of metadata.parquet holds what is no number"):
            AudioBertKnowledgeBase(plain.config, plain.index, plain.audio_embeddings, table, plain.query_encoder)
    table = plain.metadata.append_column("brightness_hz", pyarrow.nulls(12))
    silent = AudioBertKnowledgeBase(plain.config, plain.index, plain.audio_embeddings, table, plain.query_encoder)
    grown = silent.with_recordings(unit(), torch.ones(1, 6), [recording(brightness_hz=900.0)])
    assert [grown.recording(row).brightness_hz for row in (0, 12)] == [None, 900.0]


# --- CLAP's audio tower ----------------------------------------------------------------------------------------------


def carrying(clap: Path) -> AudioBertKnowledgeBase:
    plain = tiny_knowledge_base()
    parts = (plain.config, plain.index, plain.audio_embeddings, plain.metadata, plain.query_encoder)
    return AudioBertKnowledgeBase(*parts, carried=AudioEncoder.from_pretrained(clap))


def features(extractor: ClapFeatureExtractor) -> dict[str, torch.Tensor]:
    made = extractor(np.random.default_rng(0).normal(size=8000), sampling_rate=8000)
    return {"input_features": torch.from_numpy(np.array(made["input_features"])), "is_longer": torch.tensor([[False]])}


def test_the_audio_tower_travels_and_is_loaded_when_it_is_asked_for(
    clap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrying(clap).save_pretrained(tmp_path / "one")
    loads = []
    load = AudioEncoder.from_pretrained
    monkeypatch.setattr(AudioEncoder, "from_pretrained", lambda *args: loads.append(args) or load(*args))
    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path / "one")
    loaded.search(WORDS)
    loaded.subset([1, 2]).save_pretrained(tmp_path / "two")
    loaded.save_pretrained(tmp_path / "one")
    assert loads == []
    for folder in ("one", "two"):
        encoder = AudioBertKnowledgeBase.from_pretrained(tmp_path / folder).audio_encoder()
        batch = features(encoder.extractor)
        with torch.no_grad():
            expected = ClapModel.from_pretrained(clap).get_audio_features(**batch).pooler_output
        assert torch.equal(encoder(batch), expected)
    assert len(loads) == 2


def test_the_audio_tower_is_listed_and_checked(clap: Path, tmp_path: Path) -> None:
    carrying(clap).save_pretrained(tmp_path / "saved")
    listed = json.loads((tmp_path / "saved" / "config.json").read_text())["files"]
    weights = "audio_encoder/model.safetensors"
    assert {weights, "audio_encoder/config.json", "audio_encoder/preprocessor_config.json"} <= listed.keys()

    loaded = AudioBertKnowledgeBase.from_pretrained(tmp_path / "saved")
    data = bytearray((tmp_path / "saved" / weights).read_bytes())
    data[-1] ^= 1
    (tmp_path / "saved" / weights).write_bytes(data)
    # Never copied under a digest that fits it.
    for use in (loaded.audio_encoder, lambda: loaded.save_pretrained(tmp_path / "copy")):
        with pytest.raises(OSError, match=rf"{weights} is not the file.*sha256"):
            use()
    (tmp_path / "saved" / weights).unlink()
    with pytest.raises(OSError, match=f"{weights} is missing"):
        loaded.audio_encoder()
    (tmp_path / "saved" / "audio_encoder" / "added.json").write_text("{}")
    with pytest.raises(ValueError, match="does not list .*audio_encoder/added.json"):
        AudioBertKnowledgeBase.from_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "audio_encoder" / "added.json").unlink()
    write_config(tmp_path / "saved", loaded.config)
    with pytest.raises(ValueError, match=r"does not list .*audio_encoder/\*.safetensors"):
        AudioBertKnowledgeBase.from_pretrained(tmp_path / "saved")


def test_a_knowledge_base_without_it_leaves_none_behind(clap: Path, tmp_path: Path) -> None:
    carrying(clap).save_pretrained(tmp_path)
    tiny_knowledge_base().save_pretrained(tmp_path)
    assert not (tmp_path / "audio_encoder").exists()
    with pytest.raises(ValueError, match=r"does not carry the audio tower of its CLAP \(tiny-clap\).*--carry-clap"):
        AudioBertKnowledgeBase.from_pretrained(tmp_path).audio_encoder()


def test_the_audio_tower_of_a_hub_clap_is_loaded_by_name(clap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    tower = audio_tower_audiobert.AudioEncoder
    monkeypatch.setattr(tower, "from_pretrained", lambda name, **hub: asked.append((name, hub)))
    plain = tiny_knowledge_base()
    config = dataclasses.replace(plain.config, clap=EncoderReference("someone/clap", "abc123"))
    parts = (plain.index, plain.audio_embeddings, plain.metadata, plain.query_encoder)
    AudioBertKnowledgeBase(config, *parts).audio_encoder(local_files_only=True)
    assert asked == [("someone/clap", {"revision": "abc123", "local_files_only": True})]


def test_a_half_precision_tower_is_stored_so_and_computes_alike(clap: Path, tmp_path: Path) -> None:
    ClapModel.from_pretrained(clap, dtype=torch.float16).save_pretrained(tmp_path / "half")
    ClapFeatureExtractor.from_pretrained(clap).save_pretrained(tmp_path / "half")
    encoder = AudioEncoder.from_pretrained(tmp_path / "half")
    encoder.save_pretrained(tmp_path / "tower")
    loaded = AudioEncoder.from_pretrained(tmp_path / "tower")
    assert (loaded.stored_dtype, loaded.model.dtype) == (torch.float16, torch.float32)
    assert torch.equal(loaded(features(encoder.extractor)), encoder(features(encoder.extractor)))
