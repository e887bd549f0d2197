"""What an AudioBERT leaves of its BERT on plain English: false alarms, identical answers, and pseudo-perplexity."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn
from transformers import BertForMaskedLM

from ..data.batches import AudioBertDataCollator
from ..files import sha256_of
from ..hearing import detect, tokenizer_of
from ..language_models.masked import context_length, decoded
from ..language_models.modes import in_evaluation_mode, logits_of_columns
from ..language_models.numbers import refuse_no_numbers
from ..modeling import AudioBertForMaskedLM
from ..modeling.lora_audiobert import lora_switched
from ..reports.tables import TableReport, TextTable

# Whose pseudo-perplexity is measured: the BERT without an adapter; AudioBERT as in use, which detects, looks up and
# switches by itself; and with its adapter on in every sentence, but nothing heard.
PLAIN_BERT = "plain BERT"
AUDIOBERT = "AudioBERT"
LORA_FORCED_ON = "AudioBERT, LoRA forced on"
MODES = (PLAIN_BERT, AUDIOBERT, LORA_FORCED_ON)

TRAINED_ON_THIS_TEXT = (
    "The model was trained on this text: false alarms are fewer here than on a text that it has not seen."
)

# From a batch of inputs to logits `(batch, 1, vocab)` at the place that is masked in all of its rows.
Scorer = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class FalseAlarms:
    """What the detector takes for a sound in plain English."""

    passages: int
    passages_with_alarm: int
    words: int
    """Between white space."""
    spans: int

    @property
    def per_1000_words(self) -> float:
        """Spans detected per 1,000 words."""
        return 1000 * self.spans / self.words


@dataclass(frozen=True)
class IdenticalAnswers:
    """Plain prompts answered as by the BERT inside."""

    prompts: int
    heard: int
    """Prompts in which the model heard something, so that it answers with its adapter on."""
    identical: int
    """Of the others, those whose logits are BERT's bit for bit, at all places and over the whole vocabulary."""


@dataclass(frozen=True)
class PseudoPerplexity:
    """The exponential of the mean negative log-probability of a token whose place is masked."""

    value: float
    tokens: int
    passages: int


@dataclass(frozen=True)
class Preservation(TableReport):
    """What [`measure_preservation`] found."""

    alarms: FalseAlarms
    answers: IdenticalAnswers
    pseudo_perplexity: dict[str, PseudoPerplexity]
    """By one of `MODES`."""
    trained_on_this_text: bool = False
    """Whether the text, or a file of it, is one that the model was trained on, so that the figures flatter it."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preservation:
        """The inverse of `to_dict`."""
        return cls(
            FalseAlarms(**values["alarms"]),
            IdenticalAnswers(**values["answers"]),
            {mode: PseudoPerplexity(**found) for mode, found in values["pseudo_perplexity"].items()},
            # Those that were written before it was looked at say nothing of it.
            values.get("trained_on_this_text", False),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers."""
        return asdict(self)

    def _table(self) -> TextTable:
        silent = self.answers.prompts - self.answers.heard
        rows = [
            ["passages with a false alarm", f"{self.alarms.passages_with_alarm:,} of {self.alarms.passages:,}"],
            ["false alarms per 1,000 words", f"{self.alarms.per_1000_words:.3f}"],
            ["plain prompts answered bit-identically to BERT", f"{self.answers.identical:,} of {silent:,}"],
            ["plain prompts in which something was heard", f"{self.answers.heard:,} of {self.answers.prompts:,}"],
            *([f"pseudo-perplexity, {mode}", f"{found.value:.3f}"] for mode, found in self.pseudo_perplexity.items()),
        ]
        note = TRAINED_ON_THIS_TEXT if self.trained_on_this_text else ""
        return TextTable("On plain English", ("measured", "value"), rows, names=1, note=note)


