"""The adapter: peft's LoRA layers with a switch that threads do not share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

# A context variable, not a flag on the layers: passes with the adapter and without it run side by side in threads.
_lora_is_on: ContextVar[bool] = ContextVar("audiobert_lora_is_on", default=False)


class SwitchedLoraLinear(LoraLinear):
    """peft's LoRA linear layer, which is exactly its base layer outside of [`lora_switched`]`(True)`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if _lora_is_on.get() else self.base_layer(x)


@contextmanager
def lora_switched(on: bool) -> Iterator[None]:
    """Runs what it encloses, in this thread alone, with the adapters on or off."""
    token = _lora_is_on.set(on)
    try:
        yield
    finally:
        _lora_is_on.reset(token)


def checkpoint_contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """For `torch.utils.checkpoint`: recomputes a layer with the switch as it stood in the forward pass."""
    return nullcontext(), lora_switched(_lora_is_on.get())


def add_lora(model: nn.Module, rank: int, alpha: int, dropout: float, target_modules: list[str]) -> None:
    """
    Wraps the linear layers of `model` that `target_modules` names, in place, and freezes all the rest of `model`.

    Raises:
        ValueError: if no layer of `model` has such a name.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(target_modules))
    config._register_custom_module({nn.Linear: SwitchedLoraLinear})
    inject_adapter_in_model(config, model)
    for layer in lora_layers(model):
        # peft has initialised them (as no change at all); the initialisation of the model they are put into must not.
        for part in layer.modules():
            part._is_hf_initialized = True


def lora_layers(model: nn.Module) -> list[SwitchedLoraLinear]:
    """The adapted layers of `model`, in order."""
    return [module for module in model.modules() if isinstance(module, SwitchedLoraLinear)]
