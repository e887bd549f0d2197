"""The span detector: a head that tells which tokens speak of a sound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .configuration_audiobert import AudioBertConfig


class AudioBertSpanDetector(nn.Module):
    """
    Token classification over the hidden states that BERT computes anyway (paper, section III-A, where it is a BERT of
    its own): a learned mix of BERT's layers, a small transformer encoder, and a linear layer with two classes.
    """

    def __init__(self, config: AudioBertConfig) -> None:
        super().__init__()
        states = config.text_config.num_hidden_layers + 1
        self.states = list(range(states)) if config.detector_hidden_states is None else config.detector_hidden_states
        self.mix = nn.Parameter(torch.zeros(len(self.states)))
        self.projection = nn.Linear(config.text_config.hidden_size, config.detector_hidden_size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.detector_hidden_size,
                config.detector_num_heads,
                dim_feedforward=2 * config.detector_hidden_size,
                dropout=config.detector_dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.detector_num_layers)
        )
        self.norm = nn.LayerNorm(config.detector_hidden_size)
        self.dropout = nn.Dropout(config.detector_dropout)
        self.classifier = nn.Linear(config.detector_hidden_size, 2)

    def forward(self, hidden_states: Sequence[torch.Tensor], attention_mask: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            hidden_states: all of BERT's hidden states, each float `(batch, sequence, hidden_size)`.
            attention_mask: `(batch, sequence)`, 0 on padding; None where nothing is padded.

        Returns:
            Float `(batch, sequence, 2)`: logits of "the rest" and of "auditory span".
        """
        weights = self.mix.softmax(0)
        mixed = sum(weight * hidden_states[index] for weight, index in zip(weights, self.states, strict=True))
        states = self.dropout(self.projection(mixed))
        padding = None if attention_mask is None else attention_mask == 0
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=padding)
        return self.classifier(self.dropout(self.norm(states)))


def spans_of(is_auditory: torch.Tensor) -> list[list[tuple[int, int]]]:
    """
    Runs of auditory tokens.

    Args:
        is_auditory: bool `(batch, sequence)`.

    Returns:
        For each row its runs as `(start, end)`, end exclusive, in order.
    """
    rows: list[list[tuple[int, int]]] = []
    for flags in is_auditory.tolist():
        edges = [
            i for i, (before, after) in enumerate(zip([False, *flags], [*flags, False], strict=True)) if before != after
        ]
        rows.append(list(zip(edges[::2], edges[1::2], strict=True)))
    return rows
