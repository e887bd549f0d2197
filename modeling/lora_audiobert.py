"""The adapter: peft's LoRA layers with a switch that threads do not share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NoReturn

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, WeightTransform

# The adapter's name among peft's, and the one that its weights carry in checkpoints. A name of its own keeps it out of
# the way of "default", which is what an adapter that somebody adds with peft is called.
ADAPTER = "audiobert"
SAVED_AS = "default"

# A context variable, not a flag on the layers: passes with the adapter and without it run side by side in threads.
_lora_is_on: ContextVar[bool] = ContextVar("audiobert_lora_is_on", default=False)


class SwitchedLoraLinear(LoraLinear):
    """
    peft's LoRA linear layer, which is exactly its base layer outside of [`lora_switched`]`(True)`.

    It holds AudioBERT's adapter and no other. What peft does to adapters of other names on other layers of the model
    passes it by: activating, disabling, merging and unloading them leaves it as it is.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not _lora_is_on.get():
            return self.base_layer(x)
        if isinstance(self.lora_A[ADAPTER], nn.Linear):
            return super().forward(x, *args, **kwargs)
        raise TypeError(
            f"AudioBERT's adapter is a {type(self.lora_A[ADAPTER]).__name__}: quantize the parts of the model that are "
            "no adapter, such as `model.detector` and `model.audio_model`, and leave `model.text_model` as it is."
        )

    def update_layer(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        if adapter_name != ADAPTER or ADAPTER in self.lora_A:
            target = kwargs.get("target_name") or "This layer"
            raise ValueError(
                f"{target} already carries AudioBERT's own adapter, which is on only where something is heard: train "
                "that one (`audiobert train`), or give your LoraConfig `target_modules` that leave out "
                "`model.config.lora_target_modules`."
            )
        super().update_layer(adapter_name, *args, **kwargs)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        if ADAPTER in ([adapter_names] if isinstance(adapter_names, str) else adapter_names):
            super().set_adapter(ADAPTER, inference_mode)

    def enable_adapters(self, enabled: bool) -> None:
        """Nothing: `lora_switched` alone turns this adapter on and off."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        if adapter_names is None or ADAPTER in adapter_names:
            _refuse("merged into BERT, which has to stay as it is for what is not heard", "adapter_names=['default']")

    def unmerge(self) -> None:
        """Nothing, as nothing is ever merged."""

    def delete_adapter(self, adapter_name: str) -> None:
        if adapter_name == ADAPTER:
            _refuse("deleted", "the name of your adapter")

    def unload_and_optionally_merge_module(self, **kwargs: Any) -> SwitchedLoraLinear:
        """peft asks every layer of a model from which it takes an adapter away; this one stays."""
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith(f"{prefix}lora_")]:
            state_dict[name.replace(f".{SAVED_AS}.", f".{ADAPTER}.")] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _refuse(what: str, instead: str) -> NoReturn:
    raise ValueError(
        f"AudioBERT's own adapter can't be {what}: save the model with `save_pretrained`, or, for an adapter that you "
        f"added with peft, pass its name ({instead})."
    )


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
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for layer in lora_layers(model):
        # peft has initialised them (as no change at all); the initialisation of the model they are put into must not.
        for part in layer.modules():
            part._is_hf_initialized = True  # type: ignore[assignment]  # torch's stubs know of no plain attributes


def names_in_checkpoints() -> dict[str, str]:
    """What the adapter's weights are called in the files of checkpoints, and in memory, as parts of names (regular
    expressions)."""
    return {rf"\.lora_{half}\.{SAVED_AS}\.weight": f".lora_{half}.{ADAPTER}.weight" for half in ("A", "B")}


def conversions_for_saving(model: PreTrainedModel) -> list[WeightTransform]:
    """
    What transformers undoes when it saves `model`: its own conversions and the adapter's name. They are not registered
    for all models of its type, as peft would apply them to the adapters of others.
    """
    own: list[WeightTransform] = [WeightRenaming(saved, here) for saved, here in names_in_checkpoints().items()]
    return [*own, *get_model_conversion_mapping(model, add_legacy=False)]


def lora_layers(model: nn.Module) -> list[SwitchedLoraLinear]:
    """The adapted layers of `model`, in order."""
    return [module for module in model.modules() if isinstance(module, SwitchedLoraLinear)]
