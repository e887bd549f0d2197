"""The questions as rows that a model takes, and which of a part's answers it chooses in each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.auditorybench import FEATURES
from ...data.batches import IGNORED, tokenize_auditorybench
from ...language_models.masked import check_vocabulary, context_length
from ..masked import answer_logits, batches_of_like_rows
from .questions import PARTS, SoundSwap

Row = dict[str, Any]


def question_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, swap: SoundSwap) -> list[Row]:
    """
    The tokenized questions, as `tokenize_auditorybench` gives them, and in each row:

    - number: that of the question in `swap`. Answers that need as many masks share a row; others have their own.
    - choices: by answer its word pieces, None where the tokenizer does not know one of them.
    - gold: for each span its first token and the one behind its last.

    Raises:
        ValueError: the tokenizer is not the model's, a sentence is longer than the model reads or lacks a span, or no
            answer of a question can be written in the vocabulary.
    """
    limit = context_length(model)
    rows: list[Row] = []
    for part in PARTS:
        numbers = [number for number, question in enumerate(swap.questions) if question.part == part]
        choices = swap.answers(part)
        tokenized = _tokenized(swap, numbers, choices, tokenizer, limit)
        check_vocabulary(
            model, tokenizer, (token for row in tokenized for token in (*row["input_ids"], *row["labels"]))
        )
        for place, number in enumerate(numbers):
            of_question = tokenized[place * len(choices) : (place + 1) * len(choices)]
            rows += _sharing_masks(number, dict(zip(choices, of_question, strict=True)), tokenizer, limit)
    return rows


def _tokenized(
    swap: SoundSwap,
    numbers: Sequence[int],
    choices: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
) -> list[Row]:
    written = [
        {"sentence": question.sentence, "answer": answer, "spans": list(question.spans), "task": question.task}
        for question in (swap.questions[number] for number in numbers)
        for answer in choices
    ]
    # By columns: a part without questions has no rows to take the columns from.
    columns = {name: [row[name] for row in written] for name in FEATURES}
    return tokenize_auditorybench(Dataset.from_dict(columns, features=FEATURES), tokenizer, limit).to_list()


def _sharing_masks(
    number: int, by_answer: dict[str, Row], tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> Iterator[Row]:
    by_masks: dict[tuple[int, ...], Row] = {}
    known = False
    for answer, row in by_answer.items():
        pieces = [label for label in row["labels"] if label != IGNORED]
        if not pieces:
            raise ValueError(f"{row['sentence']!r} is longer than the {limit} tokens that the model reads: shorten it.")
        if len(row["audio_positions"]) != len(row["spans"]):
            raise ValueError(f"{row['sentence']!r} does not hold the spans {row['spans']}.")
        gold = [(start, end_of_run(row["span_labels"], start)) for start in row["audio_positions"]]
        shared = by_masks.setdefault(tuple(row["input_ids"]), {**row, "number": number, "gold": gold, "choices": {}})
        shared["choices"][answer] = None if tokenizer.unk_token_id in pieces else pieces
        known |= tokenizer.unk_token_id not in pieces
    if not known:
        raise ValueError(f"The tokenizer knows none of the answers {', '.join(by_answer)}: nothing can be chosen.")
    return iter(by_masks.values())


def end_of_run(labels: Sequence[int], start: int) -> int:
    """The place behind a run of 1 that begins at `start`."""
    return next((place for place in range(start, len(labels)) if labels[place] != 1), len(labels))


def chosen_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], batch_size: int
) -> dict[int, str]:
    """
    The answer to each question, by number: the one whose pieces have the largest mean log-probability at their masks
    ("" for several). The sum would be against answers of several pieces, which have more masks to fill.

    Args:
        model, tokenizer: in evaluation mode and without gradients.
        rows: of `question_rows`, with the spans and recordings that are heard.
        batch_size: rows at once.

    Raises:
        ValueError: logits that are no numbers.
    """
    scores: dict[int, dict[str, float]] = {}
    for batch in batches_of_like_rows(list(rows), batch_size):
        logits, labels = answer_logits(model, tokenizer, batch)
        for row, at_places, masked in zip(batch, logits, labels != IGNORED, strict=True):
            found = at_places[masked].float().log_softmax(-1)
            own = scores.setdefault(row["number"], {})
            for answer, pieces in row["choices"].items():
                own[answer] = -math.inf if pieces is None else _mean_at(found, pieces)
    return {number: _best(found) for number, found in scores.items()}


def _mean_at(log_probabilities: torch.Tensor, pieces: Sequence[int]) -> float:
    return log_probabilities[range(len(pieces)), list(pieces)].mean().item()


def _best(scores: dict[str, float]) -> str:
    best = [answer for answer, score in scores.items() if score == max(scores.values())]
    return best[0] if len(best) == 1 else ""
