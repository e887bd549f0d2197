"""Building knowledge bases: what goes in, what comes out, and that a build which was cut off goes on."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import shutil
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import ASTFeatureExtractor, ASTModel, ClapFeatureExtractor, ClapModel

from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase
from audiobert.sounds import building
from audiobert.sounds.building import BuildReport, build_knowledge_base
from audiobert.sounds.encoders import EmbeddingError
from audiobert.sounds.features import ast_features, clap_features
from audiobert.sounds.recordings import read_recordings

from audio_fixtures import file_size_limit, save_tiny_ast, save_tiny_clap, tone, write_recordings

ROWS = [
    {
        "file_name": f"{'low' if i % 2 else 'high'}/{i}.wav",
        "label": "low" if i % 2 else "high",
        "source": ("A", "B", "C")[i % 3],
        "license": "CC0",
    }
    for i in range(9)
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {"clap": save_tiny_clap(folder / "tiny-clap"), "ast": save_tiny_ast(folder / "tiny-ast")}


@pytest.fixture(scope="module")
def built(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recordings of `ROWS`, `audio`, and the knowledge base `out` that was built of them at once."""
    folder = tmp_path_factory.mktemp("built")
    write_recordings(folder / "audio", ROWS)
    build_knowledge_base(folder / "audio", folder / "out", **encoders)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "SHARD_RECORDINGS", 2)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recording_of(knowledge_base: AudioBertKnowledgeBase, identity: str) -> int:
    return [knowledge_base.recording(i).id for i in range(len(knowledge_base))].index(identity)


def test_build(encoders: dict[str, Path], tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS)
    report = build_knowledge_base(audio, tmp_path / "out", **encoders)
    assert report == BuildReport(tmp_path / "out", count=9, resumed=0, skipped=())
    assert not (tmp_path / "out.partial").exists()
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert (knowledge_base.config.clap.name, knowledge_base.config.clap.revision) == ("tiny-clap", None)
    assert [knowledge_base.recording(i).id for i in range(9)] == [row["file_name"] for row in ROWS]
    first = knowledge_base.recording(0)
    assert (first.label, first.source, first.license, first.seconds) == ("high", "A", "CC0", pytest.approx(0.4))
    assert not [name for name, data in content(tmp_path / "out").items() if str(tmp_path).encode() in data]


@pytest.mark.parametrize("fusion", [False, True])
def test_embeddings_are_those_of_clap_and_ast(encoders: dict[str, Path], tmp_path: Path, fusion: bool) -> None:
    clap_folder = save_tiny_clap(tmp_path / "clap", fusion=fusion)
    audio = write_recordings(tmp_path / "audio", ROWS[:2])
    # Longer than CLAP's second: cropped at random, the same way each time.
    soundfile.write(audio / ROWS[1]["file_name"], np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    build_knowledge_base(audio, tmp_path / "out", clap=clap_folder, ast=encoders["ast"])
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")

    clap, ast = ClapModel.from_pretrained(clap_folder), ASTModel.from_pretrained(encoders["ast"])
    clap_extractor = ClapFeatureExtractor.from_pretrained(clap_folder)
    ast_extractor = ASTFeatureExtractor.from_pretrained(encoders["ast"])
    for i, row in enumerate(ROWS[:2]):
        path = audio / row["file_name"]
        features = clap_features(clap_extractor, path, row["file_name"])
        with torch.no_grad():
            batch = {name: torch.from_numpy(value)[None] for name, value in features.items()}
            vector = clap.get_audio_features(**batch).pooler_output[0]
            hidden = ast(torch.from_numpy(ast_features(ast_extractor, path))[None]).last_hidden_state
        np.testing.assert_allclose(knowledge_base.index.reconstruct(i), vector, atol=1e-6)
        assert np.linalg.norm(knowledge_base.index.reconstruct(i)) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(knowledge_base.audio_embeds([i])[0], hidden.mean(1)[0].half().float())


def test_random_crops_are_a_function_of_the_recording(encoders: dict[str, Path]) -> None:
    extractor = ClapFeatureExtractor.from_pretrained(encoders["clap"])
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(0, 0.1, 80000), 8000, format="WAV")
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    one = clap_features(extractor, buffer.getvalue(), "one")["input_features"]
    assert np.random.rand() == expected
    np.testing.assert_array_equal(clap_features(extractor, buffer.getvalue(), "one")["input_features"], one)
    assert (clap_features(extractor, buffer.getvalue(), "other")["input_features"] != one).any()


