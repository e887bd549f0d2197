"""What the result of a training depends on, in a form that is kept beside it: values, and digests of what is large."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from .. import __version__
from ..modeling import AudioBertKnowledgeBase
from .arguments import rows_of_a_step

# Fields of `TrainingArguments`, by the beginnings of their names, that say where a run is kept, what it reports, and
# how its work is spread over a machine. All others decide the result, or may.
_NOT_DECIDING = (
    *("output_dir", "save_", "enable_jit_checkpoint", "push_to_hub", "hub_", "resume_from_checkpoint", "do_"),
    *("logging_", "log_", "report_to", "run_name", "project", "trackio_", "disable_tqdm", "debug", "skip_memory"),
    *("use_cpu", "no_cuda", "local_rank", "ddp_", "fsdp", "deepspeed", "parallelism_config", "torch_empty_cache"),
    *("dataloader_num_workers", "dataloader_pin", "dataloader_persistent", "dataloader_prefetch", "dataloader_multi"),
    "include_num_input_tokens",
    # `batch_size` says it for all processes together.
    "per_device_train_batch_size",
)


def run_settings(recipe: str, args: TrainingArguments, **what: Any) -> dict[str, Any]:
    """
    Everything that the result of a run depends on; where things lie is no part of it, only what they hold.

    Args:
        recipe: its name.
        args: of the run. The number of processes does not count: they share one batch.
        what: what the recipe trains on and with, as JSON knows it; digests for what is large.
    """
    arguments = {name: value for name, value in args.to_dict().items() if not name.startswith(_NOT_DECIDING)}
    return {
        "recipe": recipe,
        **what,
        "arguments": {"batch_size": rows_of_a_step(args), **arguments},
        "versions": {
            "audiobert": __version__,
            # Without the part after the plus, the build for a device: a run may go on on another machine.
            **{name: version(name).partition("+")[0] for name in ("torch", "transformers", "peft")},
        },
    }


def digest_of_model(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    """The sha256 of a model as it is in memory: its weights, its configuration and its tokenizer."""
    digest = hashlib.sha256()
    if isinstance(model, PreTrainedModel):
        # Neither where it came from nor which release wrote it.
        config = {name: value for name, value in model.config.to_diff_dict().items() if name != "transformers_version"}
        digest.update(_json(config))
    if tokenizer is not None:
        digest.update(_json([tokenizer.get_vocab(), tokenizer.special_tokens_map, type(tokenizer).__name__]))
    _update(digest, model.state_dict())
    return digest.hexdigest()


def digest_of_rows(datasets: Mapping[str, Dataset], splits: Sequence[str]) -> dict[str, str]:
    """By the name of a split, the sha256 of its rows."""
    return {split: digest_of_json(datasets[split].to_list()) for split in splits}


def digest_of_knowledge_base(knowledge_base: AudioBertKnowledgeBase | None) -> str | None:
    """The sha256 of all that a knowledge base finds and gives, None if there is none."""
    if knowledge_base is None:
        return None
    digest = hashlib.sha256(_json([knowledge_base.config.to_dict(), knowledge_base.metadata.to_pydict()]))
    digest.update(knowledge_base.index.reconstruct_n(0, len(knowledge_base)).tobytes())
    _update(digest, {"audio_embeddings": knowledge_base.audio_embeddings})
    _update(digest, knowledge_base.query_encoder.model.state_dict())
    return digest.hexdigest()


def digest_of_json(value: Any) -> str:
    """The sha256 of what JSON knows."""
    return hashlib.sha256(_json(value)).hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """The sha256 of the names and sizes of files, of which there may be more than can be read at each start."""
    return digest_of_json([(path.name, path.stat().st_size) for path in paths])


def digest_of_arrays(rows: Iterable[Mapping[str, np.ndarray]]) -> str:
    """The sha256 of rows of arrays."""
    digest = hashlib.sha256()
    for row in rows:
        _update(digest, {name: torch.as_tensor(value) for name, value in row.items()})
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        digest.update(_json([name, str(tensor.dtype), list(tensor.shape)]))
        # As bytes, since NumPy knows no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
