"""Masked language models of any family: how they load, and how much they read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from ..data.masking import check_mask_token

_INSTEAD = "A causal language model is scored by `audiobert.evaluation.causal.predict_causal`."


def load_masked(
    name: str, dtype: str = "auto", device_map: str | dict[str, Any] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Loads a masked language model and its tokenizer.

    Args:
        name: a folder or a Hub id.
        dtype: of the weights, "auto" for that of the checkpoint.
        device_map: as in `from_pretrained`; "auto" spreads the model over the devices that are there.

    Raises:
        ValueError: if the checkpoint is of another kind of model, lacks weights (an encoder without its head for
            masks would answer at random), or its tokenizer has no mask token.
        OSError: if there is no such checkpoint.
    """
    config = AutoConfig.from_pretrained(name)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(f"{name} is no masked language model, but of type {config.model_type}. {_INSTEAD}")
    tokenizer = AutoTokenizer.from_pretrained(name)
    check_mask_token(tokenizer)
    model, loading = AutoModelForMaskedLM.from_pretrained(
        name, dtype=dtype, device_map=device_map, output_loading_info=True
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{name} has no weights for {', '.join(missing[:3])}{' and others' if missing[3:] else ''} of "
            f"{type(model).__name__}, which would be random: give a checkpoint that was saved with its head for masks."
        )
    return model.eval(), tokenizer


def check_masked_model(model: PreTrainedModel) -> None:
    """
    Raises:
        ValueError: if the model is one that reads from left to right only, or has no logits over a vocabulary.
    """
    kind = type(model).__name__
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        raise ValueError(f"{kind} is a causal language model and does not see what follows a mask. {_INSTEAD}")
    if model.get_output_embeddings() is None:
        raise ValueError(f"{kind} has no head for masks: load the checkpoint as AutoModelForMaskedLM.")


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> None:
    """
    Raises:
        ValueError: if one of the tokenizer's `tokens` is beyond the model's vocabulary.
    """
    known, largest = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings, max(tokens, default=0)
    if largest >= known:
        raise ValueError(
            f"The tokenizer gives the token {tokenizer.convert_ids_to_tokens(largest)!r} the number {largest}, but the "
            f"model knows {known} tokens: use the tokenizer that belongs to the model."
        )


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: int | list[int], skip_special_tokens: bool = False) -> str:
    """The text of one sequence of tokens; the tokenizer's own method takes several too, and is typed for both."""
    return cast(str, tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens))


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model reads at once, special ones counted; None if its configuration states no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa and its kin number positions from behind that of padding.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return limit
