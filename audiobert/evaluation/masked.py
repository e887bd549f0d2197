"""Scoring a model on AuditoryBench: answers per task and split, and the span detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from inspect import signature
from typing import Any, Literal, TypeGuard

import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from rich.progress import Progress
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.auditorybench import FEATURES, PITCH_ANSWERS, choose_splits
from ..data.batches import IGNORED, AudioBertDataCollator, HearingCollator, alignment_report, tokenize_auditorybench
from ..data.masking import mask_answers
from ..hearing import LABEL_TEXT, Hearing, check_hearing, detect, hear, sounds_of, tokenizer_of, ways_found
from ..language_models.masked import check_masked_model, check_vocabulary, context_length, decoded
from ..language_models.modes import in_evaluation_mode, logits_of_columns
from ..language_models.numbers import refuse_no_numbers
from ..modeling import AudioBertForMaskedLM
from ..modeling.injection_audiobert import weighted_mean
from ..reports.tables import TableReport, TextTable, percent
from .metrics import answer_is_right, answer_scores, best_tokens, span_exact_scores, span_token_scores
from .predictions import COMBINED, RowPrediction


@dataclass(frozen=True)
class Scores:
    """Scores of one task in one split; all but counts are shares from 0 to 1."""

    rows: int
    correct: int
    """Rows whose answer is right: all its word pieces, or for pitch the more probable of the two."""
    accuracy: float
    rows_labelled: int
    """Rows all of whose spans are in their sentence: of the others nobody knows which tokens are auditory."""
    span_precision: float | None
    """Of the tokens of spans, over the labelled rows together; None, like all of the detector's, if there is none."""
    span_recall: float | None
    span_f1: float | None
    span_exact_f1: float | None
    """F1 of spans with both ends right, over the labelled rows."""
    span_f1_all_rows: float | None
    """F1 of tokens over all rows, a span that is not in its sentence counted as if there were none to find."""
    rows_detected: int | None
    """Rows in which the detector found a span."""
    spans: int
    """Spans of the data that are not empty."""
    unaligned_spans: int
    """Of these, those that are not in their sentence, so that neither detector nor gold spans have them."""
    rows_without_span: int
    """Rows no span of which is aligned; the detector is right if it finds nothing there."""


@dataclass(frozen=True)
class EvaluationResult(TableReport):
    """What [`evaluate_model`] found."""

    scores: dict[str, dict[str, Scores]]
    """By split, then by task: animal, pitch, and, where both are there, "combined" over the rows of both (so the
    paper's 62.97 on test is (36.69 * 1211 + 76.31 * 2387) / 3598)."""
    spans: str
    """Whether the spans were "detected" by the model or "gold"; "none" of a model that looks for none."""
    audio: str
    """Whether the model's audio was "on" or "off"; "none" of a model that has none."""
    hearing: str = "retrieved"
    """What was heard at the spans, see `audiobert.hearing.hear`; "none" where audio was not on."""
    model: str = ""
    """The name of the model's class."""
    rows: list[RowPrediction] = field(default_factory=list, repr=False)
    """What the model answered to each row, split by split in the data's order. For pitch `predicted` is "higher" or
    "lower", or empty where both are as probable or the mask was cut off; otherwise the best word pieces as text."""
    similarities: dict[tuple[str, int], float] = field(default_factory=dict, repr=False)
    """By split and number of the row: how similar to its spans, on the mean, what was retrieved for them is; of the
    rows for which something was."""

    found: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By split and task how many spans were found by sound, by name, or too far, see `audiobert.hearing.ways_found`;
    empty where nothing was looked up to be heard as it is."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers, without `rows` and `similarities`; shares stay between 0 and 1."""
        scores = {
            split: {task: asdict(scores) for task, scores in by_task.items()} for split, by_task in self.scores.items()
        }
        settings = {name: getattr(self, name) for name in ("model", "spans", "audio", "hearing")}
        return {"scores": scores, **settings, "found": self.found}

    def _table(self) -> TextTable:
        return TextTable(self._title(), _HEADER, list(self._cells()), names=2, note=self._note())

    def _note(self) -> str:
        ways: Counter[str] = Counter()
        for by_task in self.found.values():
            for of_task in by_task.values():
                ways.update(of_task)
        said = [f"{ways[way]:,} {words}" for way, words in _WAYS.items() if ways[way]]
        return f"Spans: {', '.join(said)}." if said else ""

    def _title(self) -> str:
        parts = ["AuditoryBench", *([self.model] if self.model else [])]
        parts.append("no audio" if self.audio == "none" else f"audio {self.audio}")
        if self.hearing not in ("none", "retrieved"):
            parts.append(f"{self.hearing} heard")
        if self.spans != "none":
            parts.append(f"{self.spans} spans")
        return ", ".join(parts)

    def _cells(self) -> Iterator[list[str]]:
        for split, by_task in self.scores.items():
            for task, scores in by_task.items():
                yield [
                    split,
                    task,
                    f"{scores.rows:,}",
                    percent(scores.accuracy),
                    percent(scores.span_precision),
                    percent(scores.span_recall),
                    percent(scores.span_f1),
                    percent(scores.span_exact_f1),
                    f"{scores.rows_labelled:,}",
                    "-" if scores.rows_detected is None else f"{scores.rows_detected:,}",
                    f"{scores.unaligned_spans:,}",
                ]


