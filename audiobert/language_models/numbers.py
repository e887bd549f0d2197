"""What a model gives that is no number: it is refused, as it would be scored as a wrong answer without a word."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel


def refuse_no_numbers(model: PreTrainedModel | str, logits: torch.Tensor, text_of: Callable[[int], str]) -> None:
    """
    Args:
        model: whose logits they are, or what it is to be called.
        logits: float `(rows, ...)`: those that are scored.
        text_of: gives what the model read, by the number of a row of `logits`.

    Raises:
        ValueError: one of them is not a number, or infinite. The error names the model and the first such row.
    """
    is_number = logits.isfinite().flatten(1).all(1)
    if not is_number.all():
        first = int((~is_number).nonzero()[0])
        raise ValueError(
            f"{_name(model)} gives logits that are not a number, or infinite, in {logits.dtype}, first for "
            f"{text_of(first)!r}: load it with another `dtype`, such as bfloat16 or float32. If it gives such logits "
            "in float32 too, its weights are damaged."
        )


def _name(model: PreTrainedModel | str) -> str:
    if isinstance(model, str):
        return model
    kind, path = type(model).__name__, getattr(model, "name_or_path", "")
    return f"{kind} ({path})" if path else kind