@pytest.mark.parametrize("fusion", [False, True])
def test_formats_lengths_and_silence(encoders: dict[str, Path], tmp_path: Path, fusion: bool) -> None:
    waveforms = {
        "silent.wav": (np.zeros(8000), 8000),
        "ten_ms.flac": (tone(440, 0.01, 44100), 44100),
        "one_sample.wav": (np.array([0.5]), 16000),
        "stereo.ogg": (np.stack([tone(440, 0.5, 48000)] * 2, axis=1), 48000),
        "tone.mp3": (tone(440, 0.5, 22050), 22050),
        "ten_minutes.flac": (np.tile(tone(440, 1.0, 8000), 600), 8000),
    }
    audio = write_recordings(tmp_path / "audio", [{"file_name": name, "label": "tone"} for name in waveforms])
    for name, (waveform, rate) in waveforms.items():
        soundfile.write(audio / name, waveform, rate)
    clap = save_tiny_clap(tmp_path / "clap", fusion=fusion)
    report = build_knowledge_base(audio, tmp_path / "out", clap=clap, ast=encoders["ast"], max_seconds=5)
    assert (report.count, report.skipped) == (6, ())
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert knowledge_base.recording(5).seconds == 600
    assert knowledge_base.recording(1).seconds == pytest.approx(0.01)
    assert knowledge_base.audio_embeds(range(6)).isfinite().all()


def test_corrupt_files_are_skipped_and_listed(encoders: dict[str, Path], tmp_path: Path, built: Path) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS)
    # A whole shard and one more.
    for row, data in zip([2, 3, 6], [b"no audio", b"", None], strict=True):
        path = audio / ROWS[row]["file_name"]
        path.unlink() if data is None else path.write_bytes(data)
    report = build_knowledge_base(audio, tmp_path / "out", **encoders)
    assert report.count == 6
    names = [ROWS[row]["file_name"] for row in (2, 3, 6)]
    assert [identity for identity, _ in report.skipped] == names
    lines = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert lines == ["id,reason", *(f"{name},{reason}" for name, reason in report.skipped)]
    assert str(tmp_path) not in "".join(lines)
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert len(knowledge_base) == 6

    # What is skipped does not change the numbers of the others.
    everything = AudioBertKnowledgeBase.from_pretrained(built / "out")
    for i in range(6):
        j = recording_of(everything, knowledge_base.recording(i).id)
        np.testing.assert_array_equal(knowledge_base.index.reconstruct(i), everything.index.reconstruct(j))
        assert torch.equal(knowledge_base.audio_embeds([i]), everything.audio_embeds([j]))


def test_nothing_but_corrupt_files(encoders: dict[str, Path], tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS[:2])
    for row in ROWS[:2]:
        (audio / row["file_name"]).write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 2 recordings could be decoded.*empty"):
        build_knowledge_base(audio, tmp_path / "out", **encoders)
    assert not (tmp_path / "out").exists()


def test_only_some_sources(encoders: dict[str, Path], tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS)
    build_knowledge_base(audio, tmp_path / "out", sources=["A", "C"], **encoders)
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert [knowledge_base.recording(i).source for i in range(6)] == ["A", "C"] * 3
    with pytest.raises(ValueError, match=r"no recordings of the sources \['D'\]; it has \['A', 'B', 'C'\]"):
        build_knowledge_base(audio, tmp_path / "other", sources=["A", "D"], **encoders)


def test_a_resumed_build_gives_the_same_bytes(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS)
    (audio / ROWS[1]["file_name"]).write_bytes(b"no audio")
    build_knowledge_base(audio, tmp_path / "whole", **encoders)

    embed = building.AudioEncoders.__call__

    def cut_off(self: building.AudioEncoders, recording: building.SourceRecording) -> tuple:
        if recording.id == ROWS[5]["file_name"]:
            raise KeyboardInterrupt
        return embed(self, recording)

    with monkeypatch.context() as patch:
        patch.setattr(building.AudioEncoders, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            build_knowledge_base(audio, tmp_path / "resumed", **encoders)
    assert not (tmp_path / "resumed").exists()
    # A shard that the crash of a machine left incomplete is made again.
    shard = tmp_path / "resumed.partial" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:50])
    report = build_knowledge_base(audio, tmp_path / "resumed", **encoders)
    assert (report.count, report.resumed, len(report.skipped)) == (8, 2, 1)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")


