"""A run keeps its settings, goes on where it stopped with all that it learned, and leaves what can be uploaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from audiobert import AudioBertForMaskedLM
from audiobert.listening.held_out import HeldOut
from audiobert.training.adapter import AUDIO_MODES, audiobert_arguments, audiobert_settings, train_audiobert
from audiobert.training.arguments import recipe_arguments
from audiobert.training.detector import detector_arguments, train_detector
from audiobert.training.trainer import is_whole, save_run
from audiobert.training.viewings import NOT_LISTENING, Listening

from audio_fixtures import with_pitch

QUICK = {"batch_size": 2, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "learning_rate": 0.02}
RECIPES = ["cached", "trained", "none", "detector", "listening", "listening detector"]
HELD_OUT = HeldOut(0, ("viola",), ())


def train(
    recipe: str, model: AudioBertForMaskedLM, data: DatasetDict, out: Path, audio_dir: Path, **values: object
) -> dict[str, float]:
    values = {"num_train_epochs": 3, **QUICK, **values}
    listening = NOT_LISTENING
    if recipe.startswith("listening"):
        model.set_knowledge_base(with_pitch(model.knowledge_base))
        is_heard = recipe == "listening"
        listening = Listening(0.5, HELD_OUT, vary_recordings=is_heard, audio_dropout=0.3 * is_heard)
    if recipe.endswith("detector"):
        return train_detector(model, data, detector_arguments(out, **values), listening)
    args, audio = audiobert_arguments(out, **values), recipe if recipe in AUDIO_MODES else "cached"
    return train_audiobert(model, data, args, audio, audio_dir if audio == "trained" else None, listening=listening)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    recipe: str, start: Path, data: DatasetDict, audio_dir: Path, tmp_path: Path, stopping: Callable
) -> None:
    def new() -> AudioBertForMaskedLM:
        return AudioBertForMaskedLM.from_pretrained(start)

    untrained, straight, stopped, resumed = new(), new(), new(), new()
    scores = train(recipe, straight, data, tmp_path / "straight", audio_dir)
    with stopping(1.0):
        train(recipe, stopped, data, tmp_path / "stopped", audio_dir)
    assert train(recipe, resumed, data, tmp_path / "stopped", audio_dir) == scores
    learned = changed(untrained.state_dict(), straight.state_dict())
    assert any(name.startswith("audio_model.") for name in learned) == (recipe == "trained")
    assert changed(straight.state_dict(), resumed.state_dict()) == set()
    assert torch.equal(straight.knowledge_base.audio_embeddings, resumed.knowledge_base.audio_embeddings)


@pytest.mark.parametrize("recipe", ["listening", "listening detector"])
def test_a_run_that_goes_on_in_the_middle_of_an_epoch_ends_in_the_same_bytes(
    recipe: str, start: Path, data: DatasetDict, tmp_path: Path, stopping: Callable
) -> None:
    straight, stopped, resumed = (AudioBertForMaskedLM.from_pretrained(start) for _ in range(3))
    often = {"num_train_epochs": 2, "save_strategy": "steps", "eval_strategy": "no"}
    train(recipe, straight, data, tmp_path / "straight", Path(), save_steps=1, save_total_limit=None, **often)
    steps = len(list((tmp_path / "straight" / "checkpoints").iterdir())) // 2
    # In the second epoch, whose rows are not those of the first.
    with stopping(1 + 1 / steps):
        train(recipe, stopped, data, tmp_path / "stopped", Path(), save_steps=1, **often)
    train(recipe, resumed, data, tmp_path / "stopped", Path(), save_steps=1, **often)
    assert steps > 1 and changed(straight.state_dict(), resumed.state_dict()) == set()


def test_workers_that_never_hear_of_a_new_epoch_are_refused(
    model: AudioBertForMaskedLM, data: DatasetDict, tmp_path: Path
) -> None:
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    with pytest.raises(ValueError, match="`dataloader_persistent_workers` keeps workers"):
        train("listening", model, data, tmp_path, Path(), **workers)


def test_the_best_weights_hold_the_trained_encoder(
    model: AudioBertForMaskedLM, data: DatasetDict, audio_dir: Path, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # The greatest loss is to count as the best, so that it is not the last weights that are taken.
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    train("trained", model, data, tmp_path, audio_dir, **best)
    # Of nine steps; the best is kept, the last one is not. Which is best depends on the release of torch.
    assert newest(tmp_path).name in ("checkpoint-3", "checkpoint-6")
    stored = load_file(newest(tmp_path) / "trained.safetensors")
    assert changed(stored, model.state_dict()) == set()
    assert any(name.startswith("audio_model.") for name in changed(stored, before))


@pytest.fixture(scope="module")
def straight(start: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A run with all of its checkpoints, and what it ended in."""
    out, model = tmp_path_factory.mktemp("straight"), AudioBertForMaskedLM.from_pretrained(start)
    scores = train("cached", model, data, out, Path(), save_total_limit=None)
    return {"out": out, "weights": model.state_dict(), "scores": scores}


