"""Answers of causal language models (Gemma, LLaMA, Qwen, ...) to AuditoryBench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from rich.progress import Progress
from transformers import GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

from ..data.auditorybench import PITCH_ANSWERS
from ..language_models.causal import refuse_other_models, refuse_too_long, text_ids
from ..language_models.likelihood import Blank, Likelihood, likelihoods
from ..language_models.modes import in_evaluation_mode
from ..language_models.numbers import refuse_no_numbers
from ..llm.templates import fill
from .predictions import RowPrediction
from .prompting import answer_set, completed_animal, load_prompt, rows_by_split, same_animal

RANK_PROMPT = "rank.txt"
COMPLETION_PROMPT = "animal_completion.txt"
# Tokens that an animal may take; what a model writes after it is cut off anyway.
MOST_NEW_TOKENS = 16

Method = Literal["rank", "rank-normalised", "generate"]


def predict_causal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: DatasetDict | Dataset,
    *,
    splits: Sequence[str] | None = None,
    batch_size: int = 8,
    method: Method = "rank",
    prompt: str | Path | None = None,
    progress: bool = True,
) -> list[RowPrediction]:
    """
    Answers AuditoryBench with a causal language model.

    Pitch, in every method: the sentence with "higher" and the one with "lower" in the place of `[MASK]`; the answer is
    that of the likelier sentence. Both are taken whole, so a tokenizer may split the words as it likes. Animals:

    - "rank": every answer of the answer set (see `answer_set`: 560 to 629 animals) is put into the sentence, in lower
      case; the answer is that of the likeliest sentence.
    - "rank-normalised": the same by the mean over tokens of the answer and what follows it, which is not in favour of
      short names.
    - "generate": the model goes on after the prompt, always by the likeliest token (16 at most); the name at the
      beginning of what it writes (`completed_animal`) has to be the answer but for form (`same_animal`).

    Where answers are equally likely none is given: `predicted` is "", which is wrong. So it is where a model writes no
    name. No chat template is applied: a model behind one is asked through a server (`predict_served`).

    Args:
        model: any causal language model, see `load_causal`; on whatever devices it is on.
        tokenizer: the model's.
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.
        batch_size: texts per batch.
        method: how animals are answered.
        prompt: a file of your own with `{{sentence}}`, in the place of the package's. When ranking, it is the text
            whose likelihood is taken, of pitch and animals both (the sentence alone, `prompts/rank.txt`). In "generate"
            it is what animals are asked with, the sentence with its `[MASK]` (`prompts/animal_completion.txt`, with
            three examples that speak of no sound); pitch is ranked with the sentence alone.
        progress: whether to show progress bars on stderr.

    Returns:
        One prediction per row, split by split in the data's order; none of a split without rows.

    Raises:
        ValueError: for a split or a method that is not there, a prompt without `{{sentence}}`, and as `likelihoods`.
        OSError: the prompt's file cannot be read.
    """
    if method not in ("rank", "rank-normalised", "generate"):
        raise ValueError(f"`method` must be 'rank', 'rank-normalised' or 'generate', got {method!r}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` has to be at least 1, got {batch_size}.")
    refuse_other_models(model)
    generating = method == "generate"
    ranking = load_prompt(None if generating else prompt, RANK_PROMPT)
    completion = load_prompt(prompt if generating else None, COMPLETION_PROMPT)

    predictions: list[RowPrediction] = []
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        for split, rows in rows_by_split(dataset, splits).items():
            advance = partial(bar.advance, bar.add_task(split, total=len(rows)))
            is_written = [generating and row["task"] != "pitch" for row in rows]
            candidates = [] if generating else answer_set(dataset, rows)
            blanks = [
                _blank(row["sentence"], PITCH_ANSWERS if row["task"] == "pitch" else candidates, ranking)
                for row, written in zip(rows, is_written, strict=True)
                if not written
            ]
            found = likelihoods(model, tokenizer, blanks, batch_size=batch_size, advance=advance)
            ranked = (_best(blank, scores, method) for blank, scores in zip(blanks, found, strict=True))
            prompts = [
                fill(completion, {"sentence": row["sentence"]})
                for row, written in zip(rows, is_written, strict=True)
                if written
            ]
            texts = generated(model, tokenizer, prompts, batch_size=batch_size, advance=advance)
            completed = map(completed_animal, texts)
            for number, (row, written) in enumerate(zip(rows, is_written, strict=True)):
                predicted = next(completed if written else ranked)
                right = same_animal(predicted, row["answer"]) if written else predicted == row["answer"].lower()
                predictions.append(RowPrediction.of(split, number, row, predicted, right))
    return predictions


@torch.no_grad()
def generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """
    What the model writes after each text, by the likeliest token; batches are padded on the left.

    Raises:
        ValueError: a text is longer than the model's context, or a logit is not a number.
    """
    rows = text_ids(tokenizer, list(texts)) if texts else []
    for row, text in zip(rows, texts, strict=True):
        refuse_too_long(model, len(row) + MOST_NEW_TOKENS, text)
    if not rows:
        return []
    # Not looked at, and left out of what is written. A padding token of the tokenizer may be unknown to the model.
    padding = rows[0][0]
    written: dict[int, str] = {}
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    with in_evaluation_mode(model):
        for first in range(0, len(rows), batch_size):
            chosen = by_length[first : first + batch_size]
            width = max(len(rows[index]) for index in chosen)
            input_ids = torch.tensor([[padding] * (width - len(rows[i])) + rows[i] for i in chosen])
            mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in chosen])
            output = cast(GenerationMixin, model).generate(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=MOST_NEW_TOKENS,
                pad_token_id=padding,
                # Whatever the checkpoint's own settings are.
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
                # As the model gives them: what settings forbid is minus infinity in those that are generated from.
                output_logits=True,
                return_dict_in_generate=True,
            )
            for logits in output.logits:
                refuse_no_numbers(model, logits, [texts[index] for index in chosen].__getitem__)
            ends = tokenizer.batch_decode(output.sequences[:, width:], skip_special_tokens=True)
            written.update(zip(chosen, ends, strict=True))
            advance(len(chosen))
    return [written[index] for index in range(len(rows))]


def _blank(sentence: str, answers: Sequence[str], prompt: str) -> Blank:
    # A character that is in no text marks the sentence's place.
    head, *tails = fill(prompt, {"sentence": "\0"}).split("\0")
    if len(tails) != 1:
        raise ValueError("A prompt for ranking has to hold {{sentence}} once: the answer is put into its sentence.")
    return Blank(sentence, answers, head, tails[0])


def _best(blank: Blank, scores: Sequence[Likelihood], method: str) -> str:
    values = [score.mean if method == "rank-normalised" else score.total for score in scores]
    best = max(values)
    return blank.answers[values.index(best)] if values.count(best) == 1 else ""
