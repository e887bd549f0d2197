"""What a training sees of its rows: other recordings each time, silence at times, and rows that are made to listen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from datasets import Dataset

from ..hearing import (
    BLIND_CLAP,
    HEARD_FEATURES,
    LABEL_TEXT,
    Hearing,
    blind_embeddings,
    sounds_of,
    write_before_spans,
)
from ..listening.held_out import HeldOut
from ..listening.rows import ListeningRows, animal_labels
from ..modeling import AudioBertForMaskedLM
from .trainer import tokenizer_of

Row = dict[str, Any]
# From a row that listens and its number, what of it is heard.
Hear = Callable[[Row, int], Row]


@dataclass(frozen=True)
class Listening:
    """
    How a training learns to listen.

    Attributes:
        share: of the rows of an epoch that are listening rows (see `audiobert.listening.rows`), beside all of the
            benchmark's train rows; 0 for none.
        held_out: labels and recordings that no row hears, neither a listening one nor one of the benchmark.
        vary_recordings: of a span's recordings a random part is heard each time, at least one of them. (Listening rows
            draw theirs anyway.)
        audio_dropout: share of the benchmark's rows in which nothing is injected, drawn anew each time.

    Raises:
        ValueError: naming what is out of its range.
    """

    share: float = 0.0
    held_out: HeldOut | None = None
    vary_recordings: bool = False
    audio_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("share", "audio_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie between 0 and below 1, got {getattr(self, name)}.")

    def settings(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


NOT_LISTENING = Listening()


@contextmanager
def hearing_only(model: AudioBertForMaskedLM, held_out: HeldOut | None) -> Iterator[None]:
    """
    Leaves out of the model's knowledge base, while it lasts, what is held out.

    Raises:
        ValueError: what is held out is not in the knowledge base.
    """
    whole = model.knowledge_base
    if held_out is None or whole is None:
        yield
        return
    held_out.check(whole, "The list of what is held out")
    model.set_knowledge_base(held_out.without(whole))
    try:
        yield
    finally:
        model.set_knowledge_base(whole)


def viewings(
    model: AudioBertForMaskedLM, rows: Dataset, train: Dataset, listening: Listening, hearing: Hearing, seed: int
) -> torch.utils.data.Dataset:
    """
    What the adapter is trained on: the rows themselves where no listening is asked for.

    Args:
        model: with the knowledge base that may be heard.
        rows: of `audible_rows`, made of `train`.
        train: whose animal answers say which labels are animals.
        listening: how.
        hearing: how the rows are heard.
        seed: of the draws.
    """
    if replace(listening, held_out=None) == NOT_LISTENING:
        return rows
    columns = [*tokenizer_of(model).model_input_names, "labels", "audio_positions"]
    made = listening_rows(model, train, listening, seed)
    # Listening rows have the right recordings anyway, so that an oracle hears what they do.
    hear = _as_it_is if made is None or hearing in ("retrieved", "oracle") else HeardInstead(model, made, hearing)
    if model.config.injection != "none":
        columns += list(HEARD_FEATURES)
    return Viewings(rows, columns, listening, made, hear, seed)


def listening_rows(
    model: AudioBertForMaskedLM, train: Dataset, listening: Listening, seed: int
) -> ListeningRows | None:
    """
    The rows that a model is to listen to, None if there is to be none.

    Args:
        model: with its tokenizer and the knowledge base that may be heard.
        train: as for [`viewings`].
        listening: how.
        seed: of the draws.

    Raises:
        ValueError: the model has no knowledge base, or that has no pitch.
    """
    if not listening.share:
        return None
    sounds, answers = sounds_of(model), [row["answer"] for row in train if row["task"] == "animal"]
    limit, top_k = model.config.text_config.max_position_embeddings, model.config.retrieval_top_k
    return ListeningRows(sounds, animal_labels(sounds, answers), tokenizer_of(model), seed, top_k, limit)


def _as_it_is(row: Row, _: int) -> Row:
    return row


class Viewings(torch.utils.data.Dataset):
    """
    The rows of each epoch: those of the benchmark as they are heard this time, and behind them listening rows, others
    in each epoch. All draws depend on the seed, the epoch and the place alone, so that a training that goes on sees
    what it would have seen.

    Args:
        rows: of `audible_rows`.
        columns: of the rows that the model takes.
        listening: how.
        made: the listening rows, None for none.
        hear: what is heard of those.
        seed: of the draws.
    """

    def __init__(
        self,
        rows: Dataset,
        columns: Sequence[str],
        listening: Listening,
        made: ListeningRows | None = None,
        hear: Hear = _as_it_is,
        seed: int = 0,
    ) -> None:
        self.given = rows.select_columns([name for name in columns if name in rows.column_names]).to_list()
        self.columns = columns
        self.listening = listening
        self.made = made
        self.hear = hear
        self.seed = seed
        self.epoch = 0
        share = listening.share if made is not None else 0.0
        self.made_per_epoch = math.ceil(len(self.given) * share / (1 - share))

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.given) + self.made_per_epoch

    def __getitem__(self, place: int) -> Row:
        if not 0 <= place < len(self):
            raise IndexError(f"Row {place} asked of an epoch of {len(self)}.")
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Row]:
        """The rows at several places, as a `DataLoader` asks for those of a batch."""
        numbers = {
            place: place - len(self.given) + self.epoch * self.made_per_epoch
            for place in places
            if place >= len(self.given)
        }
        made = {}
        if self.made is not None:
            rows = self.made.rows(list(numbers.values()))
            made = {place: self.hear(row, number) for (place, number), row in zip(numbers.items(), rows, strict=True)}
        return [self._viewed(made[place] if place in made else self.given[place], place) for place in places]

    def _viewed(self, row: Row, place: int) -> Row:
        row = {name: row[name] for name in self.columns if name in row}
        if place >= len(self.given):
            # Its recordings were drawn for it, and without them it could only be guessed.
            return row
        draw = random.Random(f"viewing {self.seed} {self.epoch} {place}")
        if draw.random() < self.listening.audio_dropout:
            return silenced(row)
        return varied(row, draw) if self.listening.vary_recordings else row


def silenced(row: Row) -> Row:
    """The row without anything to hear."""
    if row.get("audio_embeds") is not None:
        return {**row, "audio_mask": [False] * len(row["audio_positions"])}
    nothing: list[list] = [[] for _ in row["audio_positions"]]
    return {**row, **{name: nothing for name in ("recordings", "recording_weights") if row.get(name) is not None}}


def varied(row: Row, draw: random.Random) -> Row:
    """The row with a random part of each span's recordings, in their order and with their weights, which sum to 1."""
    if row.get("recordings") is None:
        return row
    chosen = [
        sorted(draw.sample(range(len(found)), draw.randint(1, len(found)))) if found else []
        for found in row["recordings"]
    ]
    row = {**row, "recordings": _at(row["recordings"], chosen)}
    if row.get("recording_weights") is not None:
        weights = _at(row["recording_weights"], chosen)
        row["recording_weights"] = [[weight / sum(of_span) for weight in of_span] for of_span in weights]
    return row


