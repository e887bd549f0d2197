"""
From spans to audio positions and embeddings, and into the word embeddings (paper, sections III-B and III-C); and what
comes out of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTModel
from transformers.utils import ModelOutput

from .configuration_audiobert import AudioBertConfig
from .knowledge_audiobert import AudioBertKnowledgeBase, Recording, Retrieval


@dataclass(frozen=True)
class AuditorySpan:
    """
    A span of a prompt that speaks of a sound.

    Attributes:
        start (`int`): index of its first token in the row of `input_ids`.
        end (`int`): index after its last token.
        text (`str`): its text, as the tokenizer decodes it.
        score (`float`): mean probability that the detector gives its tokens.
        recordings (`tuple[Recording, ...]`): what was retrieved for it, best first; empty where nothing was.
        injected (`bool`): whether their sound was injected; False where even the best is less similar than
            `config.retrieval_min_similarity`, and for a model that injects nothing.
    """

    start: int
    end: int
    text: str
    score: float
    recordings: tuple[Recording, ...] = ()
    injected: bool = True


@dataclass
class AudioBertMaskedLMOutput(ModelOutput):
    """
    Output of [`AudioBertForMaskedLM`].

    Attributes:
        loss (`torch.FloatTensor` of shape `(1,)`, given with `labels` or `span_labels`):
            Masked-language-model loss, span detection loss, or their sum.
        logits (`torch.FloatTensor` of shape `(batch, sequence, vocab_size)`):
            Scores of the vocabulary: plain BERT's in rows without an auditory span, AudioBERT's in the others.
        span_logits (`torch.FloatTensor` of shape `(batch, sequence, 2)`):
            The detector's scores of "the rest" and "auditory span"; None if `audio_positions` were given for every row
            and no `span_labels`, as BERT's plain pass is not needed then.
        spans (`list[list[AuditorySpan]]` of length `batch`):
            What the model detected and retrieved by itself, row by row; None if it did not look.
        hidden_states (`tuple[torch.FloatTensor]`, with `output_hidden_states=True`):
            BERT's, of shape `(batch, sequence, hidden_size)` each, from the pass that gave the row's logits.
        attentions (`tuple[torch.FloatTensor]`, with `output_attentions=True`):
            BERT's, of shape `(batch, heads, sequence, sequence)` each, from the pass that gave the row's logits.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    span_logits: torch.Tensor | None = None
    spans: list[list[AuditorySpan]] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


# --- from spans to audio ---------------------------------------------------------------------------------------------


def positions_of(spans: Sequence[Sequence[AuditorySpan]], device: torch.device) -> torch.Tensor:
    """`audio_positions` of detected spans: int64 `(batch, spans)`, the first token of each, -1 on padding."""
    positions = torch.full((len(spans), max([1, *map(len, spans)])), -1)
    for row, found in enumerate(spans):
        positions[row, : len(found)] = torch.tensor([span.start for span in found], dtype=torch.long)
    return positions.to(device)


def look_up(
    spans: list[list[AuditorySpan]],
    positions: torch.Tensor,
    knowledge_base: AudioBertKnowledgeBase,
    config: AudioBertConfig,
) -> tuple[list[list[AuditorySpan]], torch.Tensor, torch.Tensor]:
    """
    What a knowledge base has for detected spans.

    Args:
        spans: the spans of each row.
        positions: their `audio_positions`, int64 `(batch, spans)`.
        knowledge_base: where to look.
        config: says how many recordings a span has, how they weigh, and which are too far.

    Returns:
        The spans with their recordings and whether these are injected; and where `positions` lies `audio_embeds`, fp32
        `(batch, spans, audio_hidden_size)`, and `audio_mask`, bool `(batch, spans)`: zero and False on padding and
        where nothing is injected.
    """
    embeds = torch.zeros(*positions.shape, knowledge_base.config.audio_hidden_size)
    mask = torch.zeros(positions.shape, dtype=torch.bool)
    found = knowledge_base.search([span.text for row in spans for span in row], top_k=config.retrieval_top_k)
    near = [is_near(retrieval, config) for retrieval in found]
    remaining = iter(zip(found, near, strict=True))

    def of(span: AuditorySpan) -> AuditorySpan:
        retrieval, injected = next(remaining)
        return replace(span, recordings=retrieval.recordings, injected=injected)

    looked_up = [[of(span) for span in row] for row in spans]
    if any(near):
        mask[positions.cpu() >= 0] = torch.tensor(near)
        heard = [retrieval for retrieval, is_heard in zip(found, near, strict=True) if is_heard]
        # All of them are fetched at once, as that takes longer than the means.
        stored = knowledge_base.audio_embeds([index for retrieval in heard for index in retrieval.indices])
        of_spans = stored.split([len(retrieval.indices) for retrieval in heard])
        weights = [recording_weights(retrieval, config) for retrieval in heard]
        embeds[mask] = torch.stack([*map(weighted_mean, of_spans, weights)])
    return looked_up, embeds.to(positions.device), mask.to(positions.device)


