"""A model as it is for a while: in evaluation mode, or with its logits at some places alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def in_evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Parts of a model can be in training and others not; each goes back to what it was."""
    were_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in were_training:
            module.training = training


@contextmanager
def logits_of_columns(model: PreTrainedModel, columns: torch.Tensor) -> Iterator[None]:
    """
    Within it, the model's logits are `(batch, len(columns), vocab)`: only at these places of every sequence, as those
    over a whole vocabulary cost as much as some layers of the model.

    A model that does not simply apply its output embeddings to its hidden states gives the logits of all places.
    """

    def choose(_head: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0].index_select(1, columns.to(args[0].device)), *args[1:]) if args[0].ndim == 3 else args

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