_WAYS = {"by sound": "found by sound", "by name": "found by name", "too far": "too far to be heard"}
_HEADER = [
    *("split", "task", "rows", "accuracy"),
    *("span precision", "span recall", "span F1", "exact span F1", "rows labelled"),
    *("rows with detected span", "unaligned spans"),
]


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: DatasetDict | Dataset,
    *,
    splits: Sequence[str] | None = None,
    batch_size: int = 32,
    spans: Literal["detected", "gold"] = "detected",
    audio: Literal["on", "off"] = "on",
    hearing: Hearing = "retrieved",
    seed: int = 0,
    progress: bool = True,
) -> EvaluationResult:
    """
    Scores a masked language model of any family on AuditoryBench, on the device it is on, in evaluation mode.

    An animal's name is right if the most probable token at each of its masks is right; there are as many masks as the
    tokenizer makes tokens of the name in its place (see `mask_answers`). Pitch is right if the answer is more probable
    than the other one of "higher" and "lower": for one token each that is the larger of two logits at one mask. Where
    the tokenizer splits one of them, each is given as many masks as it has tokens, and the sums of their
    log-probabilities are compared, so a word bears the cost of being split. An answer that is cut off, whole or in
    part, because the model does not read that far, is wrong. A split without rows has no scores.

    Args:
        model: an `AudioBertForMaskedLM`, or any other masked language model (which has no detector and no audio), as
            `load_masked` gives it.
        tokenizer: the model's.
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.
        batch_size: rows per batch; rows of like length share a batch.
        spans: "detected": the model finds the spans and looks them up, as in use (the paper's figures); "gold": it is
            told where the annotated spans are, and they are looked up as they are written in the data.
        audio: "off" gives the answers of the BERT inside, with the adapter off.
        hearing, seed: what the model is given to hear at the spans, see `audiobert.hearing.hear`: what it retrieves, as
            in use, or what a control has in its place.
        progress: whether to show a progress bar on stderr.

    Raises:
        ValueError: for a split that is not there, an unknown mode, an AudioBERT without its knowledge base, gold spans
            or a way of hearing of a model that has no audio or that is off, a model or a tokenizer that does not fill
            masks, one that is not the other's, or one that does not know "higher" or "lower", or logits that are no
            numbers.
    """
    _check_modes(model, spans, audio, hearing)
    check_masked_model(model)
    parts = choose_splits(dataset, splits)
    for name, part in parts.items():
        if "task" not in part.column_names:
            raise ValueError(f"Split {name} has no column task; its columns are {part.column_names}.")
    max_length = context_length(model)
    tokenized = {name: tokenize_auditorybench(part, tokenizer, max_length) for name, part in parts.items()}
    rows_by_split = {name: part.to_list() for name, part in tokenized.items()}
    for rows in rows_by_split.values():
        check_vocabulary(model, tokenizer, (token for row in rows for token in (*row["input_ids"], *row["labels"])))
        _add_other_pitch(rows, tokenizer, max_length)

    similarities, found = {}, {}
    with (
        torch.no_grad(),
        in_evaluation_mode(model),
        Progress(console=Console(stderr=True), disable=not progress) as bar,
    ):
        for name, rows in rows_by_split.items():
            others = [row["other"] for row in rows if row["other"] is not None]
            passes = 2 if is_audiobert(model) else 1
            advance = partial(bar.advance, bar.add_task(name, total=passes * (len(rows) + len(others))))
            if is_audiobert(model):
                # Together: a row with the one answer and with the other is to hear the same draw from the same sounds.
                similar = _listen(model, [*rows, *others], batch_size, spans, audio, hearing, seed, advance)
                similarities.update({(name, row): value for row, value in similar.items() if row < len(rows)})
                if similar and hearing == "retrieved":
                    found[name] = {
                        task: dict(ways_found(model, [rows[index] for index in indices]))
                        for task, indices in _rows_by_task(rows).items()
                        if task != COMBINED
                    }
            for chosen in (*batches_of_like_rows(rows, batch_size), *batches_of_like_rows(others, batch_size)):
                _predict(model, tokenizer, chosen)
                advance(len(chosen))
    answered = {
        name: [_prediction(name, number, row, tokenizer) for number, row in enumerate(rows)]
        for name, rows in rows_by_split.items()
    }
    scores = {name: _scores_by_task(part, rows_by_split[name], answered[name]) for name, part in tokenized.items()}
    rows_of_all = [row for rows in answered.values() for row in rows]
    return EvaluationResult(
        scores,
        **_what_was_heard(model, spans, audio, hearing),
        rows=rows_of_all,
        similarities=similarities,
        found=found,
    )


