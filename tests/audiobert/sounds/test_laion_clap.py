"""Checkpoints of laion-clap: the same embeddings, and no line of what is in them is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from laion_fixtures import RATE, TEXTS, checkpoint_of, sounds
from typer.testing import CliRunner

from audiobert.cli import app
from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase
from audiobert.sounds.building import build_knowledge_base
from audiobert.sounds.encoders import Clap
from audiobert.sounds.features import clap_features
from audiobert.sounds.laion_clap import TEXT_LENGTH, load_laion_clap

from audio_fixtures import save_tiny_ast, tell_texts_apart, tiny_tokenizer, write_recordings

# What laion-clap 1.1.7 makes of tiny models with random weights, see `laion_clap_parity.py`.
FIXTURE = json.loads(Path(__file__).with_name("laion_clap.json").read_text(encoding="utf-8"))
KINDS = ("fused", "plain")


def is_of_fusion(name: str) -> bool:
    return "fusion_model" in name or "mel_conv" in name


@cache
def state_dict(kind: str) -> dict[str, torch.Tensor]:
    filters = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=64, fmin=50, fmax=14000).T
    shapes = {name: shape for name, shape in FIXTURE["shapes"].items() if kind == "fused" or not is_of_fusion(name)}
    return checkpoint_of(shapes, filters)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint as laion-clap's training does, and the tokenizer beside it."""

    def write(kind: str = "plain", name: str = "630k-best.pt", apart: bool = False) -> Path:
        place = tmp_path / "laion"
        place.mkdir(exist_ok=True)
        weights = {f"module.{key}": value.clone() for key, value in state_dict(kind).items()}
        if apart:
            tell_texts_apart((key, value) for key, value in weights.items() if "text_branch" in key)
        torch.save({"epoch": 3, "name": "run", "state_dict": weights, "optimizer": {}}, place / name)
        tiny_tokenizer().save_pretrained(place)
        return place / name

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_are_those_of_laion_clap(kind: str, save: Callable[..., Path], tmp_path: Path) -> None:
    towers = Clap.from_pretrained(save(kind), None, {})
    expected = FIXTURE["expected"][kind]
    for name, waveform in sounds().items():
        soundfile.write(tmp_path / f"{name}.wav", waveform, RATE, subtype="FLOAT")
        features = clap_features(towers.audio.extractor, str(tmp_path / f"{name}.wav"), name)
        assert features["is_longer"].tolist() == [name == "long"]
        # Crops of long recordings are random: of another seed there.
        np.random.seed(0)
        again = towers.audio.extractor(waveform, sampling_rate=RATE)["input_features"][0]
        found = towers.audio(
            {
                "input_features": torch.from_numpy(np.asarray(again, dtype=np.float32))[None],
                "is_longer": torch.from_numpy(features["is_longer"])[None],
            }
        )
        np.testing.assert_allclose(found[0].numpy(), expected[name], atol=1e-5)
    for number, tokens in enumerate(TEXTS):
        ids = torch.tensor([tokens])
        vector = towers.text.model(input_ids=ids, attention_mask=torch.ones_like(ids)).text_embeds[0]
        found = torch.nn.functional.normalize(vector, dim=-1)
        np.testing.assert_allclose(found.numpy(), expected[f"text {number}"], atol=1e-5)


