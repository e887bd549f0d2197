"""The arguments that the recipes share: where a run is kept, and how many rows a step takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

CHECKPOINTS_FOLDER = "checkpoints"


def recipe_arguments(output_dir: str | Path, batch_size: int, **values: Any) -> TrainingArguments:
    """
    `TrainingArguments` of a recipe: checkpoints in `output_dir/checkpoints`, the last one kept, dev scored each epoch.

    Args:
        output_dir: where the trained model will be saved.
        batch_size: rows of a training step, however many processes share them. (`per_device_train_batch_size` may be
            given in its place and is then each process's own.)
        values: any fields of `TrainingArguments`; they override the ones set here.

    Raises:
        ValueError: if the processes, or the steps that gradients are accumulated over, cannot share the batch evenly.
    """
    defaults = {
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "per_device_eval_batch_size": 64,
        # The collators read columns that are no arguments of the model.
        "remove_unused_columns": False,
        # Where there is nothing to copy to, torch warns of it at every loader.
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    args = TrainingArguments(output_dir=str(Path(output_dir) / CHECKPOINTS_FOLDER), **{**defaults, **values})
    # One process has one device: `DataParallel` over all GPUs that it sees would take a batch for each of them.
    if args.n_gpu > 1:
        args._n_gpu = 1
    if "per_device_train_batch_size" not in values:
        shares = args.world_size * args.gradient_accumulation_steps
        if batch_size < 1 or batch_size % shares:
            raise ValueError(
                f"A batch of {batch_size} rows cannot be shared evenly by {shares} (processes times steps of "
                "accumulation): use another batch size or another number of processes."
            )
        args.per_device_train_batch_size = batch_size // shares
    return args


def rows_of_a_step(args: TrainingArguments) -> int:
    """How many rows a training step takes, those of all processes together."""
    return args.train_batch_size * args.world_size * args.gradient_accumulation_steps