def evaluate_detector(
    model: AudioBertForMaskedLM,
    dataset: DatasetDict | Dataset,
    *,
    splits: Sequence[str] | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """
    Scores the span detector of an `AudioBertForMaskedLM` alone.

    Args:
        model: with its tokenizer, on the device it is on.
        dataset, splits, batch_size: as of [`evaluate_model`].

    Returns:
        By split and task (and "combined") the fields of [`Scores`] that are of the detector, and `rows`.
    """
    scores: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for name, part in choose_splits(dataset, splits).items():
        rows = tokenize_auditorybench(part, tokenizer_of(model), context_length(model)).to_list()
        for row in rows:
            row["aligned"] = len(row["audio_positions"])
        detect(model, rows, batch_size)
        scores[name] = {
            task: {"rows": len(indices), **_detector_scores([rows[index] for index in indices])}
            for task, indices in _rows_by_task(rows).items()
        }
    return scores


def _what_was_heard(model: PreTrainedModel, spans: str, audio: str, hearing: str) -> dict[str, str]:
    """What a table says of the model; the defaults of `evaluate_model` are no settings of a model without audio."""
    kind = type(model).__name__
    if not is_audiobert(model):
        return {"model": kind, "spans": "none", "audio": "none", "hearing": "none"}
    if audio == "on" and model.config.injection == "none":
        # A text-only control: its adapter is on where there are spans, and labels can be written there.
        audio, hearing = "none", hearing if hearing == LABEL_TEXT else "none"
    return {"model": kind, "spans": spans, "audio": audio, "hearing": "none" if audio == "off" else hearing}


def _check_modes(model: PreTrainedModel, spans: str, audio: str, hearing: Hearing) -> None:
    for name, value, modes in (("spans", spans, ("detected", "gold")), ("audio", audio, ("on", "off"))):
        if value not in modes:
            raise ValueError(f"`{name}` must be {' or '.join(map(repr, modes))}, got {value!r}.")
    if audio == "off" and (spans == "gold" or hearing != "retrieved"):
        raise ValueError("With `audio='off'` nothing is heard: leave `spans` and `hearing` out.")
    if is_audiobert(model):
        if audio == "on":
            check_hearing(model, hearing)
    elif spans == "gold" or hearing != "retrieved":
        raise ValueError(f"{type(model).__name__} hears nothing at any span: leave `spans` and `hearing` out.")


def _add_other_pitch(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    """
    Puts into each row of pitch the answer that is not its own: its pieces as `other_labels` where it needs the same
    masks, else as `other`, a row of its own. Both are None in rows of other tasks.
    """
    for row in rows:
        # The spans that are in the sentence; what is heard may be others.
        row.update(other_labels=None, other=None, aligned=len(row["audio_positions"]))
    pitch = [row for row in rows if row["task"] == "pitch"]
    answers = [PITCH_ANSWERS[1 - PITCH_ANSWERS.index(row["answer"])] for row in pitch]
    masked = mask_answers([row["sentence"] for row in pitch], answers, tokenizer, max_length)
    splitting = []
    for row, answer, other in zip(pitch, answers, masked, strict=True):
        labels = [other.pieces[token] for token in sorted(other.pieces)]
        for word, pieces in ((row["answer"], row["labels"]), (answer, labels)):
            if tokenizer.unk_token_id in pieces:
                raise ValueError(
                    f"The tokenizer does not know {word!r}, so pitch cannot be scored. Use a vocabulary that can write "
                    "higher and lower."
                )
        if other.inputs["input_ids"] == row["input_ids"]:
            row["other_labels"] = labels
        else:
            splitting.append((row, answer))
    if splitting:
        names = ("sentence", "answer", "spans", "task")
        swapped = [{**{name: row[name] for name in names}, "answer": answer} for row, answer in splitting]
        read = tokenize_auditorybench(Dataset.from_list(swapped, features=FEATURES), tokenizer, max_length)
        for (row, _), other in zip(splitting, read.to_list(), strict=True):
            row["other"] = {**other, "other_labels": None, "other": None, "aligned": len(other["audio_positions"])}


def _listen(
    model: AudioBertForMaskedLM,
    rows: list[dict[str, Any]],
    batch_size: int,
    spans: str,
    audio: str,
    hearing: Hearing,
    seed: int,
    advance: Callable[[int], None],
) -> dict[int, float]:
    """Puts into each row what the model goes by: spans and recordings. Returns similarities by number of the row."""
    given = [(row["audio_positions"], row["span_texts"]) for row in rows]
    detect(model, rows, batch_size, advance)
    if audio == "off":
        for row in rows:
            row["audio_positions"], row["span_texts"] = [], []
        return {}
    if spans == "gold":
        for row, (positions, texts) in zip(rows, given, strict=True):
            row["audio_positions"], row["span_texts"] = positions, texts
    similarities = hear(model, rows, hearing, seed)
    return {number: value for number, value in enumerate(similarities) if value is not None}


def batches_of_like_rows(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Batches of tokenized rows with `labels` and `audio_positions`, those together that cost the least so."""

    # Rows of one length need no padding, those with their masks in the same places few logits, and those in which all
    # or none is heard one pass.
    def kind(row: dict[str, Any]) -> tuple[bool, int, list[bool]]:
        return not row["audio_positions"], len(row["input_ids"]), [label == IGNORED for label in row["labels"]]

    alike = sorted(rows, key=kind)
    return (alike[start : start + size] for start in range(0, len(rows), size))


def answer_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    What a model makes of a batch of rows, in which stands what is heard: its logits, float `(batch, places, vocab)`, at
    all places or at those where any row has a label, and `labels`, int64 `(batch, places)`, -100 where there is none.

    Raises:
        ValueError: the logits of a label are no numbers.
    """
    collate = AudioBertDataCollator(tokenizer)
    if is_audiobert(model) and "recordings" in rows[0]:
        sounds = sounds_of(model)
        collate = HearingCollator(
            tokenizer, "audio_embeds", lambda found, weights: weighted_mean(sounds.audio_embeds(found), weights).numpy()
        )
    batch = {name: value.to(model.device) for name, value in collate(rows).items()}
    labels = batch["labels"]
    inputs = {name: batch[name] for name in tokenizer.model_input_names}
    if "token_type_ids" not in signature(model.forward).parameters:
        # One sentence is all of one type; some models know of no types, whatever their tokenizer gives.
        inputs.pop("token_type_ids", None)
    if is_audiobert(model):
        heard = ("audio_positions", "audio_embeds", "audio_mask")
        inputs.update({name: batch[name] for name in heard if name in batch})
    columns = (labels != IGNORED).any(0).nonzero()[:, 0]
    with logits_of_columns(model, columns):
        logits = model(**inputs).logits
    if logits.shape[1] != labels.shape[1]:
        labels = labels[:, columns]
    masked = labels != IGNORED
    owners = masked.nonzero()[:, 0].tolist()
    refuse_no_numbers(model, logits[masked], lambda mask: rows[owners[mask]]["sentence"])
    return logits, labels


def _predict(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]]) -> None:
    """Puts into each row what is scored: its answer pieces and answer scores."""
    logits, labels = answer_logits(model, tokenizer, rows)
    answers = best_tokens(logits, labels, tokenizer.unk_token_id).tolist()
    for row, pieces in zip(rows, answers, strict=True):
        row["answer_pieces"] = [piece for piece in pieces if piece != IGNORED]
    _score_pitch(logits, labels, rows)


def _score_pitch(logits: torch.Tensor, labels: torch.Tensor, rows: list[dict[str, Any]]) -> None:
    other_labels = torch.full_like(labels, IGNORED)
    for target, own, row in zip(other_labels, labels, rows, strict=True):
        if row["other_labels"] is not None:
            target[own != IGNORED] = torch.tensor(row["other_labels"], device=labels.device)
    # At the same masks the logits themselves are compared, as rounding of the logarithms could make two of them equal.
    own, other = (answer_scores(logits, wanted, log_probabilities=False).tolist() for wanted in (labels, other_labels))
    alone = answer_scores(logits, labels, log_probabilities=True).tolist()
    for index, row in enumerate(rows):
        shared = row["other_labels"] is not None
        row["score"] = own[index] if shared else alone[index]
        row["other_score"] = other[index] if shared else None


def _prediction(split: str, number: int, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> RowPrediction:
    if row["task"] == "pitch":
        other_score = row["other_score"] if row["other"] is None else row["other"]["score"]
        other = PITCH_ANSWERS[1 - PITCH_ANSWERS.index(row["answer"])]
        correct = row["score"] > other_score
        predicted = row["answer"] if correct else other if other_score > row["score"] else ""
    else:
        correct = answer_is_right(row["answer_pieces"], [label for label in row["labels"] if label != IGNORED])
        predicted = decoded(tokenizer, row["answer_pieces"]).strip()
    return RowPrediction.of(split, number, row, predicted, correct)


def _scores_by_task(part: Dataset, rows: list[dict[str, Any]], answered: list[RowPrediction]) -> dict[str, Scores]:
    return {
        task: _score(part.select(indices), [rows[i] for i in indices], sum(answered[i].correct for i in indices))
        for task, indices in _rows_by_task(rows).items()
    }


def _rows_by_task(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The numbers of the rows of each task, and of all where there are several tasks."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    groups = {task: [index for index, row in enumerate(rows) if row["task"] == task] for task in tasks}
    if len(groups) > 1:
        groups[COMBINED] = list(range(len(rows)))
    return groups


def _score(part: Dataset, rows: list[dict[str, Any]], correct: int) -> Scores:
    report = alignment_report(part)
    return Scores(
        rows=len(rows),
        correct=correct,
        accuracy=correct / len(rows),
        **_detector_scores(rows),
        spans=report.spans,
        unaligned_spans=report.unaligned,
        rows_without_span=report.rows_without_span,
    )


def _detector_scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    labelled = [row for row in rows if row["aligned"] == len(row["spans"])]
    if "detected" not in rows[0]:
        names = ("span_precision", "span_recall", "span_f1", "span_exact_f1", "span_f1_all_rows", "rows_detected")
        return {"rows_labelled": len(labelled), **dict.fromkeys(names)}
    pairs, all_pairs = (
        ([row["detected"] for row in part], [row["span_labels"] for row in part]) for part in (labelled, rows)
    )
    return {
        "rows_labelled": len(labelled),
        **{f"span_{name}": value for name, value in span_token_scores(*pairs).items()},
        "span_exact_f1": span_exact_scores(*pairs)["f1"],
        "span_f1_all_rows": span_token_scores(*all_pairs)["f1"],
        "rows_detected": sum(any(row["detected"]) for row in rows),
    }


def is_audiobert(model: PreTrainedModel) -> TypeGuard[AudioBertForMaskedLM]:
    """Whether a model can detect spans, look them up and hear."""
    # Not by its class, which is another one where it came with a checkpoint's code.
    return model.config.model_type == "audiobert"