def is_near(retrieval: Retrieval, config: AudioBertConfig) -> bool:
    """Whether what a span found is injected: its best recording is as similar as `config` asks for."""
    least, best = config.retrieval_min_similarity, retrieval.recordings[0].similarity
    return least is None or best is None or best >= least


def recording_weights(retrieval: Retrieval, config: AudioBertConfig) -> list[float] | None:
    """
    How much each recording that a span found counts in what is injected there: numbers that sum to 1, in the order of
    the recordings, or None where all count the same.
    """
    if config.retrieval_temperature is None:
        return None
    similarities = [recording.similarity or 0.0 for recording in retrieval.recordings]
    # Less the largest before the division: a temperature close to 0 would make all of them infinite.
    best = max(similarities)
    powers = [math.exp((similarity - best) / config.retrieval_temperature) for similarity in similarities]
    total = sum(powers)
    return [power / total for power in powers]


def weighted_mean(embeds: torch.Tensor, weights: Sequence[float] | None = None) -> torch.Tensor:
    """The mean of `(recordings, width)` by weights that sum to 1, one per recording; the plain one without."""
    if weights is None:
        return embeds.mean(0)
    # No product of matrices: autocast would round it.
    return (torch.tensor(weights, dtype=embeds.dtype)[:, None] * embeds).sum(0)


# --- what a caller gives ---------------------------------------------------------------------------------------------


def check_audio(
    config: AudioBertConfig,
    text: torch.Tensor | None,
    audio_embeds: torch.Tensor | None,
    audio_values: torch.Tensor | None,
    audio_positions: torch.Tensor | None,
    audio_mask: torch.Tensor | None,
) -> None:
    """
    Raises ValueError if audio, its mask and positions do not fit each other or the text (`input_ids` or
    `inputs_embeds`), or what is to be heard at a position is NaN or infinite.
    """
    given = {"audio_embeds": audio_embeds, "audio_values": audio_values}
    audio = {name: value for name, value in given.items() if value is not None}
    if len(audio) == 2:
        raise ValueError("Pass `audio_embeds` or `audio_values`, not both.")
    if audio_positions is None:
        if unplaced := [*audio, *(["audio_mask"] if audio_mask is not None else [])]:
            raise ValueError(f"`{unplaced[0]}` needs `audio_positions`: the index of each span's first token.")
        return
    if text is None:
        raise ValueError("Pass `input_ids` or `inputs_embeds`.")
    if audio_positions.ndim != 2 or len(audio_positions) != len(text):
        raise ValueError(f"`audio_positions` must be ({len(text)}, spans), got {tuple(audio_positions.shape)}.")
    if audio_positions.numel() and audio_positions.max() >= text.shape[1]:
        raise ValueError(
            f"`audio_positions` holds {int(audio_positions.max())}, but the sequence has {text.shape[1]} tokens."
        )
    if audio_mask is not None and (audio_mask.dtype != torch.bool or audio_mask.shape != audio_positions.shape):
        raise ValueError(
            f"`audio_mask` must be bool of the shape of `audio_positions`, {tuple(audio_positions.shape)}, got "
            f"{audio_mask.dtype} of {tuple(audio_mask.shape)}."
        )
    heard = heard_positions(audio_positions, audio_mask) >= 0
    if not audio and config.injection != "none" and bool(heard.any()):
        raise ValueError("`audio_positions` needs `audio_embeds` or `audio_values`: what is heard there.")
    for name, value in audio.items():
        if value.shape[:2] != audio_positions.shape:
            raise ValueError(
                f"`{name}` is {tuple(value.shape)}: its first two sizes must be those of `audio_positions`, "
                f"{tuple(audio_positions.shape)}."
            )
        width = config.audio_config.hidden_size
        if name == "audio_embeds" and value.shape[-1] != width:
            raise ValueError(f"`audio_embeds` has width {value.shape[-1]}, the audio model gives {width}.")
        # What stands on padding, or where nothing is injected, is never read.
        not_finite = ~value.flatten(2).isfinite().all(-1) & heard.to(value.device)
        if bool(not_finite.any()):
            row, span = not_finite.nonzero()[0].tolist()
            raise ValueError(
                f"`{name}` holds NaN or infinity in row {row}, span {span}: every answer of that row would be NaN. "
                "Leave the recording out, or give the row's position as -1."
            )


def heard_positions(audio_positions: torch.Tensor, audio_mask: torch.Tensor | None) -> torch.Tensor:
    """`audio_positions` of the spans at which something is injected, and -1 at the others."""
    return audio_positions if audio_mask is None else audio_positions.where(audio_mask.to(audio_positions.device), -1)


# --- into BERT -------------------------------------------------------------------------------------------------------