def measure_preservation(
    model: AudioBertForMaskedLM,
    passages: Sequence[str],
    perplexity_passages: Sequence[str],
    batch_size: int = 64,
    progress: bool = True,
    files: Sequence[Path] = (),
) -> Preservation:
    """
    Measures what is left of the BERT inside on plain English.

    Args:
        model: with its tokenizer and, if it hears, its knowledge base.
        passages: as `read_passages` gives them: for false alarms and identical answers.
        perplexity_passages: for pseudo-perplexity, which takes a pass for every token in each of three modes; some of
            `passages`.
        batch_size: prompts at once.
        progress: whether to show a progress bar on stderr.
        files: those that the passages are of, which are compared with what the model's configuration says that it was
            trained on.

    Raises:
        ValueError: if there are no passages.
    """
    return Preservation(
        false_alarms(model, passages, batch_size),
        identical_answers(model, passages, batch_size=batch_size),
        {mode: pseudo_perplexity(model, perplexity_passages, mode, batch_size, progress) for mode in MODES},
        bool(files_trained_on(model, files)),
    )


def files_trained_on(model: AudioBertForMaskedLM, files: Sequence[Path]) -> list[Path]:
    """
    Those of the files that the model was trained on, by `config.trained_on`: whatever their names are, their bytes are
    the same. A model whose configuration says nothing gives none.
    """
    known = {text["sha256"] for text in getattr(model.config, "trained_on", None) or ()}
    return [file for file in files if known and sha256_of(file) in known]


def false_alarms(model: AudioBertForMaskedLM, passages: Sequence[str], batch_size: int = 64) -> FalseAlarms:
    """
    Counts the spans that the model's detector finds in plain text, which has no mask. Passages longer than the model
    reads are cut; their words count all the same.

    Raises:
        ValueError: if there are no passages.
    """
    _refuse_nothing(passages)
    rows = _tokenized(model, passages)
    detect(model, rows, batch_size)
    found = [len(row["span_texts"]) for row in rows]
    words = sum(len(passage.split()) for passage in passages)
    return FalseAlarms(len(passages), sum(map(bool, found)), words, sum(found))


@torch.no_grad()
def identical_answers(
    model: AudioBertForMaskedLM, passages: Sequence[str], words: int = 20, seed: int = 0, batch_size: int = 64
) -> IdenticalAnswers:
    """
    Asks plain prompts, the first words of passages with one of them masked, of the model as it is used and of a stock
    `BertForMaskedLM` with its weights, which knows of no adapter, in the same batches.

    Args:
        model: as of [`measure_preservation`].
        passages: one prompt is made of each.
        words: in a prompt at most.
        seed: of the draw of the masked words.
        batch_size: prompts at once.

    Raises:
        ValueError: if there are no passages.
    """
    _refuse_nothing(passages)
    tokenizer, draw, prompts = tokenizer_of(model), random.Random(seed), []
    for passage in passages:
        text = passage.split()[:words]
        text[draw.randrange(len(text))] = tokenizer.mask_token
        prompts.append(" ".join(text))
    bert, heard, identical = original_bert(model), 0, 0
    with in_evaluation_mode(model):
        for start in range(0, len(prompts), batch_size):
            batch = tokenizer(
                prompts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=context_length(model),
                return_tensors="pt",
            ).to(model.device)
            output, expected = model(**batch), bert(**batch).logits
            attended = batch["attention_mask"][..., None] == 1
            for logits in (output.logits, expected):
                refuse_no_numbers(model, logits.where(attended, 0), prompts[start:].__getitem__)
            for row, spans in enumerate(output.spans or [[]] * len(expected)):
                heard += bool(spans)
                identical += not spans and torch.equal(output.logits[row], expected[row])
    return IdenticalAnswers(len(prompts), heard, identical)


