"""The model in memory: weights that lie where kernels compute alike, and a state that can be pickled."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

# Bytes: a cache line, and the width of the widest registers.
ALIGNMENT = 64


def align_weights(model: nn.Module) -> None:
    """
    Copies weights that lie across register boundaries to addresses that do not.

    A file's weights are mapped into memory wherever its header ends, and some processors' kernels give other last bits
    there: a reloaded model has to answer as the one that was saved.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


def picklable_state(model: nn.Module) -> dict[str, Any]:
    """
    The state of `model` without the hooks by which transformers gathers hidden states: they are closures, which pickle
    refuses, and are installed again with the first pass that needs them. `model` itself keeps them; tensors and the
    knowledge base are shared with it.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    state = copy.deepcopy(vars(model), {**shared, id(model): model})
    state.pop("_output_capturing_hooks_installed", None)
    for child in state["_modules"].values():
        for module in child.modules():
            vars(module).pop("_output_capturing_hooks_installed", None)
            for key, hook in list(module._forward_hooks.items()):
                if hook.__module__ == "transformers.utils.output_capturing":
                    del module._forward_hooks[key]
    return state
