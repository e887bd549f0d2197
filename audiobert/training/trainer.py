"""
The Trainer of the recipes: checkpoints hold what is trained, a folder is one run's, and half a checkpoint is none.

A run lives in a folder OUT: `training.json` says with what it is made, `checkpoints/` is where it goes on from if it is
stopped, and when it has ended the model and `scores.json` lie there in the place of the checkpoints.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..files import as_json, differing_settings, read_settings, settle_settings, whole_file
from ..modeling import AudioBertForMaskedLM
from .arguments import CHECKPOINTS_FOLDER

logger = logging.getLogger(__name__)

SETTINGS_FILE = "training.json"
SCORES_FILE = "scores.json"

_WEIGHTS_FILE = "trained.safetensors"
_STATE_FILE = "trainer_state.json"
# What `Trainer.evaluate` measures of itself.
_NO_SCORES = ("_runtime", "_per_second", "_preparation_time", "_compilation_time")


class RecipeTrainer(Trainer):
    """
    A `Trainer` whose checkpoints hold what is trained, and which gets back from them all of it or fails.

    (The stock one saves whole models under the names of files, which for some models are not those in memory, and
    passes over what it does not find under them when it goes on from a checkpoint. Optimizer, scheduler and random
    states are written by it and read back with `weights_only`.)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "The recipes train small parts of small models and do not shard them: use `accelerate launch` with "
                "several processes, without DeepSpeed or FSDP."
            )
        if self.args.save_only_model:
            raise ValueError("`save_only_model` leaves checkpoints from which no run can go on: leave it out.")
        if hasattr(self.train_dataset, "set_epoch"):
            if self.args.dataloader_persistent_workers:
                raise ValueError(
                    "`dataloader_persistent_workers` keeps workers that never hear of a new epoch, and rows that are "
                    "drawn anew in each would be those of the first: leave it out."
                )
            self.add_callback(_EpochsOf(self.train_dataset))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or checkpoints_folder(self.args))
            folder.mkdir(parents=True, exist_ok=True)
            trained = trained_tensors(self._trained_model())
            weights = {name: value.detach().cpu().contiguous() for name, value in trained.items()}
            save_file(weights, folder / _WEIGHTS_FILE)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The first process may remove the checkpoint before this one only when all have written their part of it.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / _WEIGHTS_FILE
        stored, own = load_file(path), trained_tensors(self._trained_model())
        if amiss := [
            name
            for name in {**own, **stored}
            if name not in own or name not in stored or own[name].shape != stored[name].shape
        ]:
            raise ValueError(
                f"{path} is of another model or recipe: {', '.join(sorted(amiss)[:3])} ({len(amiss)} in all) is not "
                f"what this run trains. Name another folder, or remove {self.args.output_dir} to start anew."
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(stored[name])

    def _load_best_model(self) -> None:
        logger.info("taking the best weights, of %s", self.state.best_model_checkpoint)
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy == "group_by_length" and hasattr(rows, "set_epoch"):
            return _ByLengthInEpoch(self.args.train_batch_size * self.args.gradient_accumulation_steps, rows)
        return super()._get_train_sampler(train_dataset)

    def _trained_model(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)


class _ByLengthInEpoch(LengthGroupedSampler):
    """
    Groups rows that are drawn anew in each epoch by the lengths that they have in this one.

    (The stock one goes through them once, at the start. Where half of the rows are others in the next epoch, batches
    then have a quarter more to read, in padding alone.)
    """

    def __init__(self, batch_size: int, rows: Any) -> None:
        # Known when an epoch begins; how many there are is known now.
        super().__init__(batch_size, lengths=[0] * len(rows))
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        self.lengths = [len(row["input_ids"]) for row in self.rows.__getitems__(range(len(self.rows)))]
        return super().__iter__()


class _EpochsOf(TrainerCallback):
    """
    Tells a dataset that draws its rows anew in each epoch which one begins.

    (Accelerate does so by itself only where its sampler is not wrapped in another, as it is if there are several
    processes, or if a run goes on in the middle of an epoch. Then it is told of no epoch, and stays in the first.)
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Of a run that goes on in the middle of an epoch it has a fraction.
        self.dataset.set_epoch(int(state.epoch or 0))


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes of a model, by its name in memory: parameters that are not frozen, and saved buffers."""
    saved = model.state_dict().keys()
    tensors = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {**tensors, **{name: value for name, value in model.named_buffers() if name in saved}}


def tokenizer_of(model: AudioBertForMaskedLM) -> PreTrainedTokenizerBase:
    """
    Raises:
        ValueError: the model has none, but rows are text.
    """
    if model.tokenizer is None:
        raise ValueError("The rows are text: give the model BERT's tokenizer, `model.tokenizer`.")
    return model.tokenizer


@contextmanager
def training_only(model: nn.Module, parts: Sequence[str]) -> Iterator[None]:
    """Freezes, while it lasts, the parameters of `model` whose names begin with none of `parts`."""
    others = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(tuple(parts))
    ]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def train_or_resume(trainer: RecipeTrainer, settings: Mapping[str, Any]) -> None:
    """
    Trains, from the last whole checkpoint of this run if there is one.

    Args:
        trainer: with the model as it is before any training.
        settings: all that the result depends on, see `run_settings`.

    Raises:
        ValueError: in the run's folder lie checkpoints, or a model, of other settings or of unknown ones, or a
            finished model of these.
    """
    out, checkpoints = run_folder(trainer.args), checkpoints_folder(trainer.args)
    # The first process writes the settings and removes what is damaged before the others look.
    with PartialState().main_process_first():
        found = _checkpoints_in(checkpoints)
        if found and not (out / SETTINGS_FILE).is_file():
            raise ValueError(
                f"{checkpoints} holds checkpoints, but no {SETTINGS_FILE} in {out} says how they were made: remove "
                f"{checkpoints}, or name another folder."
            )
        settle_settings(out / SETTINGS_FILE, settings)
        if is_finished(trainer.args):
            raise ValueError(f"{out} holds the finished model of these settings: load it, or name another folder.")
        whole = [folder for folder in found if is_whole(folder)]
        for folder in found:
            if folder not in whole and PartialState().is_main_process:
                logger.warning("%s was not written to its end: it is removed", folder)
                shutil.rmtree(folder)
    if found:
        logger.warning("going on from %s", whole[-1] if whole else "the start, as no checkpoint is whole")
    trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)


