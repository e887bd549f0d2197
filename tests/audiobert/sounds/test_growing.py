"""Recordings added to a model: as a build with them would have it, and a new model as a whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import audiobert
from audiobert import AudioBertForMaskedLM, AudioBertKnowledgeBase
from audiobert.cli import app
from audiobert.sounds import growing
from audiobert.sounds.building import build_knowledge_base
from audiobert.sounds.growing import add_recordings, grow_checkpoint

from audio_fixtures import save_tiny_ast, save_tiny_clap, tone, write_recordings
from text_fixtures import tiny_bert, tiny_tokenizer

OLD = [{"file_name": f"old{i}.wav", "label": ("dog", "cat")[i % 2], "source": "A", "license": "CC0"} for i in range(4)]
NEW = [{"file_name": f"new{i}.wav", "label": ("rain", "cat")[i % 2], "source": "B", "license": "MIT"} for i in range(3)]
BUILT = {"pooling": "sounding", "retrieval": "both", "measure": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders, two folders of recordings, and `model`, whose knowledge base was built of the first."""
    place = tmp_path_factory.mktemp("growing")
    write_recordings(place / "old", OLD)
    write_recordings(place / "new", NEW, frequency=450)
    clap, ast = save_tiny_clap(place / "clap"), save_tiny_ast(place / "ast")
    build_knowledge_base(place / "old", place / "kb", clap=clap, ast=ast, carry_clap=True, **BUILT)
    tokenizer = tiny_tokenizer()
    tiny_bert(len(tokenizer)).save_pretrained(place / "bert")
    tokenizer.save_pretrained(place / "bert")
    model = AudioBertForMaskedLM.from_backbones(place / "bert", ast, place / "kb", detector_hidden_size=8)
    model.save_pretrained(place / "model")
    (place / "model" / "held_out.json").write_text("{}")
    return place


