"""Causal language models of any family: how they load, what they are given to read, and what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES


def load_causal(
    name: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Loads a causal language model and its tokenizer.

    Args:
        name: a folder or a Hub id.
        dtype: "auto" for that of the checkpoint, or a name such as "bfloat16".
        device_map: "auto" spreads the model over the accelerators that are there; None is the CPU.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: it is no causal language model.
        OSError: it is not there.
    """
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, device_map=device_map, revision=revision)
    refuse_other_models(model)
    return model.eval(), AutoTokenizer.from_pretrained(name, revision=revision)


def refuse_other_models(model: PreTrainedModel) -> None:
    """Raises ValueError for a model that writes no text, or that looks at the words after a word to predict it."""
    config = model.config
    looks_ahead = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if not model.can_generate() or getattr(config, "is_encoder_decoder", False) or looks_ahead:
        raise ValueError(
            f"{type(model).__name__} is no causal language model, of which the next word could be asked: "
            "evaluate a masked one with `evaluate_model`."
        )


def refuse_too_long(model: PreTrainedModel, length: int, text: str) -> None:
    """Raises ValueError where `length` tokens are more than the model can read."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise ValueError(f"{text[:60]!r}... needs {length} tokens, but the model reads {limit}: shorten the prompt.")


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The token ids of texts, begun and not ended as `likelihoods` says."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if first is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no token for the beginning or the end of a text: set `bos_token`."
        )
    rows = []
    for ids in tokenizer(texts)["input_ids"]:
        if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]
        rows.append(ids if ids and ids[0] == first else [first, *ids])
    return rows