def build_and_stop(report: Connection, audio: Path, out: Path, encoders: dict[str, Path]) -> None:
    """Builds in a process of its own; stands still at the sixth recording, when two shards are done."""
    # A thread pool is not forked with the process that made it.
    torch.set_num_threads(1)
    embed = building.AudioEncoders.__call__

    def stop(self: building.AudioEncoders, recording: building.SourceRecording) -> tuple:
        if recording.id == ROWS[5]["file_name"]:
            report.send("stopped")
            signal.pause()
        return embed(self, recording)

    building.AudioEncoders.__call__ = stop  # type: ignore[method-assign]
    build_knowledge_base(audio, out, **encoders)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_build_in_use_is_refused_and_a_killed_one_gives_the_same_bytes(
    encoders: dict[str, Path], built: Path, tmp_path: Path
) -> None:
    here, there = multiprocessing.Pipe()
    arguments = (there, built / "audio", tmp_path / "killed", encoders)
    process = multiprocessing.get_context("fork").Process(target=build_and_stop, args=arguments)
    process.start()
    try:
        assert here.poll(120) and here.recv() == "stopped"
        with pytest.raises(OSError, match="killed is being built by another process"):
            build_knowledge_base(built / "audio", tmp_path / "killed", **encoders)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    report = build_knowledge_base(built / "audio", tmp_path / "killed", **encoders)
    assert (report.resumed, report.count) == (4, 9)
    assert content(tmp_path / "killed") == content(built / "out")
    assert not (tmp_path / "killed.partial").exists()


def test_a_full_disk_keeps_what_was_done(encoders: dict[str, Path], built: Path, tmp_path: Path) -> None:
    for limit, message in ((300, "what was done before it is kept"), (4000, "")):
        with file_size_limit(limit), pytest.raises(OSError, match=message or None):
            build_knowledge_base(built / "audio", tmp_path / "out", **encoders)
        assert not (tmp_path / "out").exists()
    # The shards had fitted.
    report = build_knowledge_base(built / "audio", tmp_path / "out", **encoders)
    assert (report.resumed, report.count) == (9, 9)
    assert content(tmp_path / "out") == content(built / "out")


