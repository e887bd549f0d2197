"""Four-choice accuracy: which of the options A to D a model puts in the place of `[MASK]`."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.auditorybench import MASK
from ..data.masking import MaskedSentence, mask_answers
from ..language_models.likelihood import Blank, likelihoods
from ..language_models.masked import check_masked_model, context_length
from ..language_models.modes import in_evaluation_mode
from ..language_models.numbers import refuse_no_numbers
from ..llm.templates import fill
from ..reports.tables import TableReport, TextTable, percent
from .predictions import RowPrediction
from .prompting import load_prompt, replied_choice

if TYPE_CHECKING:
    from ..llm.client import ChatModel

LETTERS = ("A", "B", "C", "D")
CHOICE_PROMPT = "choice_question.txt"
_COLUMNS = ("animal", "span", "sentence", *LETTERS, "Answer")


@dataclass(frozen=True)
class ChoiceRow:
    """A prompt with four options; `letter` is that of the right one, as the data has it."""

    sentence: str
    answer: str
    span: str
    options: tuple[str, str, str, str]
    letter: str

    @property
    def contradicts(self) -> bool:
        """Whether the letter is that of another option than the answer."""
        return self.options[LETTERS.index(self.letter)] != self.answer


def load_choices(path: str | Path) -> list[ChoiceRow]:
    """
    Reads a CSV file with the columns animal, span, sentence, A, B, C, D and Answer (a letter).

    Rows whose letter contradicts the answer are kept (12 of 4,211 in the published `animal_train_with_choices.csv`):
    see `ChoiceResult` for how they count.

    Raises:
        ValueError: for a missing column, and, with its line, for a row without `[MASK]`, with an unknown letter, with
            an empty or a double option, or whose answer is none of its options.
        FileNotFoundError: there is no such file.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}: no column {', '.join(missing)}; its columns are {reader.fieldnames or 'none'}.")
        try:
            return [_choice_row(row, f"{path}, line {reader.line_num}") for row in reader]
        except csv.Error as error:
            raise ValueError(f"{path}, after line {reader.line_num}: no valid CSV ({error}).") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not encoded in UTF-8 ({error.reason}); save it as UTF-8.") from error


def _choice_row(row: dict[str, Any], where: str) -> ChoiceRow:
    if None in row or None in row.values():
        raise ValueError(f"{where}: the row has more or fewer fields than the header.")
    options = tuple(row[letter] for letter in LETTERS)
    if MASK not in row["sentence"]:
        raise ValueError(f"{where}: the sentence {row['sentence']!r} has no {MASK} for the answer.")
    if row["Answer"] not in LETTERS:
        raise ValueError(f"{where}: the answer's letter must be one of {', '.join(LETTERS)}, got {row['Answer']!r}.")
    if not all(option.strip() for option in options) or len(set(options)) != len(options):
        raise ValueError(f"{where}: the four options must be there and differ, got {', '.join(options)}.")
    if row["animal"] not in options:
        raise ValueError(f"{where}: the answer {row['animal']!r} is none of the options {', '.join(options)}.")
    return ChoiceRow(row["sentence"], row["animal"], row["span"], options, row["Answer"])


# --- choosing --------------------------------------------------------------------------------------------------------


def choose_causal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[ChoiceRow],
    *,
    batch_size: int = 8,
    normalised: bool = False,
) -> list[str]:
    """
    The letter of the option with which a causal language model finds the sentence likeliest; "" for several.

    Args:
        normalised: go by the mean over tokens, which is not in favour of short options (see `likelihoods`, where the
            errors are told as well).
    """
    blanks = [Blank(row.sentence, row.options) for row in rows]
    found = likelihoods(model, tokenizer, blanks, batch_size=batch_size)
    return [_letter([score.mean if normalised else score.total for score in scores]) for scores in found]


@torch.no_grad()
def choose_masked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[ChoiceRow], *, batch_size: int = 32
) -> list[str]:
    """
    The letter of the option that a masked language model expects most in the place of `[MASK]`; "" for several.

    The option is masked as `mask_answers` does it: as many masks as it has pieces in this place of this sentence. The
    score is the mean over the pieces of the logarithm of their probability, all masked at once: the sum would be
    against options of several pieces, which have more masks to fill. An option with a piece that the tokenizer does not
    know is chosen last.

    Raises:
        ValueError: for a model that is no masked one, a tokenizer that has no mask token or is no fast one, a sentence
            that is longer than the model's context, or logits that are no numbers.
    """
    check_masked_model(model)
    limit = context_length(model)
    pairs = [(row.sentence, option) for row in rows for option in row.options]
    masked = mask_answers([sentence for sentence, _ in pairs], [option for _, option in pairs], tokenizer, limit)
    for sentence, text in zip(masked, pairs, strict=True):
        if not sentence.pieces:
            raise ValueError(
                f"The sentence {text[0][:60]!r}... is longer than the {limit} tokens that the model reads, so that its "
                f"{MASK} is cut off: shorten it."
            )
    scores: dict[int, float] = {}
    by_length = sorted(range(len(masked)), key=lambda index: len(masked[index].inputs["input_ids"]))
    with in_evaluation_mode(model):
        for first in range(0, len(masked), batch_size):
            chosen = by_length[first : first + batch_size]
            texts = [pairs[index][0] for index in chosen]
            scored = _mask_scores(model, tokenizer, [masked[index] for index in chosen], texts)
            scores.update(zip(chosen, scored, strict=True))
    return [_letter([scores[index * 4 + option] for option in range(4)]) for index in range(len(rows))]