def _at(values: Sequence[Sequence[Any]], places: Sequence[Sequence[int]]) -> list[list[Any]]:
    return [[of_span[place] for place in chosen] for of_span, chosen in zip(values, places, strict=True)]


class HeardInstead:
    """
    What a control hears of listening rows in the place of their own recordings, as `audiobert.hearing.hear` has it of
    the others: any ("random"), those of the next listening row of the task ("other-span"), what CLAP's text tower makes
    of the names ("blind-clap"), or no sound, but the label of their first recording as text ("label-text").

    Args:
        model: with its knowledge base.
        made: the rows.
        hearing: one of the above.

    Raises:
        ValueError: for another way to hear.
    """

    def __init__(self, model: AudioBertForMaskedLM, made: ListeningRows, hearing: Hearing) -> None:
        if hearing not in ("random", "other-span", BLIND_CLAP, LABEL_TEXT):
            raise ValueError(
                f"What is heard instead is 'random', 'other-span', 'blind-clap' or 'label-text', not {hearing!r}."
            )
        self.model = model
        self.made = made
        self.hearing = hearing
        self._embeds: dict[str, Any] = {}

    def __call__(self, row: Row, number: int) -> Row:
        if self.hearing == "random":
            draw = random.Random(f"random {self.made.seed} {number}")
            everything = range(len(sounds_of(self.model)))
            return {**row, "recordings": [draw.sample(everything, len(found)) for found in row["recordings"]]}
        if self.hearing == "other-span":
            others = self._of_another(row["task"], number)
            return {**row, "recordings": others}
        if self.hearing == LABEL_TEXT:
            sounds = sounds_of(self.model)
            written = dict(row)
            write_before_spans(self.model, written, [sounds.recording(found[0]).label for found in row["recordings"]])
            return written
        own = {name: value for name, value in row.items() if name != "recordings"}
        return {**own, "audio_embeds": [self._blind(text) for text in row["span_texts"]]}

    def _of_another(self, task: str, number: int) -> list[list[int]]:
        """The recordings of the row of this task that comes next."""
        while True:
            number += 1
            other = self.made[number]
            if other["task"] == task:
                return other["recordings"]

    def _blind(self, text: str) -> Any:
        if text not in self._embeds:
            template = sounds_of(self.model).config.query_template
            self._embeds[text] = blind_embeddings(self.model, [template.replace("{span}", text)])[0]
        return self._embeds[text]