def test_what_cannot_be_embedded_is_skipped_and_listed(
    encoders: dict[str, Path], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = building.AudioEncoders.__call__

    def refuse(self: building.AudioEncoders, recording: building.SourceRecording) -> tuple:
        if recording.id == ROWS[5]["file_name"]:
            raise EmbeddingError(recording.id, "AST gives it an embedding that is not finite")
        return embed(self, recording)

    monkeypatch.setattr(building.AudioEncoders, "__call__", refuse)
    report = build_knowledge_base(built / "audio", tmp_path / "out", **encoders)
    assert report.count == 8
    assert report.skipped == ((ROWS[5]["file_name"], "AST gives it an embedding that is not finite"),)


def as_wav(waveform: np.ndarray, rate: int = 16000, subtype: str = "PCM_16", file_format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=file_format, subtype=subtype)
    return buffer.getvalue()


def test_no_single_recording_ends_a_build(encoders: dict[str, Path], tmp_path: Path) -> None:
    sound = tone(440, 1, 16000)
    wav, mp3 = as_wav(sound), as_wav(sound, subtype="MPEG_LAYER_III", file_format="MP3")
    rate = wav.index(b"fmt ") + 12
    bad = {
        "loud.wav": (as_wav(np.full(16000, 3e38), subtype="FLOAT"), "not finite"),
        "nan.wav": (as_wav(np.array([0.0, np.nan]), subtype="FLOAT"), "not finite"),
        "cut.wav": (wav[: len(wav) // 2], "truncated"),
        "cut.mp3": (mp3[: len(mp3) * 3 // 4], "truncated"),
        "headless.raw": (bytes(1000), "no header"),
        "empty.wav": (as_wav(np.zeros(0)), "no samples"),
        "0hz.wav": (wav[:rate] + bytes(4) + wav[rate + 4 :], "."),
        "1hz.wav": (wav[:rate] + b"\1\0\0\0" + wav[rate + 4 :], "sampling rate of 1 Hz"),
        "mute.wav": (wav[: rate - 2] + bytes(2) + wav[rate:], "."),
        "folder.wav": (None, "is a folder"),
    }
    names = ["good.wav", *bad, "other.wav"]
    audio = write_recordings(tmp_path / "audio", [{"file_name": f"{i}.wav", "label": "x"} for i in range(1)])
    (audio / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},x\n" for name in names))
    for name in ("good.wav", "other.wav"):
        (audio / name).write_bytes(wav)
    for name, (data, _) in bad.items():
        (audio / name).mkdir() if data is None else (audio / name).write_bytes(data)
    report = build_knowledge_base(audio, tmp_path / "out", **encoders)
    assert report.count == 2
    assert [name for name, _ in report.skipped] == list(bad)
    for name, reason in report.skipped:
        assert re.search(bad[name][1], reason), (name, reason)


@pytest.mark.parametrize("change", ["setting", "pooling", "audio", "metadata", "weights"])
def test_a_build_with_other_inputs_is_not_resumed(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(building, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_knowledge_base(audio, tmp_path / "out", **encoders)
    arguments = dict(encoders)
    if change == "setting":
        arguments["max_seconds"] = 0.3
    elif change == "pooling":
        arguments["pooling"] = "sounding"
    elif change == "audio":
        soundfile.write(audio / ROWS[4]["file_name"], tone(70, 0.5, 16000), 16000)
    elif change == "metadata":
        write_recordings(audio, [{**row, "license": "CC BY"} for row in ROWS])
    else:
        arguments["ast"] = save_tiny_ast(tmp_path / "tiny-ast", seed=1)
    with pytest.raises(ValueError, match=r"out.partial belongs to a build of other .* remove it"):
        build_knowledge_base(audio, tmp_path / "out", **arguments)


def test_an_existing_folder_is_left_alone(encoders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        build_knowledge_base(write_recordings(tmp_path / "audio", ROWS), tmp_path / "out", **encoders)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_what_cannot_become_a_knowledge_base_is_refused_before_the_work(
    encoders: dict[str, Path], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "AudioEncoders", None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "mine.txt").write_text("mine")
    refusals = {
        ".": "cannot become a knowledge base: name a new folder",
        "..": "cannot become a knowledge base: name a new folder",
        "/": "cannot become a knowledge base: name a new folder",
        str(tmp_path / "here"): "cannot become a knowledge base: name a new folder",
        str(tmp_path / "link"): "is a link",
        str(tmp_path / "file"): "is there already",
        str(tmp_path / "other"): "other.partial is there and no build left it",
    }
    before = content(tmp_path)
    for out, message in refusals.items():
        with pytest.raises((ValueError, FileExistsError), match=message):
            build_knowledge_base(built / "audio", out, **encoders)
    with pytest.raises(ValueError, match=r"`pooling` has to be one of \['mean', 'sounding'\], got 'max'"):
        build_knowledge_base(built / "audio", tmp_path / "out", **encoders, pooling="max")
    assert content(tmp_path) == before


def test_a_build_that_could_not_begin_leaves_nothing(built: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OSError):
        build_knowledge_base(built / "audio", tmp_path / "out", clap=tmp_path / "none", ast=encoders["ast"])
    assert not list(tmp_path.iterdir())


def test_a_revision_of_a_local_checkpoint(encoders: dict[str, Path], tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", ROWS[:1])
    with pytest.raises(ValueError, match="local file or folder; the revision 'v2'"):
        build_knowledge_base(audio, tmp_path / "out", **encoders, ast_revision="v2")


def as_dataset(audio: Path, rows: list[dict[str, str]], embed: bool) -> Dataset:
    def cell(row: dict[str, str]) -> dict[str, object]:
        path = audio / row["file_name"]
        return {"bytes": path.read_bytes(), "path": None} if embed else {"bytes": None, "path": str(path)}

    labels = ["high", "low"]
    columns = {
        "id": [row["file_name"] for row in rows],
        "sound": [cell(row) for row in rows],
        "label": [labels.index(row["label"]) for row in rows],
        "license": [row["license"] for row in rows],
    }
    dataset = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=labels))
    # Made of paths and bytes by a cast: `datasets` encodes audio by torchcodec alone.
    return dataset.cast_column("sound", Audio())


@pytest.mark.parametrize("embed", [True, False])
def test_a_dataset_gives_what_the_folder_gives(encoders: dict[str, Path], tmp_path: Path, embed: bool) -> None:
    rows = [{key: row[key] for key in ("file_name", "label", "license")} for row in ROWS[:4]]
    audio = write_recordings(tmp_path / "audio", rows)
    (audio / rows[2]["file_name"]).write_bytes(b"no audio")
    build_knowledge_base(audio, tmp_path / "folder", **encoders)
    build_knowledge_base(as_dataset(audio, rows, embed), tmp_path / "dataset", **encoders)
    assert content(tmp_path / "dataset") == content(tmp_path / "folder")


def test_rows_of_a_dataset_without_ids_and_audio(tmp_path: Path) -> None:
    rows = {"audio": [None, {"bytes": b"x", "path": None}], "caption": ["a dog barks", "rain"]}
    recordings = read_recordings(Dataset.from_dict(rows).cast_column("audio", Audio()))
    assert [(recording.id, recording.label, recording.open()) for recording in recordings] == [
        ("0", "a dog barks", b""),
        ("1", "rain", b"x"),
    ]


def test_datasets_that_cannot_be_read() -> None:
    dataset = Dataset.from_dict({"label": ["dog"]})
    with pytest.raises(TypeError, match=r"pass one of its splits \['test', 'train'\]"):
        read_recordings(DatasetDict({"train": dataset, "test": dataset}))
    with pytest.raises(ValueError, match="needs one Audio column"):
        read_recordings(dataset)
    with pytest.raises(TypeError, match="got int"):
        read_recordings([1, 2])
    audio = Dataset.from_dict(
        {"audio": [None], "name": ["dog"]}, features=Features({"audio": Audio(), "name": Value("string")})
    )
    with pytest.raises(ValueError, match="no column label or caption"):
        read_recordings(audio)


# --- several folders, measured, found by name, carrying CLAP ---------------------------------------------------------


def test_several_folders_make_one_knowledge_base(encoders: dict[str, Path], built: Path, tmp_path: Path) -> None:
    one = write_recordings(tmp_path / "one", ROWS[:3])
    more = [{**row, "file_name": f"more/{row['file_name']}"} for row in ROWS[3:5]]
    other = write_recordings(tmp_path / "other", more)
    build_knowledge_base([one, other], tmp_path / "out", without_sources=["B"], **encoders)
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    kept = [row for row in [*ROWS[:3], *more] if row["source"] != "B"]
    assert [knowledge_base.recording(i).id for i in range(3)] == [row["file_name"] for row in kept]
    everything = AudioBertKnowledgeBase.from_pretrained(built / "out")
    assert torch.equal(knowledge_base.audio_embeds([0]), everything.audio_embeds([0]))

    write_recordings(tmp_path / "double", ROWS[2:4])
    with pytest.raises(ValueError, match=r"double names the recording 'high/2.wav', as .*one does; every id"):
        build_knowledge_base([one, tmp_path / "double"], tmp_path / "refused", **encoders)
    with pytest.raises(ValueError, match=r"one, .*other has no recordings of the sources \['D'\]"):
        build_knowledge_base([one, other], tmp_path / "refused", without_sources=["D"], **encoders)
    with pytest.raises(ValueError, match="holds no recordings of these sources"):
        build_knowledge_base(one, tmp_path / "refused", without_sources=["A", "B", "C"], **encoders)
    assert not (tmp_path / "refused.partial").exists()


TOWER = ("config.json", "model.safetensors", "preprocessor_config.json")
MEASURED_ROWS = [
    {"file_name": "noted.wav", "label": "horn", "pitch_note": "A4"},
    {"file_name": "tone.wav", "label": "tone", "pitch_note": ""},
    {"file_name": "silent.wav", "label": "nothing", "pitch_note": ""},
]


@pytest.fixture(scope="module")
def measurable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recordings(tmp_path_factory.mktemp("measurable") / "audio", MEASURED_ROWS)
    soundfile.write(folder / "silent.wav", np.zeros(8000), 16000)
    return folder


def test_a_measured_knowledge_base_says_how_its_recordings_sound(
    encoders: dict[str, Path], measurable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_knowledge_base(measurable, tmp_path / "out", measure=True, **encoders)
    noted, measured, silent = (
        AudioBertKnowledgeBase.from_pretrained(tmp_path / "out").recording(row) for row in range(3)
    )
    assert noted.pitch_hz == 440
    assert measured.pitch_hz == pytest.approx(600, rel=0.01)
    assert (silent.pitch_hz, silent.voiced_seconds, silent.brightness_hz) == (None, 0, None)
    assert measured.brightness_hz == pytest.approx(600, rel=0.1)

    # Cut off within the second shard, it goes on to the same bytes; and not with other settings.
    embed = building.AudioEncoders.__call__

    def cut_off(self: building.AudioEncoders, recording: building.SourceRecording) -> tuple:
        if recording.id == "silent.wav":
            raise KeyboardInterrupt
        return embed(self, recording)

    with monkeypatch.context() as patch:
        patch.setattr(building.AudioEncoders, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            build_knowledge_base(measurable, tmp_path / "resumed", measure=True, **encoders)
    with pytest.raises(ValueError, match="other recordings, encoders or settings"):
        build_knowledge_base(measurable, tmp_path / "resumed", **encoders)
    assert build_knowledge_base(measurable, tmp_path / "resumed", measure=True, **encoders).resumed == 2
    assert content(tmp_path / "resumed") == content(tmp_path / "out")


def test_what_is_not_measured_is_not_in_it(built: Path) -> None:
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(built / "out")
    assert knowledge_base.metadata.column_names == ["id", "label", "source", "license", "seconds"]
    assert knowledge_base.recording(0).pitch_hz is None


def test_a_note_that_is_none_is_told_before_the_work(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = write_recordings(tmp_path / "audio", [{"file_name": "a.wav", "label": "horn", "pitch_note": "H4"}])
    with monkeypatch.context() as patch:
        patch.setattr(building, "AudioEncoders", None)
        with pytest.raises(ValueError, match="pitch_note of the recording 'a.wav': 'H4' is no note"):
            build_knowledge_base(audio, tmp_path / "out", measure=True, **encoders)
    # Who measures nothing needs no note.
    assert build_knowledge_base(audio, tmp_path / "out", **encoders).count == 1


def test_built_to_be_found_by_name_and_to_grow(encoders: dict[str, Path], built: Path, tmp_path: Path) -> None:
    build_knowledge_base(built / "audio", tmp_path / "out", retrieval="both", carry_clap=True, **encoders)
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert knowledge_base.config.retrieval == "both"
    assert knowledge_base.label_vectors.labels == ("high", "low")
    assert knowledge_base.audio_encoder().width == 8
    # All else is as it is without.
    more = {"config.json", "label_vectors.safetensors", *(f"audio_encoder/{name}" for name in TOWER)}
    assert {name: data for name, data in content(tmp_path / "out").items() if name not in more} == {
        name: data for name, data in content(built / "out").items() if name != "config.json"
    }
    with pytest.raises(ValueError, match=r"one of \['audio', 'label', 'both'\]"):
        build_knowledge_base(built / "audio", tmp_path / "other", retrieval="name", **encoders)
    with pytest.raises(ValueError, match="someone/clap is a checkpoint of the Hub"):
        build_knowledge_base(
            built / "audio", tmp_path / "other", clap="someone/clap", ast=encoders["ast"], carry_clap=True
        )


def test_a_clap_that_does_not_tell_texts_apart_is_refused_by_name(
    encoders: dict[str, Path], built: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(encoders["clap"], tmp_path / "larger_clap_music")
    clap = ClapModel.from_pretrained(folder)
    # So small that the bias is all that is left, as in the checkpoint on the Hub.
    clap.text_projection.linear1.weight.data.mul_(1e-4)
    clap.text_projection.linear1.bias.data.fill_(1.0)
    clap.save_pretrained(folder)
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"CLAP larger_clap_music does not tell texts apart: 20 .* cosine of 1\.000"):
        build_knowledge_base(built / "audio", tmp_path / "out", clap=folder, ast=encoders["ast"])
    assert sorted(tmp_path.rglob("*")) == there
    report = build_knowledge_base(
        built / "audio", tmp_path / "out", clap=folder, ast=encoders["ast"], untrained_clap=True
    )
    assert report.folder.is_dir()
