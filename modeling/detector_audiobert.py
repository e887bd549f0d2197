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
            DetectorLayer(config.detector_hidden_size, config.detector_num_heads, config.detector_dropout)
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
        mixed = torch.zeros_like(hidden_states[0])
        for weight, index in zip(weights, self.states, strict=True):
            mixed = mixed + weight * hidden_states[index]
        states = self.dropout(self.projection(mixed))
        # (batch, heads, queries, keys)
        attends = None if attention_mask is None else (attention_mask != 0)[:, None, None, :]
        for layer in self.layers:
            states = layer(states, attends)
        return self.classifier(self.dropout(self.norm(states)))


class DetectorLayer(nn.Module):
    """
    What `nn.TransformerEncoderLayer` computes with `norm_first` and GELU, under the same names of weights, but out of
    modules that are called: that one reads their weights, so that hooks (offloading) and quantized layers break it.
    """

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = DetectorAttention(hidden_size, heads, dropout)
        self.linear1 = nn.Linear(hidden_size, 2 * hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(2 * hidden_size, hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, attends: torch.Tensor | None) -> torch.Tensor:
        """Float `(batch, sequence, hidden_size)`; `attends` as for [`DetectorAttention`]."""
        states = states + self.dropout1(self.self_attn(self.norm1(states), attends))
        inner = self.dropout(nn.functional.gelu(self.linear1(self.norm2(states))))
        return states + self.dropout2(self.linear2(inner))


class DetectorAttention(nn.Module):
    """Self-attention with the weights of `nn.MultiheadAttention`."""

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, states: torch.Tensor, attends: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            states: float `(batch, sequence, hidden_size)`.
            attends: bool, broadcast to `(batch, heads, sequence, sequence)`, False at keys that are padding; None
                where nothing is padded.

        Returns:
            Float `(batch, sequence, hidden_size)`.
        """
        projected = nn.functional.linear(states, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attends, dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


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
