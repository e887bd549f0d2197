"""Answers to prompts, with what the model heard and what it would say without hearing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from .language_models.masked import decoded
from .language_models.numbers import refuse_no_numbers
from .modeling import AudioBertForMaskedLM, AuditorySpan


@dataclass(frozen=True)
class Answer:
    """A word piece for a mask and its probability, from 0 to 1."""

    token: str
    probability: float


@dataclass(frozen=True)
class HeardSpan:
    """A detected span and the characters `prompt[start:end]` that it covers."""

    start: int
    end: int
    span: AuditorySpan


@dataclass(frozen=True)
class PromptAnswer:
    """
    The answer to one prompt.

    Attributes:
        prompt: the prompt as it was given.
        answers: for each mask the best word pieces, best first.
        answers_without_audio: the same from the plain BERT that the model started from.
        spans: what was detected and retrieved, and whether it was heard (`AuditorySpan.injected`).
        min_similarity: below it the best recording of a span is too far to be heard; None where none is.
        error: why the prompt has no answer, else None.
    """

    prompt: str
    answers: list[list[Answer]] = field(default_factory=list)
    answers_without_audio: list[list[Answer]] = field(default_factory=list)
    spans: list[HeardSpan] = field(default_factory=list)
    min_similarity: float | None = None
    error: str | None = None


def prompt_error(prompt: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str | None:
    """What is wrong with a prompt and how to mend it; None if nothing is."""
    tokens = tokenizer(prompt)["input_ids"]
    if tokenizer.mask_token_id not in tokens:
        return f"The prompt {prompt!r} has no {tokenizer.mask_token}: write it where the answer belongs."
    if len(tokens) > max_length:
        return f"The prompt {prompt[:40]!r}... has {len(tokens)} tokens, the model reads {max_length}: shorten it."
    return None


@torch.no_grad()
def answer_prompts(
    model: AudioBertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    top_k: int = 5,
    batch_size: int = 32,
) -> list[PromptAnswer]:
    """
    Answers each prompt; one that cannot be answered carries its `error` and does not hold up the others.

    Args:
        model: in evaluation mode.
        tokenizer: its tokenizer, a fast one.
        prompts: any number, each with at least one mask.
        top_k: answers per mask.
        batch_size: prompts per forward pass.

    Raises:
        ValueError: the model's logits are no numbers.
    """
    max_length = model.config.text_config.max_position_embeddings
    errors = [prompt_error(prompt, tokenizer, max_length) for prompt in prompts]
    good = [prompt for prompt, error in zip(prompts, errors, strict=True) if error is None]
    answered: list[PromptAnswer] = []
    for start in range(0, len(good), batch_size):
        answered += _answer_batch(model, tokenizer, good[start : start + batch_size], top_k)
    remaining = iter(answered)
    return [
        next(remaining) if error is None else PromptAnswer(prompt, error=error)
        for prompt, error in zip(prompts, errors, strict=True)
    ]


def _answer_batch(
    model: AudioBertForMaskedLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], top_k: int
) -> list[PromptAnswer]:
    batch = tokenizer(prompts, return_tensors="pt", padding=True, return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")
    batch = batch.to(model.device)
    heard = model(**batch)
    # Where nothing was heard the answer is plain BERT's already. A row without positions is plain BERT's, too.
    without_audio = heard.logits
    if any(heard.spans or ()):
        silent = torch.full((len(prompts), 1), -1, device=model.device)
        without_audio = model(**batch, audio_positions=silent).logits
    attended = batch["attention_mask"][..., None] == 1
    for logits in (heard.logits, without_audio):
        refuse_no_numbers(model, logits.where(attended, 0), prompts.__getitem__)
    results = []
    for row, prompt in enumerate(prompts):
        masks = batch["input_ids"][row] == tokenizer.mask_token_id
        spans = [
            HeardSpan(int(offsets[row, span.start, 0]), int(offsets[row, span.end - 1, 1]), span)
            for span in (heard.spans[row] if heard.spans is not None else [])
        ]
        results.append(
            PromptAnswer(
                prompt,
                answers=_best(heard.logits[row, masks], tokenizer, top_k),
                answers_without_audio=_best(without_audio[row, masks], tokenizer, top_k),
                spans=spans,
                min_similarity=model.config.retrieval_min_similarity,
            )
        )
    return results


def _best(logits: torch.Tensor, tokenizer: PreTrainedTokenizerBase, top_k: int) -> list[list[Answer]]:
    values, tokens = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]))
    return [
        [Answer(decoded(tokenizer, token), value) for value, token in zip(row_values, row_tokens, strict=True)]
        for row_values, row_tokens in zip(values.tolist(), tokens.tolist(), strict=True)
    ]
