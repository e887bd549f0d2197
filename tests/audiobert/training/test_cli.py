"""The training commands, as a user types them twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from audiobert import AudioBertForMaskedLM
from audiobert.cli import app
from audiobert.listening.held_out import HELD_OUT_FILE, HeldOut

from audio_fixtures import PITCHED_LABELS, save_tiny_ast, with_pitch, write_recordings
from model_fixtures import hearing_audiobert, original_bert

runner = CliRunner()


def said(result: Result) -> str:
    return " ".join(result.output.split())


def run(*arguments: object) -> Result:
    return runner.invoke(app, [*map(str, arguments), "--max-steps", "2", "--batch-size", "2"])


@pytest.fixture(scope="module")
def trained(start: Path, bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    result = run("train", out, "--model", start, "--data", bench)
    assert result.exit_code == 0, result.output
    return out


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_a_training_leaves_what_can_be_uploaded(trained: Path) -> None:
    assert {path.name for path in trained.iterdir() if path.is_dir()} == {"knowledge_base"}
    assert not [path for path in trained.rglob("*") if path.suffix in (".pt", ".pth", ".bin")]
    scores = json.loads((trained / "scores.json").read_text())
    assert set(scores) == {"eval_loss", "eval_accuracy", "eval_animal_accuracy", "eval_pitch_accuracy"}


def test_the_same_training_again_says_that_it_is_done(trained: Path, start: Path, bench: Path) -> None:
    before = weights(trained)
    result = run("train", trained, "--model", start, "--data", bench)
    assert result.exit_code == 0, result.output
    assert "nothing is left to do" in said(result)
    assert "pitch_accuracy" in result.output
    assert weights(trained) == before and not (trained / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "1"], "arguments.seed 0, now 1"),
        (["--audio", "none"], 'audio "cached", now "none"'),
        (["--hearing", "random"], 'hearing "retrieved", now "random"'),
        (["--learning-rate", "0.5"], "arguments.learning_rate 0.0003, now 0.5"),
    ],
    ids=["seed", "audio", "hearing", "rate"],
)
def test_another_training_into_its_folder_is_refused(
    options: list[str], message: str, trained: Path, start: Path, bench: Path
) -> None:
    before = weights(trained)
    result = run("train", trained, "--model", start, "--data", bench, *options)
    assert result.exit_code == 1
    assert message in said(result) and "Name another folder" in said(result)
    assert weights(trained) == before


def test_clap_is_not_trained_again_with_other_recordings(clap_folder: Path, tmp_path: Path) -> None:
    rows = [{"file_name": f"{number}.wav", "label": ("dog", "cat")[number % 2]} for number in range(6)]
    one, other = (write_recordings(tmp_path / name, rows, pitch) for name, pitch in (("one", 300.0), ("other", 500.0)))
    arguments = (tmp_path / "out", "--clap", clap_folder)
    assert run("train-clap", one, *arguments).exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == set()
    assert "nothing is left to do" in said(run("train-clap", one, *arguments))
    result = run("train-clap", other, *arguments)
    assert result.exit_code == 1 and "data.train.recordings" in said(result)


def test_what_starts_at_random_starts_from_the_seed(bench: Path, tmp_path: Path) -> None:
    audiobert = hearing_audiobert()
    original_bert(audiobert).save_pretrained(tmp_path / "bert")
    audiobert.tokenizer.save_pretrained(tmp_path / "bert")
    save_tiny_ast(tmp_path / "ast")
    options = ("--bert", tmp_path / "bert", "--ast", tmp_path / "ast", "--data", bench)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        result = run("train-detector", tmp_path / name, *options, "--seed", seed)
        assert result.exit_code == 0, result.output
    assert weights(tmp_path / "one") == weights(tmp_path / "same") != weights(tmp_path / "other")


def test_a_folder_that_holds_something_else_is_refused(start: Path, bench: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out, message in ((tmp_path / "file", "is a file"), (tmp_path, "is not empty"), (start, "is not empty")):
        result = run("train", out, "--model", start, "--data", bench)
        assert result.exit_code == 1 and message in said(result)


def test_recordings_that_are_missing_are_found_before_the_training(
    start: Path, bench: Path, audio_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "audio" / "sounds").mkdir(parents=True)
    for number in range(5):
        name = f"sounds/{number}.ogg"
        (tmp_path / "audio" / name).write_bytes((audio_dir / name).read_bytes())
    options = ("--model", start, "--data", bench, "--audio", "trained", "--audio-dir", tmp_path / "audio")
    result = run("train", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "lacks 7 of the knowledge base's 12 recordings: sounds/5.ogg, sounds/6.ogg" in said(result)
    assert not (tmp_path / "out").exists()


# --- listening -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pitched(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `start`, over recordings of instruments whose pitch is known."""
    model = AudioBertForMaskedLM.from_pretrained(start)
    model.set_knowledge_base(with_pitch(model.knowledge_base))
    model.save_pretrained(folder := tmp_path_factory.mktemp("pitched"))
    return folder


@pytest.mark.parametrize("command", ["train", "train-detector"])
def test_what_a_listener_never_heard_travels_with_it(command: str, pitched: Path, bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(command, out, "--model", pitched, "--data", bench, "--listen", "0.5")
    assert result.exit_code == 0, result.output
    assert "No row hears 1 labels" in said(result)
    kept = HeldOut.load(out / HELD_OUT_FILE, AudioBertForMaskedLM.from_pretrained(out).knowledge_base)
    assert set(kept.labels) < set(PITCHED_LABELS)
    refused = run(command, out, "--model", pitched, "--data", bench, "--listen", "0.6")
    assert refused.exit_code == 1 and "listening.share 0.5, now 0.6" in said(refused)
    # What goes on from it, listening or not, does not hear it either.
    after = run("train", tmp_path / "after", "--model", out, "--data", bench)
    assert after.exit_code == 0 and f"No row hears what {out / HELD_OUT_FILE} holds out." in said(after)
    assert (tmp_path / "after" / HELD_OUT_FILE).read_bytes() == (out / HELD_OUT_FILE).read_bytes()


def test_a_listener_needs_pitches(start: Path, bench: Path, tmp_path: Path) -> None:
    result = run("train", tmp_path / "out", "--model", start, "--data", bench, "--listen", "0.5")
    assert result.exit_code == 1
    assert "build-knowledge-base --measure" in said(result)
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_a_list_of_another_knowledge_base_is_refused(pitched: Path, bench: Path, tmp_path: Path) -> None:
    HeldOut(0, ("bassoon",), ()).save(tmp_path / "held_out.json")
    options = ("--listen", "0.5", "--held-out", tmp_path / "held_out.json")
    result = run("train", tmp_path / "out", "--model", pitched, "--data", bench, *options)
    assert result.exit_code == 1
    assert "not in the knowledge base: bassoon" in said(result)