def pseudo_perplexity(
    model: AudioBertForMaskedLM, passages: Sequence[str], mode: str, batch_size: int = 64, progress: bool = True
) -> PseudoPerplexity:
    """
    The pseudo-perplexity of passages (Salazar et al., "Masked Language Model Scoring", 2020), over all their tokens but
    special ones and unknown words. Passages longer than the model reads are cut.

    Args:
        model: as of [`measure_preservation`].
        passages: plain text.
        mode: one of `MODES`.
        batch_size: masked passages at once.
        progress: whether to show a progress bar on stderr.

    Raises:
        ValueError: if there are no passages, the tokenizer knows no word of them, or for another mode.
    """
    _refuse_nothing(passages)
    score = _scorer(model, mode)
    special = set(tokenizer_of(model).all_special_ids)
    # All rows of a batch have their mask in one place, so that the vocabulary is scored there alone.
    by_place: dict[int, list[dict[str, list[int]]]] = {}
    for row in _tokenized(model, passages):
        for place, token in enumerate(row["input_ids"]):
            if token not in special:
                by_place.setdefault(place, []).append(row)
    total, tokens = 0.0, sum(map(len, by_place.values()))
    if not tokens:
        raise ValueError("The tokenizer knows no word of the passages, so none can be predicted: give English text.")
    with (
        torch.no_grad(),
        in_evaluation_mode(model),
        Progress(console=Console(stderr=True), disable=not progress) as bar,
    ):
        task = bar.add_task(f"pseudo-perplexity, {mode}", total=tokens)
        for place, rows in by_place.items():
            for start in range(0, len(rows), batch_size):
                chosen = rows[start : start + batch_size]
                total += _negative_log_probability(model, chosen, place, score)
                bar.advance(task, len(chosen))
    return PseudoPerplexity(math.exp(total / tokens), tokens, len(passages))


def _negative_log_probability(
    model: AudioBertForMaskedLM, rows: Sequence[dict[str, list[int]]], place: int, score: Scorer
) -> float:
    tokenizer = tokenizer_of(model)
    batch = {name: value.to(model.device) for name, value in AudioBertDataCollator(tokenizer)(rows).items()}
    wanted = batch["input_ids"][:, place].clone()
    batch["input_ids"][:, place] = tokenizer.mask_token_id
    with logits_of_columns(model, torch.tensor([place])):
        logits = score(batch)[:, 0]
    refuse_no_numbers(model, logits, lambda row: decoded(tokenizer, rows[row]["input_ids"], True))
    return nn.functional.cross_entropy(logits.float(), wanted, reduction="sum").item()


def _scorer(model: AudioBertForMaskedLM, mode: str) -> Scorer:
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}.")
    if mode == AUDIOBERT:
        return lambda batch: model(**batch).logits

    def of_text_model(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with lora_switched(mode == LORA_FORCED_ON):
            return model.text_model(**batch).logits

    return of_text_model


def original_bert(model: AudioBertForMaskedLM) -> BertForMaskedLM:
    """The BERT that an AudioBERT started from: the same weights, in a stock class that knows of no adapter."""
    bert = BertForMaskedLM(model.config.text_config)
    weights = model.text_model.state_dict()
    # An adapted layer keeps its original under `base_layer`.
    bert.load_state_dict({name.replace(".base_layer.", "."): w for name, w in weights.items() if "lora_" not in name})
    # The types of transformers take the decorated method for one without `self`.
    return bert.to(model.device, model.dtype).eval()  # type: ignore[arg-type]


def _tokenized(model: AudioBertForMaskedLM, passages: Sequence[str]) -> list[dict[str, list[int]]]:
    """What the model takes of each passage, by name."""
    tokenizer = tokenizer_of(model)
    encoded = tokenizer(list(passages), truncation=True, max_length=context_length(model))
    names = tokenizer.model_input_names
    return [{name: encoded[name][row] for name in names} for row in range(len(passages))]


def _refuse_nothing(passages: Sequence[str]) -> None:
    if not passages or not all(passage.strip() for passage in passages):
        raise ValueError("There are no passages to measure on, or one is empty: give plain text by `read_passages`.")
