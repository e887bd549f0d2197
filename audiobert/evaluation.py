"""Scoring a model on AuditoryBench: answers per task and split, and the span detector."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .auditorybench import PITCH_ANSWERS
from .data import NO_SPAN, AudioBertDataCollator, alignment_report, tokenize_auditorybench
from .metrics import (
    AnswerAccuracy,
    PitchAccuracy,
    SpanExactF1,
    SpanTokenF1,
    best_tokens,
    pitch_logits,
    pitch_token_ids,
)

COMBINED = "combined"


@dataclass(frozen=True)
class Scores:
    """Scores of one task in one split; all but counts are shares from 0 to 1."""

    rows: int
    correct: int
    """Rows whose answer is right: all its word pieces, or the larger of two logits for pitch."""
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
class EvaluationResult:
    """What [`evaluate_model`] found."""

    scores: dict[str, dict[str, Scores]]
    """By split, then by task: animal, pitch, and, where both are there, "combined" over the rows of both (so the
    paper's 62.97 on test is (36.69 * 1211 + 76.31 * 2387) / 3598)."""
    spans: str
    """Whether the spans were "detected" by the model or "gold"."""
    audio: str
    """Whether the model's audio was "on" or "off"."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers; shares stay between 0 and 1."""
        return asdict(self)

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_table(self) -> Table:
        """A table for `rich`, shares in percent."""
        table = Table(title=self._title())
        for name in _HEADER:
            table.add_column(name, justify="left" if name in _HEADER[:2] else "right")
        for cells in self._cells():
            table.add_row(*cells)
        return table

    def to_markdown(self) -> str:
        """The same table in Markdown."""
        ruler = ["---" if name in _HEADER[:2] else "---:" for name in _HEADER]
        lines = ["| " + " | ".join(cells) + " |" for cells in (_HEADER, ruler, *self._cells())]
        return "\n".join([f"{self._title()}:", "", *lines])

    def _title(self) -> str:
        return f"AuditoryBench, audio {self.audio}, {self.spans} spans"

    def _cells(self) -> Iterator[list[str]]:
        for split, by_task in self.scores.items():
            for task, scores in by_task.items():
                yield [
                    split,
                    task,
                    f"{scores.rows:,}",
                    _percent(scores.accuracy),
                    _percent(scores.span_precision),
                    _percent(scores.span_recall),
                    _percent(scores.span_f1),
                    _percent(scores.span_exact_f1),
                    f"{scores.rows_labelled:,}",
                    "-" if scores.rows_detected is None else f"{scores.rows_detected:,}",
                    f"{scores.unaligned_spans:,}",
                ]


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
    progress: bool = True,
) -> EvaluationResult:
    """
    Scores a masked language model on AuditoryBench, on the device it is on, in evaluation mode.

    Args:
        model: an `AudioBertForMaskedLM`, or a `BertForMaskedLM` (which has no detector and no audio).
        tokenizer: the model's.
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.
        batch_size: rows per batch; rows of like length share a batch.
        spans: "detected": the model finds the spans and looks them up, as in use (the paper's figures); "gold": it is
            told where the annotated spans are, and they are looked up as they are written in the data.
        audio: "off" gives the answers of the BERT inside, with the adapter off.
        progress: whether to show a progress bar on stderr.

    Raises:
        ValueError: for a split that is not there, an unknown mode, gold spans of a model that has no audio or that is
            off, or a tokenizer that cannot be used (see `tokenize_auditorybench`, `pitch_token_ids`).
    """
    _check_modes(model, spans, audio)
    parts = _chosen(dataset, splits)
    for name, part in parts.items():
        if "task" not in part.column_names:
            raise ValueError(f"Split {name} has no column task; its columns are {part.column_names}.")
    max_length = model.config.get_text_config().max_position_embeddings
    tokenized = {name: tokenize_auditorybench(part, tokenizer, max_length) for name, part in parts.items()}
    pitch_ids = pitch_token_ids(tokenizer) if any("pitch" in part["task"] for part in parts.values()) else None

    # Parts of a model can be in training and others not; each goes back to what it was.
    were_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), Progress(console=Console(stderr=True), disable=not progress) as bar:
            scores = {}
            for name, part in tokenized.items():
                rows, task = part.to_list(), bar.add_task(name, total=len(part))
                for chosen in _batches(rows, batch_size):
                    _predict(model, tokenizer, chosen, pitch_ids, spans, audio)
                    bar.advance(task, len(chosen))
                scores[name] = _scores_by_task(part, rows)
    finally:
        for module, training in were_training:
            module.training = training
    return EvaluationResult(scores, spans, audio)


def _check_modes(model: PreTrainedModel, spans: str, audio: str) -> None:
    for name, value, modes in (("spans", spans, ("detected", "gold")), ("audio", audio, ("on", "off"))):
        if value not in modes:
            raise ValueError(f"`{name}` must be {' or '.join(map(repr, modes))}, got {value!r}.")
    if spans == "gold":
        if audio == "off":
            raise ValueError("With `audio='off'` spans play no part: leave `spans` out.")
        if not _is_audiobert(model):
            raise ValueError(f"{type(model).__name__} hears nothing at any span: leave `spans` out.")
        if model.knowledge_base is None and model.config.injection != "none":
            raise ValueError(
                "Gold spans are looked up in a knowledge base: call `model.set_knowledge_base(...)` first."
            )


