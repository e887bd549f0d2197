"""A model and all its controls, asked the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answering import BLIND_CLAP, END_TO_END, LISTENERS, answer_questions
from .answers import SwapAnswer
from .questions import SoundSwap
from .without_hearing import LINEAR, MAJORITY, linear_answers, majority_answers

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def answers_of_all(
    model: Loaded,
    swap: SoundSwap,
    *,
    listeners: Sequence[str] = LISTENERS,
    controls: Mapping[str, Loaded] | None = None,
    train: Dataset | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[SwapAnswer]]:
    """
    Args:
        model: a masked language model and its tokenizer.
        swap: the questions.
        listeners: of a model that hears, see `answer_questions`.
        controls: other models by name, such as one that was trained without audio. Of one that hears, how it answers
            end to end and by blind CLAP: it may have been trained on either.
        train: split train of AuditoryBench, from which the linear text-only control learns; without it there is none.
        batch_size, seed, progress: as of `answer_questions`.

    Returns:
        By listener the answers in the order of the questions. Those of another model begin with its name.

    Raises:
        ValueError: as `answer_questions`.
    """
    # First, as they are quick: what is wrong with the data shows before a model has run.
    beside = {MAJORITY: majority_answers(swap)}
    if train is not None:
        beside = {LINEAR: linear_answers(swap, train), **beside}
    how: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    answers = answer_questions(*model, swap, listeners=listeners, **how)
    for name, control in (controls or {}).items():
        found = answer_questions(*control, swap, listeners=(END_TO_END, BLIND_CLAP), **how)
        answers.update({f"{name}, {listener}": given for listener, given in found.items()})
    return {**answers, **beside}
