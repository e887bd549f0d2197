"""AuditoryBench as model inputs: tokens, labels, span positions, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Value
from transformers import PreTrainedTokenizerBase

from ..modeling.injection_audiobert import weighted_mean
from .alignment import align_spans
from .auditorybench import MASK
from .masking import mask_answers

if TYPE_CHECKING:
    from ..modeling import AudioBertForMaskedLM

DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)

# What the losses leave out.
IGNORED = -100
NO_SPAN = -1
# What a batch has of sounds, and what a row can have in its place.
AUDIO = ("audio_embeds", "audio_values")
HEARD = ("recordings", "recording_weights", "audio_mask")


def tokenize_auditorybench(
    dataset: DatasetOrDict, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> DatasetOrDict:
    """
    Adds to the rows of `load_auditorybench` what the model takes; no row is left out.

    `[MASK]` becomes as many masks as the answer has word pieces in its place (see `mask_answers`), whatever mask token
    the tokenizer has. (Three sentences of the train split have two `[MASK]`; the answer stands at both.)

    Args:
        dataset: columns sentence, answer and spans; others are kept.
        tokenizer: a fast tokenizer with a mask token.
        max_length: tokens at which a sentence is cut, if the tokenizer's `model_max_length` is not less.

    Returns:
        The dataset with these columns more, a list per row:
        input_ids, attention_mask, token_type_ids (if the model has it): int, one per token;
        labels: int, the answer's word pieces at the masks, -100 elsewhere, and everywhere if the sentence was cut
            before the answer's end;
        span_labels: int, 1 on tokens of spans, 0 on others, -100 on special tokens, the mask too;
        audio_positions: int, the first token of each aligned span, in the order of `spans`;
        span_texts: str, the texts of these spans as the tokenizer gives them back, which is how the model reads them.

    Raises:
        ValueError: if the tokenizer gives no offsets or has no mask token, a column is missing, or an answer has no
            word piece.
    """
    if isinstance(dataset, DatasetDict):
        return DatasetDict(
            {name: tokenize_auditorybench(part, tokenizer, max_length) for name, part in dataset.items()}
        )
    missing = {"sentence", "answer", "spans"} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"The dataset has no column {', '.join(sorted(missing))}; its columns are {dataset.column_names}."
        )

    rows = dataset.with_format(None)[:]
    integers = [Value("int64")]
    added = {name: integers for name in (*tokenizer.model_input_names, "labels", "span_labels", "audio_positions")}
    return Dataset.from_dict(
        {**rows, **tokenized_columns(rows, tokenizer, max_length)},
        # Stated, as lists that happen to be empty have no type to infer.
        features=Features({**dataset.features, **added, "span_texts": [Value("string")]}),
        split=dataset.split,
    )


def tokenized_columns(
    rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> dict[str, list[list]]:
    """The columns that [`tokenize_auditorybench`] adds, of rows given by their columns sentence, answer and spans."""
    masked = mask_answers(rows["sentence"], rows["answer"], tokenizer, max_length)
    # An unknown word is a word like others.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    columns: dict[str, list[list]] = {
        name: [sentence.inputs[name] for sentence in masked] for name in tokenizer.model_input_names
    }
    columns.update(labels=[], span_labels=[], audio_positions=[], span_texts=[])
    for sentence, read, spans in zip(rows["sentence"], masked, rows["spans"], strict=True):
        ids = read.inputs["input_ids"]
        ranges = align_spans(sentence, spans, read.offsets, MASK)
        aligned = [range_ for range_ in ranges if range_ is not None]
        columns["labels"].append([read.pieces.get(token, IGNORED) for token in range(len(ids))])
        columns["span_labels"].append(_span_labels(ids, aligned, special))
        columns["audio_positions"].append([start for start, _ in aligned])
        columns["span_texts"].append([str(tokenizer.decode(ids[start:end])).strip() for start, end in aligned])
    return columns


def _span_labels(input_ids: list[int], ranges: list[tuple[int, int]], special: set[int]) -> list[int]:
    labels = [IGNORED if token in special else 0 for token in input_ids]
    for start, end in ranges:
        labels[start:end] = [1] * (end - start)
    return labels


@dataclass(frozen=True)
class AlignmentReport:
    """How many spans of a dataset were found in their sentences."""

    rows: int
    """Rows of the dataset."""
    spans: int
    """Spans that are not empty."""
    aligned: int
    """Of these, those that are aligned with tokens."""
    empty: int
    """Spans given as an empty or blank text; not among `spans`."""
    rows_without_span: int
    """Rows no span of which is aligned."""

    @property
    def unaligned(self) -> int:
        """Spans that are not empty, and not in their sentence or lost by its truncation."""
        return self.spans - self.aligned

    def __str__(self) -> str:
        return (
            f"{self.aligned:,} of {self.spans:,} spans aligned ({self.unaligned:,} not, {self.empty:,} empty); "
            f"{self.rows_without_span:,} of {self.rows:,} rows without an aligned span"
        )


def alignment_report(tokenized: Dataset) -> AlignmentReport:
    """Counts over one split as `tokenize_auditorybench` gives it."""
    texts = [span for spans in tokenized["spans"][:] for span in spans]
    aligned = [len(positions) for positions in tokenized["audio_positions"][:]]
    given = sum(bool(text.strip()) for text in texts)
    return AlignmentReport(
        rows=len(tokenized),
        spans=given,
        aligned=sum(aligned),
        empty=len(texts) - given,
        rows_without_span=aligned.count(0),
    )


class AudioBertDataCollator:
    """
    Makes a batch of rows of `tokenize_auditorybench`, with or without the audio of their spans.

    Columns that the model does not take (texts, for example) are left out, so it works with a Trainer's
    `remove_unused_columns` on and off.

    Args:
        tokenizer: its padding token and model inputs are used; padding is on the right.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            rows: each with input_ids and whatever of attention_mask, token_type_ids, labels, span_labels,
                audio_positions is there, and, if the audio is given, one entry per audio position of either
                audio_embeds, float `(spans, audio_hidden_size)`, or audio_values, float `(spans, frames, mel_bins)`,
                and of audio_mask, bool, False where nothing is injected.

        Returns:
            The same names, padded: labels and span_labels int64 `(batch, sequence)` with -100; audio_positions int64
            `(batch, max(spans, 1))` with -1, so that the model does not look for spans itself even if no row has
            one; audio_embeds or audio_values float32 `(batch, max(spans, 1), ...)` with 0, left out if no row has
            a span; audio_mask bool `(batch, max(spans, 1))` with False, left out if something is injected at each span.

        Raises:
            ValueError: if a column is in some of the rows only, both kinds of audio are there, or their number or
                that of the mask is not that of the positions.
        """
        columns = _shared_columns(rows)
        inputs = [name for name in self.tokenizer.model_input_names if name in columns]
        batch = dict(
            self.tokenizer.pad(
                [{name: row[name] for name in inputs} for row in rows], padding_side="right", return_tensors="pt"
            )
        )
        length = batch["input_ids"].shape[1]
        for name in ("labels", "span_labels"):
            if name in columns:
                batch[name] = _padded([row[name] for row in rows], length, IGNORED)
        if "audio_positions" in columns:
            positions = [row["audio_positions"] for row in rows]
            batch["audio_positions"] = _padded(positions, max(1, *map(len, positions)), NO_SPAN)
            audio = columns & set(AUDIO)
            if len(audio) > 1:
                raise ValueError("The rows have both audio_embeds and audio_values; give one of them.")
            for name in audio:
                batch.update(_padded_audio(name, rows, batch["audio_positions"]))
            if "audio_mask" in columns:
                batch.update(_padded_mask(rows, batch["audio_positions"]))
        return batch


class StoredAudio:
    """
    The mean of the stored embeddings of a span's recordings, float32 `(audio_hidden_size,)`.

    Args:
        embeddings: `audio_embeddings` of a knowledge base, float `(recordings, audio_hidden_size)`.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        self.embeddings = embeddings

    def __call__(self, found: Sequence[int], weights: Sequence[float] | None = None) -> np.ndarray:
        return weighted_mean(self.embeddings[list(found)].float(), weights).numpy()