def _chosen(dataset: DatasetDict | Dataset, splits: Sequence[str] | None) -> dict[str, Dataset]:
    if isinstance(dataset, Dataset):
        if splits is not None:
            raise ValueError("`splits` are of a DatasetDict, but a single Dataset was given: leave them out.")
        return {str(dataset.split or "data"): dataset}
    if splits is None:
        splits = [name for name in dataset if name != "train"]
    unknown = [name for name in splits if name not in dataset]
    if isinstance(splits, str) or unknown or not splits:
        raise ValueError(f"`splits` must be a list of names out of {', '.join(dataset)}, got {splits!r}.")
    return {name: dataset[name] for name in splits}


def _batches(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    return (by_length[start : start + size] for start in range(0, len(rows), size))


def _predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, Any]],
    pitch_ids: tuple[int, int] | None,
    spans: str,
    audio: str,
) -> None:
    """Puts into each row what is scored: its answer pieces, pitch logits and detected tokens (None if no detector)."""
    batch = {name: value.to(model.device) for name, value in AudioBertDataCollator(tokenizer)(rows).items()}
    labels = batch["labels"]
    inputs = {name: batch[name] for name in tokenizer.model_input_names}
    if _is_audiobert(model):
        inputs.update(_audio_inputs(model, batch, rows, spans, audio))
    output = model(**inputs)

    answers = best_tokens(output.logits, labels, tokenizer.unk_token_id).tolist()
    pitch = None if pitch_ids is None else pitch_logits(output.logits, labels, pitch_ids).tolist()
    detected = _detected_tokens(model, batch, output)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        row["answer_pieces"] = answers[index][:length]
        row["pitch_logits"] = None if pitch is None else pitch[index]
        row["detected"] = None if detected is None else detected[index][:length]


def _audio_inputs(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    rows: list[dict[str, Any]],
    spans: str,
    audio: str,
) -> dict[str, torch.Tensor]:
    if audio == "off":
        # Positions without a span: the model neither looks for any nor turns its adapter on.
        return {"audio_positions": torch.full_like(batch["audio_positions"], NO_SPAN)}
    if spans == "detected":
        return {}
    # With the labels of spans the detector is scored in this mode too; the model skips it otherwise.
    inputs = {"audio_positions": batch["audio_positions"], "span_labels": batch["span_labels"]}
    texts = [text for row in rows for text in row["span_texts"]]
    if texts and model.config.injection != "none":
        found = model.knowledge_base.search(texts, top_k=model.config.retrieval_top_k)
        heard = torch.stack([model.knowledge_base.audio_embeds(retrieval.indices).mean(0) for retrieval in found])
        positions = batch["audio_positions"]
        embeds = torch.zeros(*positions.shape, heard.shape[-1], dtype=model.dtype, device=model.device)
        embeds[positions != NO_SPAN] = heard.to(embeds)
        inputs["audio_embeds"] = embeds
    return inputs


def _detected_tokens(model: PreTrainedModel, batch: Mapping[str, torch.Tensor], output: Any) -> list[list[int]] | None:
    """0 and 1 per token: the spans that the model went by, or that it would have gone by had it looked for any."""
    logits = getattr(output, "span_logits", None)
    if logits is None:
        return None
    spans_by_row = output.spans
    if spans_by_row is None:
        spans_by_row = model.detect_spans(batch["input_ids"], logits, batch["attention_mask"])
    detected = torch.zeros(logits.shape[:2], dtype=torch.long)
    for row, spans in zip(detected, spans_by_row, strict=True):
        for span in spans:
            row[span.start : span.end] = 1
    return detected.tolist()


def _scores_by_task(part: Dataset, rows: list[dict[str, Any]]) -> dict[str, Scores]:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    groups = {task: [index for index, row in enumerate(rows) if row["task"] == task] for task in tasks}
    if len(groups) > 1:
        groups[COMBINED] = list(range(len(rows)))
    return {task: _score(part.select(indices), [rows[i] for i in indices]) for task, indices in groups.items()}


def _score(part: Dataset, rows: list[dict[str, Any]]) -> Scores:
    pitch = [row for row in rows if row["task"] == "pitch"]
    other = [row for row in rows if row["task"] != "pitch"]
    pitch_accuracy = PitchAccuracy().compute(
        predictions=[row["pitch_logits"] for row in pitch],
        references=[PITCH_ANSWERS.index(row["answer"]) for row in pitch],
    )["accuracy"]
    other_accuracy = AnswerAccuracy().compute(
        predictions=[row["answer_pieces"] for row in other], references=[row["labels"] for row in other]
    )["accuracy"]
    correct = round(pitch_accuracy * len(pitch) + other_accuracy * len(other))
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


def _detector_scores(rows: list[dict[str, Any]]) -> dict[str, float | int | None]:
    labelled = [row for row in rows if len(row["audio_positions"]) == len(row["spans"])]
    if rows[0]["detected"] is None:
        names = ("span_precision", "span_recall", "span_f1", "span_exact_f1", "span_f1_all_rows", "rows_detected")
        return {"rows_labelled": len(labelled), **dict.fromkeys(names)}
    pairs, all_pairs = (
        {"predictions": [row["detected"] for row in part], "references": [row["span_labels"] for row in part]}
        for part in (labelled, rows)
    )
    return {
        "rows_labelled": len(labelled),
        **{f"span_{name}": value for name, value in SpanTokenF1().compute(**pairs).items()},
        "span_exact_f1": SpanExactF1().compute(**pairs)["f1"],
        "span_f1_all_rows": SpanTokenF1().compute(**all_pairs)["f1"],
        "rows_detected": sum(any(row["detected"]) for row in rows),
    }


def _is_audiobert(model: PreTrainedModel) -> bool:
    return model.config.model_type == "audiobert"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
