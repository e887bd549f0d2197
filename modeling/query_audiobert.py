"""CLAP's text tower: text in, a unit vector of CLAP's shared space out."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, ClapTextModelWithProjection, PreTrainedConfig, PreTrainedModel


class ClapTextTower(ClapTextModelWithProjection):
    """CLAP's text tower out of a whole CLAP checkpoint, whose other weights are not worth a warning."""

    _keys_to_ignore_on_load_unexpected = [r"^audio_model\.", r"^audio_projection\.", r"^logit_scale_"]


class QueryEncoder:
    """CLAP's text tower and its tokenizer: text in, a unit vector of CLAP's shared space out.

    The weights are computed with in fp32 and saved in the dtype they were stored in.
    """

    def __init__(self, model: ClapTextModelWithProjection, tokenizer: Any) -> None:
        self.stored_dtype = model.dtype
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        # CLAP counts positions from the padding index on, as RoBERTa does.
        positions = model.config.max_position_embeddings - (model.config.pad_token_id or 0) - 1
        self.max_length = min(tokenizer.model_max_length, positions)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **kwargs: Any) -> QueryEncoder:
        """Loads the text tower alone, from a saved text tower or from a whole CLAP checkpoint.

        Args:
            name_or_path: local folder or Hub id.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.
        """
        model = ClapTextTower.from_pretrained(name_or_path, dtype="auto", use_safetensors=True, **kwargs)
        move_into_memory(model)
        # A tokenizer that brings code of its own is no CLAP's: refused, without a question to the terminal.
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False, **kwargs)
        # Transformers notes how it found the files and would save that along, so that a saved copy differs.
        for name in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(name, None)
        return cls(model, tokenizer)

    @property
    def width(self) -> int:
        return self.model.config.projection_dim

    @torch.no_grad()
    def __call__(self, text: str) -> np.ndarray:
        """Returns the unit vector of `text`, fp32 of shape (1, width), computed in fp32 under autocast too.

        One text at a time: padding and the size of a batch change the last bits of a result, and what a span
        retrieves may not depend on the other prompts of its batch.

        Raises:
            ValueError: the text tower gives a vector that is not finite, as one with damaged weights does.
        """
        encoded = self.tokenizer(text, truncation=True, max_length=self.max_length, return_tensors="pt")
        device = self.model.device
        with torch.autocast(device.type, enabled=False):
            output = self.model(
                input_ids=encoded["input_ids"].to(device), attention_mask=encoded["attention_mask"].to(device)
            )
            vector = nn.functional.normalize(output.text_embeds, dim=-1)
        if not vector.isfinite().all():
            raise ValueError(
                f"CLAP's text tower gives the query {text!r} a vector that is not finite: its weights are damaged. "
                "Build the knowledge base again with another CLAP."
            )
        return vector.cpu().numpy()

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        stored = {name: value.to(self.stored_dtype) for name, value in self.model.state_dict().items()}
        save_weights(ClapTextModelWithProjection, self.model.config, stored, folder)
        if self.tokenizer.is_fast:
            # Encoding leaves its settings in the tokenizer; what is saved may not depend on what was asked before.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(folder)


def save_weights(
    kind: type[PreTrainedModel], config: PreTrainedConfig, weights: dict[str, torch.Tensor], folder: str | os.PathLike
) -> None:
    """Saves these weights as a model of this kind; raises OSError if they cannot be written."""
    # Without weights of its own: they would be drawn from the caller's random numbers.
    with torch.device("meta"):
        model = kind(copy.deepcopy(config))
    model.load_state_dict(weights, assign=True)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"the weights in {os.fspath(folder)} could not be written ({error}).") from error


def move_into_memory(model: nn.Module) -> None:
    """Copies weights that are mapped from a file into memory of their own.

    In a file they lie where its header ends; on some processors what lies unaligned is computed with in another order,
    and a model that was loaded would differ in the last bit from the one that was saved.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