@pytest.fixture
def begun(straight: dict, tmp_path: Path) -> Path:
    """A copy of the run's folder in which its third epoch was not reached."""
    out = tmp_path / "begun"
    shutil.copytree(straight["out"], out)
    shutil.rmtree(newest(out))
    return out


def newest(out: Path) -> Path:
    return max((out / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: cut(folder / "trainer_state.json"),
        lambda folder: cut(folder / "trained.safetensors"),
        lambda folder: (folder / "trained.safetensors").unlink(),
        lambda folder: cut(folder / "optimizer.pt"),
        lambda folder: (folder / "scheduler.pt").write_bytes(b""),
        lambda folder: cut(folder / "rng_state.pth"),
    ],
    ids=["no state", "half a state", "half the weights", "no weights", "half the optimizer", "empty", "half the draws"],
)
def test_a_half_written_checkpoint_is_told_from_a_whole_one(damage: Callable, straight: dict, tmp_path: Path) -> None:
    shutil.copytree(newest(straight["out"]), tmp_path / "checkpoint-9")
    assert is_whole(tmp_path / "checkpoint-9")
    damage(tmp_path / "checkpoint-9")
    assert not is_whole(tmp_path / "checkpoint-9")


def test_a_half_written_checkpoint_is_passed_over(
    begun: Path, straight: dict, model: AudioBertForMaskedLM, data: DatasetDict, caplog: pytest.LogCaptureFixture
) -> None:
    last = newest(begun)
    cut(last / "trained.safetensors")
    train("cached", model, data, begun, Path())
    assert f"{last} was not written to its end" in caplog.text
    assert "going on from" in caplog.text and "checkpoint-3" in caplog.text
    assert changed(straight["weights"], model.state_dict()) == set()