@pytest.fixture
def model(place: Path) -> AudioBertForMaskedLM:
    return AudioBertForMaskedLM.from_pretrained(place / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_recordings(one: AudioBertKnowledgeBase, other: AudioBertKnowledgeBase) -> None:
    assert one.config == other.config
    assert one.metadata.equals(other.metadata)
    assert torch.equal(one.audio_embeds(range(len(one))), other.audio_embeds(range(len(one))))
    count = len(one)
    np.testing.assert_array_equal(one.index.reconstruct_n(0, count), other.index.reconstruct_n(0, count))
    np.testing.assert_array_equal(one.label_vectors.vectors, other.label_vectors.vectors)


def test_added_recordings_are_to_the_bit_what_a_build_with_them_gives(
    place: Path, tmp_path: Path, model: AudioBertForMaskedLM
) -> None:
    before = model.knowledge_base
    report = audiobert.add_recordings(model, place / "new")
    assert (report.added, report.count, report.skipped) == (tuple(row["file_name"] for row in NEW), 7, ())
    encoders = {"clap": place / "clap", "ast": place / "ast"}
    build_knowledge_base([place / "old", place / "new"], tmp_path / "built", **encoders, **BUILT)
    built = AudioBertKnowledgeBase.from_pretrained(tmp_path / "built")
    assert_same_recordings(model.knowledge_base, built)
    assert model.knowledge_base.recording(4).pitch_hz == pytest.approx(450, rel=0.01)
    # The mean and the deviation are those that the model was trained with.
    assert torch.equal(model.knowledge_base.audio_mean, before.audio_mean)
    assert not torch.equal(built.audio_mean, before.audio_mean)
    assert len(before) == 4


def test_where_nothing_is_measured_nothing_is_measured_of_new_recordings(
    place: Path, model: AudioBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge_base = model.knowledge_base
    table = knowledge_base.metadata.select(["id", "label", "source", "license", "seconds"])
    monkeypatch.setattr(knowledge_base, "metadata", table)
    add_recordings(model, place / "new")
    assert model.knowledge_base.metadata.column_names == table.column_names


def test_a_half_precision_model_embeds_in_full_precision(place: Path, model: AudioBertForMaskedLM) -> None:
    model.half()
    add_recordings(model, place / "new")
    assert model.audio_model.dtype == torch.float16
    grown = model.knowledge_base.audio_embeds([4, 5, 6])
    whole = AudioBertForMaskedLM.from_pretrained(place / "model")
    add_recordings(whole, place / "new")
    torch.testing.assert_close(grown, whole.knowledge_base.audio_embeds([4, 5, 6]), atol=0.01, rtol=0.01)


def test_the_command_writes_a_whole_model(place: Path, tmp_path: Path, model: AudioBertForMaskedLM) -> None:
    before = content(place / "model")
    audio = tmp_path / "audio"
    shutil.copytree(place / "new", audio)
    (audio / "new1.wav").write_bytes(b"no sound")
    result = CliRunner().invoke(app, ["add-recordings", str(place / "model"), str(audio), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "2 recordings added; the knowledge base in" in result.stdout
    assert "1 were left out" in result.stdout
    assert "new1.wav: " in result.stdout
    assert (tmp_path / "out" / "knowledge_base" / "skipped.csv").read_text().splitlines()[1].startswith("new1.wav,")

    written = content(tmp_path / "out")
    assert content(place / "model") == before
    # All that is no part of the knowledge base is as it was, what travels beside the weights included.
    changed = {name for name in {*before, *written} if before.get(name) != written.get(name)}
    assert changed == {
        f"knowledge_base/{name}"
        for name in (
            *("audio_embeddings.safetensors", "config.json", "index.faiss", "label_vectors.safetensors"),
            *("metadata.parquet", "skipped.csv"),
        )
    }
    loaded = AudioBertForMaskedLM.from_pretrained(tmp_path / "out")
    shutil.copytree(place / "new", tmp_path / "alone")
    (tmp_path / "alone" / "metadata.csv").write_text(
        "file_name,label,source,license\nnew0.wav,rain,B,MIT\nnew2.wav,rain,B,MIT\n"
    )
    add_recordings(model, tmp_path / "alone")
    assert_same_recordings(loaded.knowledge_base, model.knowledge_base)
    assert torch.equal(loaded.knowledge_base.audio_mean, model.knowledge_base.audio_mean)


def test_an_interrupted_command_leaves_nothing_and_works_when_it_is_started_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    for name in ("embed_shard", "write_skipped"):
        with monkeypatch.context() as patch:
            patch.setattr(growing, name, interrupted)
            # The second is reached when the whole model lies there under its other name.
            patch.setattr(growing, "report_skipped", lambda skipped, count: skipped.append(("x.wav", "gone")))
            with pytest.raises(KeyboardInterrupt):
                grow_checkpoint(place / "model", place / "new", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
    # What a process leaves that was killed.
    (tmp_path / "out.partial" / "grown_model").mkdir(parents=True)
    (tmp_path / "out.partial" / "grown_model" / "config.json").write_text("half")
    (tmp_path / "out.partial" / "lock").touch()
    grow_checkpoint(place / "model", place / "new", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(AudioBertForMaskedLM.from_pretrained(tmp_path / "out").knowledge_base) == 7


def refuse(place: Path, audio: Path, out: Path) -> str:
    result = CliRunner().invoke(app, ["add-recordings", str(place / "model"), str(audio), str(out)])
    assert result.exit_code == 1
    assert result.stderr.count("Error: ") == 1
    return result.stderr


def test_what_cannot_be_added_is_one_error_and_nothing_is_written(place: Path, tmp_path: Path) -> None:
    write_recordings(tmp_path / "there", [OLD[2], NEW[0]])
    write_recordings(tmp_path / "noted", [{**NEW[0], "pitch_note": "H4"}])
    write_recordings(tmp_path / "broken", NEW)
    for row in NEW:
        (tmp_path / "broken" / row["file_name"]).write_bytes(b"no sound")
    (tmp_path / "double").mkdir()
    (tmp_path / "double" / "metadata.csv").write_text("file_name,label\na.wav,dog\na.wav,cat\n")
    before = content(tmp_path)
    messages = {
        "there": r"ids ['old2.wav'] already: rename",
        "noted": "'H4' is no note",
        "broken": "none of the 3 recordings could be decoded",
        "double": "line 3: 'a.wav' stands in line 2 already",
        "nowhere": "there is no folder",
    }
    for name, message in messages.items():
        assert message in refuse(place, tmp_path / name, tmp_path / "out")
        assert content(tmp_path) == before
        assert not (tmp_path / "out.partial").exists()


def test_a_folder_that_is_there_or_inside_the_model_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "is there already" in refuse(place, place / "new", tmp_path / "out")
    assert "lies inside the model" in refuse(place, place / "new", place / "model" / "out")
    (tmp_path / "kb.partial").mkdir()
    (tmp_path / "kb.partial" / "fingerprint.json").write_text("1")
    assert "belongs to the build of a knowledge base" in refuse(place, place / "new", tmp_path / "kb")
    assert (tmp_path / "kb.partial" / "fingerprint.json").read_text() == "1"


@pytest.mark.parametrize("name", ["nowhere/at/all", "nowhere"])
def test_a_model_that_is_not_there_is_one_sentence(place: Path, tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["add-recordings", name, str(place / "new"), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"there is no folder {name} here" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_the_hub_is_grown_into_a_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "snapshot_download", lambda name: {"me/model": str(place / "model")}[name])
    assert grow_checkpoint("me/model", place / "new", tmp_path / "out").count == 7
    assert (tmp_path / "out" / "held_out.json").exists()


def test_a_model_that_lacks_a_part_is_told(place: Path, model: AudioBertForMaskedLM) -> None:
    knowledge_base = model.knowledge_base
    knowledge_base.carried = None
    with pytest.raises(ValueError, match="does not carry the audio tower.*--carry-clap"):
        add_recordings(model, place / "new")
    model.feature_extractor = None
    with pytest.raises(ValueError, match="no feature extractor"):
        add_recordings(model, place / "new")
    model.set_knowledge_base(None)
    with pytest.raises(ValueError, match="no knowledge base"):
        add_recordings(model, place / "new")


def test_a_recording_may_have_any_length_and_format(place: Path, tmp_path: Path, model: AudioBertForMaskedLM) -> None:
    audio = write_recordings(tmp_path, [{"file_name": "a/long.flac", "label": "hum"}])
    soundfile.write(audio / "a" / "long.flac", tone(300, 5, 44100), 44100)
    add_recordings(model, audio)
    added = model.knowledge_base.recording(4)
    assert (added.id, added.seconds, added.source) == ("a/long.flac", 5, "")