def choose_served(chat: ChatModel, rows: Sequence[ChoiceRow], *, prompt: str | Path | None = None) -> list[str]:
    """
    The letter that a served model replies with; "" for any other reply.

    Args:
        chat: the model.
        rows: what it is asked.
        prompt: a file of your own with `{{sentence}}`, `{{A}}`, `{{B}}`, `{{C}}` and `{{D}}`, in the place of the
            package's `prompts/choice_question.txt`.

    Raises:
        ValueError: a placeholder is missing, or no reply at all is an answer.
        OSError: as `predict_served`.
    """
    from .served import ask_all, refuse_no_answers

    template = load_prompt(prompt, CHOICE_PROMPT, ("sentence", *LETTERS))
    prompts = [
        fill(template, {"sentence": row.sentence, **dict(zip(LETTERS, row.options, strict=True))}) for row in rows
    ]
    replies = ask_all(chat, prompts)
    chosen = [replied_choice(reply, LETTERS) for reply in replies]
    refuse_no_answers(chat, chosen, [row.sentence for row in rows], replies)
    return chosen


def _letter(scores: Sequence[float]) -> str:
    best = max(scores)
    return LETTERS[scores.index(best)] if scores.count(best) == 1 else ""


def _mask_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[MaskedSentence],
    texts: Sequence[str],
) -> list[float]:
    inputs = [sentence.inputs for sentence in sentences]
    batch = tokenizer.pad(inputs, padding_side="right", return_tensors="pt").to(model.device)
    logits = model(**batch).logits
    scores = []
    for row, sentence, text in zip(logits, sentences, texts, strict=True):
        pieces, at_masks = list(sentence.pieces.values()), row[list(sentence.pieces)].float()
        refuse_no_numbers(model, at_masks[None], [text].__getitem__)
        loss = cross_entropy(at_masks, torch.tensor(pieces, device=row.device))
        scores.append(-math.inf if tokenizer.unk_token_id in pieces else -loss.item())
    return scores


# --- counting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChoiceResult(TableReport):
    """
    Four-choice accuracy.

    Where the letter contradicts the answer, the answer counts: `correct` and `accuracy` go by it, `correct_by_letter`
    and `accuracy_by_letter` by the letter, in the same rows.
    """

    rows: int
    correct: int
    accuracy: float | None
    """From 0 to 1; None for no rows."""
    correct_by_letter: int
    accuracy_by_letter: float | None
    unanswered: int
    """Rows for which no option was chosen; they are wrong."""
    contradictions: tuple[int, ...]
    """The rows, numbered from 0, whose letter is that of another option than the answer."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; shares stay between 0 and 1."""
        return asdict(self)

    def _table(self) -> TextTable:
        names, values = zip(*self._cells(), strict=True)
        numbers = f" (rows {', '.join(map(str, self.contradictions))})" if self.contradictions else ""
        note = f"In {len(self.contradictions):,} of {self.rows:,} rows the letter contradicts the answer{numbers}."
        return TextTable("Four choices", names, [values], names=0, note=note)

    def _cells(self) -> Iterator[tuple[str, str]]:
        yield "rows", f"{self.rows:,}"
        yield "accuracy", percent(self.accuracy)
        yield "accuracy by letter", percent(self.accuracy_by_letter)
        yield "unanswered", f"{self.unanswered:,}"
        yield "contradictions", f"{len(self.contradictions):,}"


def choice_predictions(rows: Sequence[ChoiceRow], chosen: Sequence[str], split: str = "choices") -> list[RowPrediction]:
    """The chosen options as answers of the animal task, judged by the answer.

    Args:
        rows: what was asked.
        chosen: a letter for each, "" for none, as `choose_causal`, `choose_masked` and `choose_served` give them.
        split: the name that the rows get.
    """
    return [
        RowPrediction(
            split=split,
            task="animal",
            row=number,
            sentence=row.sentence,
            answer=row.answer,
            spans=(row.span,),
            predicted=row.options[LETTERS.index(letter)] if letter else "",
            correct=bool(letter) and row.options[LETTERS.index(letter)] == row.answer,
        )
        for number, (row, letter) in enumerate(zip(rows, chosen, strict=True))
    ]


def choice_accuracy(rows: Sequence[ChoiceRow], chosen: Sequence[str]) -> ChoiceResult:
    """Counts the right ones of the letters that were chosen, "" for none."""
    correct = sum(prediction.correct for prediction in choice_predictions(rows, chosen))
    by_letter = sum(row.letter == letter for row, letter in zip(rows, chosen, strict=True))
    return ChoiceResult(
        rows=len(rows),
        correct=correct,
        accuracy=correct / len(rows) if rows else None,
        correct_by_letter=by_letter,
        accuracy_by_letter=by_letter / len(rows) if rows else None,
        unanswered=sum(not letter for letter in chosen),
        contradictions=tuple(number for number, row in enumerate(rows) if row.contradicts),
    )