def _checkpoints_in(folder: Path) -> list[Path]:
    """Oldest first."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    matches = [(path, pattern.fullmatch(path.name)) for path in folder.glob("*") if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for path, match in matches if match)]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end; a full disk, a kill or a power cut leaves less."""
    try:
        # Written last. The others end with what tells how long they are.
        json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
        with safe_open(checkpoint / _WEIGHTS_FILE, framework="pt"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    archives = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    names = {path.name for path in archives}
    return {"optimizer.pt", "scheduler.pt"} <= names and all(zipfile.is_zipfile(path) for path in archives)


# --- the folder of a run ---------------------------------------------------------------------------------------------


class Part(Protocol):
    """A model, a tokenizer, a feature extractor."""

    def save_pretrained(self, save_directory: Path) -> Any: ...


def checkpoints_folder(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir))


def run_folder(args: TrainingArguments) -> Path:
    """OUT, where the checkpoints lie in OUT/checkpoints; the folder of the checkpoints itself elsewhere."""
    checkpoints = checkpoints_folder(args)
    return checkpoints.parent if checkpoints.name == CHECKPOINTS_FOLDER else checkpoints


def is_finished(args: TrainingArguments) -> bool:
    """Whether `save_run` has left a model in the run's folder."""
    out = run_folder(args)
    is_model = (out / SETTINGS_FILE).is_file() and (out / "config.json").is_file()
    return is_model and not _checkpoints_in(checkpoints_folder(args))


def finished_scores(args: TrainingArguments, settings: Mapping[str, Any]) -> dict[str, float]:
    """
    The scores of a finished run.

    Raises:
        ValueError: it was made with other settings.
    """
    out = run_folder(args)
    if differences := differing_settings(read_settings(out / SETTINGS_FILE), as_json(settings)):
        raise ValueError(f"{out} holds a model of other settings: {differences}. Name another folder.")
    return json.loads((out / SCORES_FILE).read_text(encoding="utf-8"))


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """What `Trainer.evaluate` gives, without what it measures of itself."""
    return {name: value for name, value in metrics.items() if not name.endswith(_NO_SCORES) and name != "epoch"}


def save_run(args: TrainingArguments, scores: Mapping[str, float], *parts: Part) -> None:
    """
    Leaves in the run's folder the trained model and its scores in the place of the checkpoints, as it can be uploaded.
    Of several processes the first one writes; the others wait.
    """
    state, out = PartialState(), run_folder(args)
    if state.is_main_process:
        for part in parts:
            part.save_pretrained(out)
        with whole_file(out / SCORES_FILE) as file:
            file.write(json.dumps(dict(scores), indent=2) + "\n")
        for folder in _checkpoints_in(checkpoints_folder(args)):
            shutil.rmtree(folder)
        if checkpoints_folder(args) != out:
            shutil.rmtree(checkpoints_folder(args), ignore_errors=True)
    state.wait_for_everyone()