def embeddings_at(
    is_heard: torch.Tensor, audio_embeds: torch.Tensor | None, audio_values: torch.Tensor | None, audio_model: ASTModel
) -> torch.Tensor:
    """The embedding of each span that bool `is_heard` `(batch, spans)` marks, float `(n, audio_hidden_size)`."""
    if audio_embeds is not None:
        return audio_embeds[is_heard.to(audio_embeds.device)].to(is_heard.device)
    if audio_values is None or not is_heard.any():
        # An encoder takes no batch of nothing.
        return torch.zeros(0, audio_model.config.hidden_size, device=is_heard.device)
    heard = audio_values[is_heard.to(audio_values.device)]
    return pooled(audio_model(heard.to(audio_model.dtype)).last_hidden_state)


def standardized(audio: torch.Tensor, knowledge_base: AudioBertKnowledgeBase | None) -> torch.Tensor:
    """
    Audio embeddings, float `(n, audio_hidden_size)`, as fp32 of mean 0 and deviation 1 over the recordings of a
    knowledge base.

    Raises:
        ValueError: there is no knowledge base, or it does not say these numbers.
    """
    mean, deviation = audio_statistics(knowledge_base)
    return (audio.float() - mean.to(audio.device)) / deviation.to(audio.device)


def audio_statistics(knowledge_base: AudioBertKnowledgeBase | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and deviation of a knowledge base's audio embeddings, fp32 `(audio_hidden_size,)` each; the deviation is 1 in
    dimensions in which all recordings are alike.

    Raises:
        ValueError: there is no knowledge base, or it does not say these numbers.
    """
    mean, deviation = (getattr(knowledge_base, name, None) for name in ("audio_mean", "audio_deviation"))
    if mean is None or deviation is None:
        what = "the model has none" if knowledge_base is None else "the model's has no `audio_mean`, `audio_deviation`"
        raise ValueError(
            f"`config.standardize_audio` needs what a knowledge base says of its audio embeddings, but {what}: give it "
            "one that says so with `model.set_knowledge_base(...)`, or set `config.standardize_audio` to False."
        )
    return mean, deviation.where(deviation > 0, 1.0)


def pooled(hidden_states: torch.Tensor, frames: torch.Tensor | None = None) -> torch.Tensor:
    """
    One embedding out of an audio encoder's states.

    Args:
        hidden_states: float `(recordings, frames, width)`.
        frames: bool `(recordings, frames)`, where something sounds; all frames if omitted, as in the paper.

    Returns:
        Float `(recordings, width)`: the mean over those frames.
    """
    if frames is None:
        return hidden_states.mean(1)
    weights = frames.unsqueeze(-1).to(hidden_states.dtype)
    return (hidden_states * weights).sum(1) / weights.sum(1)


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    """The map from audio to BERT's width, as it starts: zero."""
    # Like the adapter, the map starts as no change at all: what it lets through it has to learn.
    linear = nn.Linear(in_features, out_features)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear._is_hf_initialized = True  # type: ignore[assignment]  # torch's stubs know of no plain attributes
    return linear


def inject(
    words: torch.Tensor, positions: torch.Tensor, audio: torch.Tensor, projection: nn.Module, add: bool
) -> torch.Tensor:
    """
    Puts each span's audio at its first token. BERT adds positions and applies its LayerNorm to the result, once.

    Args:
        words: word embeddings, float `(rows, sequence, hidden_size)`.
        positions: int64 `(rows, spans)`, -1 on padding.
        audio: float `(n, audio_hidden_size)`, an embedding for each of the `n` positions that are not padding, row by
            row.
        projection: the map from the audio encoder's width to BERT's.
        add: whether the audio is added to the word embedding; if not it takes its place.

    Returns:
        Word embeddings of the shape and dtype of `words`.
    """
    row, span = (positions >= 0).nonzero(as_tuple=True)
    # Cast on both sides of the map: under autocast what comes out of it has another dtype than its weights.
    sound = projection(audio.to(words.dtype)).to(words.dtype)
    return words.index_put((row, positions[row, span]), sound, accumulate=add)


# --- rows that hear and rows that do not -----------------------------------------------------------------------------


def rows_of(value: torch.Tensor, rows: torch.Tensor, batch: int) -> torch.Tensor:
    """These rows of a tensor that has one for each of the batch; one for the whole batch stays as it is."""
    # Position ids may be (1, sequence).
    if len(value) != batch or len(rows) == batch:
        return value
    return value[rows.to(value.device)]


def merged(plain: MaskedLMOutput, heard: MaskedLMOutput, rows: torch.Tensor) -> MaskedLMOutput:
    """The plain pass's outputs with those of the heard rows in their places."""

    def put(below: Any, above: Any) -> Any:
        return below.index_copy(0, rows.to(below.device), above)

    def put_all(below: Sequence[torch.Tensor] | None, above: Sequence[torch.Tensor] | None) -> tuple | None:
        return None if above is None or below is None else tuple(map(put, below, above))

    return MaskedLMOutput(
        logits=put(plain.logits, heard.logits),
        hidden_states=put_all(plain.hidden_states, heard.hidden_states),
        attentions=put_all(plain.attentions, heard.attentions),
    )


__all__ = ["AudioBertMaskedLMOutput", "AuditorySpan"]