def test_a_knowledge_base_is_built_by_it_and_carries_its_towers(save: Callable[..., Path], tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", [{"file_name": f"{n}.wav", "label": n} for n in ("dog", "cat")])
    checkpoint, ast = save(apart=True), save_tiny_ast(tmp_path / "ast")
    command = ["build-knowledge-base", str(audio), str(tmp_path / "out"), "--ast", str(ast), "--carry-clap"]
    result = CliRunner().invoke(app, [*command, "--clap", str(checkpoint)])
    assert result.exit_code == 0, result.output
    towers = Clap.from_pretrained(checkpoint, None, {})
    # What it was made of is not needed any more.
    checkpoint.unlink()
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert knowledge_base.config.clap.name == "630k-best.pt"
    np.testing.assert_array_equal(knowledge_base.query_encoder("dog sound"), towers.text("dog sound"))
    assert knowledge_base.query_encoder.max_length == TEXT_LENGTH
    heard = clap_features(towers.audio.extractor, str(audio / "dog.wav"), "dog.wav")
    batch = {name: torch.from_numpy(value)[None] for name, value in heard.items()}
    carried = knowledge_base.audio_encoder()
    assert carried.extractor.to_dict() == towers.audio.extractor.to_dict()
    torch.testing.assert_close(carried(batch), towers.audio(batch), rtol=0, atol=0)
    torch.testing.assert_close(knowledge_base.index.reconstruct(0), carried(batch)[0].numpy(), rtol=0, atol=1e-6)


def test_a_folder_holds_one_checkpoint(save: Callable[..., Path]) -> None:
    checkpoint = save()
    model, _, _ = load_laion_clap(checkpoint.parent)
    assert Clap.from_pretrained(checkpoint.parent, None, {}).reference.name == "630k-best.pt"
    save(name="630k-fusion-best.pt")
    with pytest.raises(ValueError, match="holds 2 checkpoints.*630k-fusion-best.pt.*name one"):
        load_laion_clap(checkpoint.parent)
    with pytest.raises(ValueError, match="local file or folder; the revision"):
        Clap.from_pretrained(checkpoint, "main", {})
    with pytest.raises(FileNotFoundError, match="none.pt is not there"):
        Clap.from_pretrained(checkpoint.with_name("none.pt"), None, {})
    # A folder of transformers, as one that was trained in, is none of them.
    (checkpoint.parent / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no checkpoint of laion-clap"):
        load_laion_clap(checkpoint.parent)


def test_what_was_read_is_saved_as_transformers_would(save: Callable[..., Path], tmp_path: Path) -> None:
    for part in load_laion_clap(save("fused")):
        part.save_pretrained(tmp_path / "converted")
    there, here = (Clap.from_pretrained(tmp_path / name, None, {}) for name in ("converted", "laion"))
    np.testing.assert_array_equal(there.text("dog"), here.text("dog"))
    assert there.audio.extractor.to_dict() == here.audio.extractor.to_dict()
    for name, value in here.audio.model.state_dict().items():
        torch.testing.assert_close(there.audio.model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_or_not_decides_what_is_heard(kind: str, save: Callable[..., Path]) -> None:
    _, extractor, _ = load_laion_clap(save(kind))
    assert extractor.truncation == {"fused": "fusion", "plain": "rand_trunc"}[kind]


def test_numbers_of_numpy_in_the_optimizer_are_passed_over(save: Callable[..., Path], tmp_path: Path) -> None:
    content = torch.load(save(), weights_only=True)
    content["optimizer"] = {"param_groups": [{"lr": np.float64(0.5), "step": np.int64(2)}]}
    torch.save(content, tmp_path / "numpy.pt")
    # As NumPy 1 names them, with which the published checkpoints were written.
    with (
        zipfile.ZipFile(tmp_path / "numpy.pt") as new,
        zipfile.ZipFile(tmp_path / "laion" / "630k-best.pt", "w") as old,
    ):
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"cnumpy._core.", b"cnumpy.core."))
    before = torch.serialization.get_safe_globals()
    for place in (tmp_path / "laion" / "630k-best.pt", tmp_path / "numpy.pt"):
        place.rename(tmp_path / "laion" / "630k-best.pt")
        model, _, _ = load_laion_clap(tmp_path / "laion")
        assert model.config.projection_dim == 32
    assert torch.serialization.get_safe_globals() == before


class Hostile:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


def damage(checkpoint: Path, how: str) -> None:
    """Makes a checkpoint one that cannot be used."""
    traces = checkpoint.with_name("was_run")
    if how == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    elif how == "empty":
        checkpoint.write_bytes(b"")
    elif how == "runs code":
        torch.save({"state_dict": {"weight": Hostile(traces)}}, checkpoint)
    elif how == "runs code as a plain pickle":
        checkpoint.write_bytes(pickle.dumps(Hostile(traces)))
    elif how == "runs code by NumPy's name":
        torch.save({"state_dict": {}, "optimizer": [np.float64(1), Hostile(traces)]}, checkpoint)
    elif how == "no weights":
        torch.save(["a", "list"], checkpoint)
    elif how == "another model":
        torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, checkpoint)
    else:
        content = torch.load(checkpoint, weights_only=True)
        weights = content["state_dict"]
        if how == "a weight is missing":
            del weights["module.audio_branch.layers.1.blocks.1.mlp.fc2.bias"]
        elif how == "a weight is too much":
            weights["module.audio_branch.absolute_pos_embed"] = torch.zeros(1, 4)
        elif how == "a weight is of another shape":
            weights["module.text_projection.0.bias"] = torch.zeros(3)
        elif how == "other frequencies":
            weights["module.audio_branch.logmel_extractor.melW"] = torch.rand(513, 64)
        torch.save(content, checkpoint)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated", "cannot be read as weights: it is damaged"),
        ("empty", "cannot be read as weights: it is damaged"),
        ("runs code", "would have to be run, which was not done .*open"),
        ("runs code as a plain pickle", "would have to be run, which was not done"),
        ("runs code by NumPy's name", "would have to be run, which was not done .*open"),
        ("no weights", "no weights by their names"),
        ("another model", "another model than laion-clap's.*it lacks 'text_branch"),
        ("a weight is missing", "another model.*layers.1.blocks.1.output.dense.bias"),
        ("a weight is too much", "another model.*absolute_pos_embed"),
        ("a weight is of another shape", "another model.*text_projection.linear1.bias"),
        ("other frequencies", "another model.*other frequencies than 50 to 14000 Hz"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_not_run(
    how: str, told: str, save: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = save()
    damage(checkpoint, how)
    audio = write_recordings(tmp_path / "audio", [{"file_name": "dog.wav", "label": "dog"}])
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=told) as raised:
        build_knowledge_base(audio, tmp_path / "out", clap=checkpoint, ast=tmp_path / "none")
    assert str(checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == there


def test_the_hostile_files_of_these_tests_would_run(save: Callable[..., Path]) -> None:
    checkpoint = save()
    damage(checkpoint, "runs code")
    torch.load(checkpoint, weights_only=False)
    assert checkpoint.with_name("was_run").exists()


def test_the_tokenizer_is_that_of_the_text_branch(save: Callable[..., Path]) -> None:
    checkpoint = save()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(checkpoint.parent)
    with pytest.raises(ValueError, match="has 20 entries where the text branch .* has 19.*another model"):
        load_laion_clap(checkpoint)
    for file in checkpoint.parent.iterdir():
        if file != checkpoint:
            file.unlink()
    with pytest.raises(OSError, match="put its tokenizer.json beside the checkpoint"):
        load_laion_clap(checkpoint, local_files_only=True)