class HearingCollator(AudioBertDataCollator):
    """
    Adds to each row the audio of its recordings and makes the batch.

    A row has `recordings`, for each span the indices of its recordings (none: nothing is injected there), and it may
    have `recording_weights`, numbers alike that sum to 1 over a span. A row that has audio of its own (`audio_embeds`,
    or what `name` says), and no `recordings`, is taken as it is.

    Args:
        tokenizer: as for `AudioBertDataCollator`.
        name: `"audio_embeds"` or `"audio_values"`.
        audio_of: from the indices of a span's recordings and their weights, None where all count the same, to its
            audio, an array of the same shape for every span. To be used by the workers of a `DataLoader` it must be
            picklable, as a lambda is not.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        audio_of: Callable[[Sequence[int], Sequence[float] | None], np.ndarray],
    ) -> None:
        super().__init__(tokenizer)
        self.name = name
        self.audio_of = audio_of

    @classmethod
    def of(cls, model: AudioBertForMaskedLM) -> HearingCollator:
        """The collator that gives a model the embeddings that its knowledge base holds."""
        if model.tokenizer is None or model.knowledge_base is None:
            raise ValueError("The model has no knowledge base to hear: call `model.set_knowledge_base(...)` first.")
        return cls(model.tokenizer, "audio_embeds", StoredAudio(model.knowledge_base.audio_embeddings))

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            rows: as of `AudioBertDataCollator`, with `recordings` or audio of their own.

        Raises:
            ValueError: also if a row has neither or both, or weights that are not as many as its recordings.
        """
        heard = [self._heard(row) for row in rows]
        # Where nothing is heard stands a zero of the shape of what is heard elsewhere in the batch.
        sounds = (sound for row in heard for sound in row.get(self.name, ()) if sound is not None)
        silence = next((np.zeros_like(sound) for sound in sounds), None)
        for row in heard:
            if silence is None:
                row.pop(self.name, None)
            elif self.name in row:
                row[self.name] = [silence if sound is None else sound for sound in row[self.name]]
        return super().__call__(heard)

    def _heard(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its audio, None at silent spans, and its mask."""
        # Where tables of different rows are put together, what a row does not have is None.
        given = {name: row[name] for name in (*AUDIO, "audio_mask") if row.get(name) is not None}
        rest = {name: value for name, value in row.items() if name not in (*AUDIO, *HEARD)}
        recordings, weights = row.get("recordings"), row.get("recording_weights")
        if (recordings is None) is not bool(given):
            raise ValueError(
                f"A row has {'neither' if recordings is None else 'both'} `recordings` "
                f"{'nor' if recordings is None else 'and'} audio of its own: give it one of them."
            )
        if recordings is None:
            return {**rest, "audio_mask": [True] * len(row["audio_positions"]), **given}
        if weights is None:
            weights = [None] * len(recordings)
        elif [*map(len, weights)] != [*map(len, recordings)]:
            raise ValueError(f"A row has the recording_weights {weights} for the recordings {recordings}.")
        sounds = [self.audio_of(*pair) if pair[0] else None for pair in zip(recordings, weights, strict=True)]
        return {**rest, self.name: sounds, "audio_mask": [bool(found) for found in recordings]}


def _shared_columns(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    columns = set(rows[0])
    for row in rows:
        if set(row) != columns:
            raise ValueError(
                f"The rows of a batch have different columns: {sorted(columns ^ set(row))} are in some only."
            )
    return columns


def _padded(rows: list[Any], width: int, value: int) -> torch.Tensor:
    padded = torch.full((len(rows), width), value, dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.as_tensor(np.asarray(row, dtype=np.int64))
    return padded


def _padded_audio(name: str, rows: Sequence[Mapping[str, Any]], positions: torch.Tensor) -> dict[str, torch.Tensor]:
    given = [np.asarray(row[name], dtype=np.float32) for row in rows]
    for index, (audio, spans) in enumerate(zip(given, (positions != NO_SPAN).sum(1).tolist(), strict=True)):
        if len(audio) != spans:
            raise ValueError(f"Row {index} of the batch has {len(audio)} {name} for {spans} audio_positions.")
    shapes = {audio.shape[1:] for audio in given if len(audio)}
    if len(shapes) > 1:
        raise ValueError(f"The {name} of a batch differ in shape: {sorted(shapes)}.")
    if not shapes:
        return {}
    padded = torch.zeros(*positions.shape, *shapes.pop())
    for target, audio in zip(padded, given, strict=True):
        if len(audio):
            target[: len(audio)] = torch.from_numpy(audio)
    return {name: padded}


def _padded_mask(rows: Sequence[Mapping[str, Any]], positions: torch.Tensor) -> dict[str, torch.Tensor]:
    padded = torch.zeros(positions.shape, dtype=torch.bool)
    for index, (target, row) in enumerate(zip(padded, rows, strict=True)):
        mask, spans = row["audio_mask"], len(row["audio_positions"])
        if len(mask) != spans:
            raise ValueError(f"Row {index} of the batch has {len(mask)} audio_mask for {spans} audio_positions.")
        target[:spans] = torch.as_tensor(np.asarray(mask, dtype=bool))
    return {} if torch.equal(padded, positions != NO_SPAN) else {"audio_mask": padded}
