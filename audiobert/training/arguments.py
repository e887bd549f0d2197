"""What the recipes share: where a run is kept, that it goes on where it stopped, and what of the model it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

CHECKPOINTS_FOLDER = "checkpoints"


def recipe_arguments(output_dir: str | Path, **values) -> TrainingArguments:
    """
    `TrainingArguments` of a recipe: checkpoints in `output_dir/checkpoints`, the last one kept, dev scored each epoch.

    Args:
        output_dir: where the trained model will be saved.
        values: any fields of `TrainingArguments`; they override the ones set here.
    """
    defaults = {
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "per_device_eval_batch_size": 64,
        # The collators read columns that are no arguments of the model.
        "remove_unused_columns": False,
    }
    return TrainingArguments(output_dir=str(Path(output_dir) / CHECKPOINTS_FOLDER), **{**defaults, **values})


def train_or_resume(trainer: Trainer) -> None:
    """Trains, from the last checkpoint in the trainer's output folder if there is one."""
    folder = Path(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)


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