def test_where_no_checkpoint_is_whole_it_begins_anew_and_says_so(
    begun: Path, straight: dict, model: AudioBertForMaskedLM, data: DatasetDict, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in (begun / "checkpoints").iterdir():
        (folder / "trainer_state.json").unlink()
    train("cached", model, data, begun, Path())
    assert "going on from the start, as no checkpoint is whole" in caplog.text
    assert changed(straight["weights"], model.state_dict()) == set()


@pytest.mark.parametrize("amiss", ["missing", "unexpected", "another shape"])
def test_weights_that_are_not_those_that_are_trained_are_an_error(
    amiss: str, begun: Path, model: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    path = newest(begun) / "trained.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "lora_A" in name)
    if amiss == "unexpected":
        weights["extra"] = torch.zeros(1)
    else:
        weights[name] = weights.pop(name)[:1].clone()
        if amiss == "missing":
            del weights[name]
    save_file(weights, path)
    with pytest.raises(ValueError, match="is not what this run trains"):
        train("cached", model, data, begun, Path())


def test_checkpoints_hold_what_is_trained(straight: dict) -> None:
    folder = newest(straight["out"])
    files = {path.name for path in folder.iterdir()}
    assert files == {"trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    parts = {"lora" if "lora_" in name else name.split(".")[0] for name in load_file(folder / "trained.safetensors")}
    assert parts == {"lora", "audio_projection"}


def test_checkpoints_from_which_no_run_could_go_on_are_refused(
    model: AudioBertForMaskedLM, data: DatasetDict, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="`save_only_model`"):
        train("none", model, data, tmp_path, Path(), save_only_model=True)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, r"arguments\.seed 42, now 7"),
        ({"learning_rate": 0.5}, r"arguments\.learning_rate 0\.02, now 0\.5"),
        ({"batch_size": 1}, r"arguments\.batch_size 2, now 1"),
        ({"num_train_epochs": 9}, r"arguments\.num_train_epochs 3, now 9"),
        ({"hearing": "random"}, 'hearing "retrieved", now "random"'),
        ({"audio": "none"}, 'audio "cached", now "none"'),
        ({"listening": Listening(audio_dropout=0.1)}, r"listening\.audio_dropout 0\.0, now 0\.1"),
        ({"rows": 4}, r"data\.train \w{12}, now \w{12}"),
        ({"weights": 1.0}, r"model \w{12}, now \w{12}"),
        ({"sounds": 11}, r"knowledge_base \w{12}, now \w{12}"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_training_into_the_same_folder_is_refused(
    change: dict, message: str, straight: dict, model: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    change = dict(change)
    how = {"audio": change.pop("audio", "cached"), "hearing": change.pop("hearing", "retrieved")}
    how["listening"] = change.pop("listening", NOT_LISTENING)
    if rows := change.pop("rows", None):
        data = DatasetDict({**data, "train": data["train"].select(range(rows))})
    if value := change.pop("weights", None):
        torch.nn.init.constant_(model.audio_projection.bias, value)
    if count := change.pop("sounds", None):
        model.set_knowledge_base(model.knowledge_base.subset(range(count)))
    args = audiobert_arguments(straight["out"], **{"num_train_epochs": 3, **QUICK, **change})
    with pytest.raises(ValueError, match=message) as raised:
        train_audiobert(model, data, args, **how)
    assert "Name another folder" in str(raised.value)


def test_the_recipes_are_not_taken_for_each_other(
    straight: dict, model: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    with pytest.raises(ValueError, match='recipe "audiobert", now "detector"'):
        train("detector", model, data, straight["out"], Path())


def test_where_things_lie_and_how_often_a_run_is_saved_make_no_difference(
    start: Path, model: AudioBertForMaskedLM, data: DatasetDict, audio_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(start, tmp_path / "copied model")
    shutil.copytree(audio_dir, tmp_path / "copied audio")
    copied = AudioBertForMaskedLM.from_pretrained(tmp_path / "copied model")
    args = audiobert_arguments(tmp_path / "one", **QUICK)
    others = audiobert_arguments(tmp_path / "other", **QUICK, save_total_limit=5, dataloader_num_workers=1)
    settings = audiobert_settings(model, data, args, "trained", audio_dir)
    assert settings == audiobert_settings(copied, data, others, "trained", tmp_path / "copied audio")
    assert str(tmp_path) not in json.dumps(settings)
    (tmp_path / "copied audio" / "sounds" / "3.ogg").write_bytes(b"changed")
    changed = audiobert_settings(copied, data, others, "trained", tmp_path / "copied audio")
    assert {name for name in settings if settings[name] != changed[name]} == {"recordings"}


def test_checkpoints_of_unknown_settings_are_refused(
    begun: Path, model: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    (begun / "training.json").unlink()
    with pytest.raises(ValueError, match=r"no training\.json .* says how they were made: remove .*checkpoints"):
        train("cached", model, data, begun, Path())


def test_a_finished_run_is_not_trained_again(
    straight: dict, begun: Path, model: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    args = audiobert_arguments(begun, **{"num_train_epochs": 3, **QUICK})
    save_run(args, straight["scores"], model)
    # No checkpoint, no pickle, no settings that are not the model's own.
    files = {path.name for path in begun.iterdir() if path.is_file()}
    assert not {name for name in files if name.endswith((".pt", ".pth", ".bin"))}
    assert {path.name for path in begun.iterdir() if path.is_dir()} == {"knowledge_base"}
    assert {"model.safetensors", "config.json", "training.json", "scores.json"} <= files
    with pytest.raises(ValueError, match="holds the finished model of these settings"):
        train("cached", AudioBertForMaskedLM.from_pretrained(begun), data, begun, Path())


# --- the batch -------------------------------------------------------------------------------------------------------


def test_the_batch_is_shared_by_the_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", 4)
    assert recipe_arguments(tmp_path, 32, use_cpu=True).per_device_train_batch_size == 8
    half = recipe_arguments(tmp_path, 32, use_cpu=True, gradient_accumulation_steps=2)
    assert half.per_device_train_batch_size == 4
    with pytest.raises(ValueError, match="A batch of 6 rows cannot be shared evenly by 4"):
        recipe_arguments(tmp_path, 6, use_cpu=True)


def test_scores_are_no_runtimes(straight: dict) -> None:
    assert {"eval_loss", "eval_accuracy", "eval_animal_accuracy", "eval_pitch_accuracy"} <= set(straight["scores"])
    assert not [name for name in straight["scores"] if "runtime" in name or "per_second" in name or "epoch" in name]
