"""What a model answers to the questions: with its own ears, with the sounds given, and with none or with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...hearing import Hearing, detect, hear, sounds_of
from ...language_models.masked import check_masked_model
from ...language_models.modes import in_evaluation_mode
from ...modeling import AudioBertForMaskedLM
from ...modeling.labels_audiobert import spoken
from ..masked import is_audiobert
from .answers import SwapAnswer
from .choosing import Row, chosen_answers, end_of_run, question_rows
from .questions import PARTS, SoundSwap
from .worlds import World, found_by_name, world_of

END_TO_END = "end to end"
GIVEN = "recordings given"
NOTHING_INJECTED = "nothing injected"
AUDIO_OFF = "audio off"
RANDOM = "random recordings"
OTHER_SPAN = "another span's"
BLIND_CLAP = "blind CLAP"
LISTENERS = (END_TO_END, GIVEN, NOTHING_INJECTED, AUDIO_OFF, RANDOM, OTHER_SPAN, BLIND_CLAP)
# What a model without audio goes by.
TEXT_ALONE = "text alone"

_HEARINGS: dict[str, Hearing] = {
    END_TO_END: "retrieved",
    RANDOM: "random",
    OTHER_SPAN: "other-span",
    BLIND_CLAP: "blind-clap",
}


def answer_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    swap: SoundSwap,
    *,
    listeners: Sequence[str] = LISTENERS,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[SwapAnswer]]:
    """
    Asks a masked language model all questions, on the device it is on, in evaluation mode.

    Of an AudioBERT that hears there are several listeners:

    - end to end: it detects the spans, looks them up and hears what it finds, as in use; by their labels, where its
      knowledge base finds recordings by sound alone, as nothing else finds a word that nobody ever said.
    - recordings given: it is told where the spans are, and hears the recording that the question names.
    - nothing injected: it detects the spans, so that its adapter is on, but nothing is heard.
    - audio off: the answers of the BERT inside.
    - random recordings, another span's: see `audiobert.hearing.hear`. Where the detector finds the same text in all
      sentences of a world, so that there is no other span, nothing is heard.
    - blind CLAP: as there. It is a fair control of a model that was trained so; of any other it shows what the model
      makes of a sound that is none.

    Any other model has one, "text alone": it is asked the sentences.

    Args:
        model: an `AudioBertForMaskedLM` with its knowledge base, which is exchanged for one of each world meanwhile and
            is back when this returns or raises; or any other masked language model.
        tokenizer: the model's.
        swap: questions about recordings of that knowledge base.
        listeners: those that are wanted of `LISTENERS`.
        batch_size: rows at once.
        seed: of the draws.
        progress: whether to show a progress bar on stderr.

    Returns:
        By listener the answers, in the order of the questions.

    Raises:
        ValueError: for an unknown listener, a model that does not fill masks or a tokenizer that is not its own, an
            AudioBERT without its knowledge base or with another one, or logits that are no numbers.
    """
    if unknown := [name for name in listeners if name not in LISTENERS]:
        raise ValueError(f"There is no listener {unknown[0]!r}: name some of {', '.join(LISTENERS)}.")
    check_masked_model(model)
    with torch.no_grad(), in_evaluation_mode(model):
        rows = question_rows(model, tokenizer, swap)
        if is_audiobert(model):
            detect(model, rows, batch_size)
            if model.config.injection != "none":
                return _heard(model, tokenizer, swap, rows, listeners, batch_size, seed, progress)
        return {TEXT_ALONE: _answers(swap, rows, chosen_answers(model, tokenizer, rows, batch_size), TEXT_ALONE)}


def _heard(
    model: AudioBertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    swap: SoundSwap,
    rows: Sequence[Row],
    listeners: Sequence[str],
    batch_size: int,
    seed: int,
    progress: bool,
) -> dict[str, list[SwapAnswer]]:
    swap.check(sounds_of(model), "The sound swap")
    answers: dict[str, list[SwapAnswer]] = {listener: [] for listener in listeners}
    worlds = [numbers for part in PARTS for numbers in swap.worlds(part).values()]
    with _knowledge_base_kept(model), Progress(console=Console(stderr=True), disable=not progress) as bar:
        named = found_by_name(sounds_of(model))
        for numbers in bar.track(worlds, description="sound swap"):
            world = world_of(named, [swap.questions[number] for number in numbers])
            model.set_knowledge_base(world.knowledge_base)
            asked = [row for row in rows if row["number"] in set(numbers)]
            for listener in listeners:
                heard = [dict(row) for row in asked]
                _listen(model, heard, listener, world, seed)
                chosen = chosen_answers(model, tokenizer, heard, batch_size)
                answers[listener] += _answers(swap, heard, chosen, listener, world)
    order = [number for numbers in worlds for number in numbers]
    return {
        listener: [answer for _, answer in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]
        for listener, found in answers.items()
    }


@contextmanager
def _knowledge_base_kept(model: AudioBertForMaskedLM) -> Iterator[None]:
    kept = model.knowledge_base
    try:
        yield
    finally:
        model.set_knowledge_base(kept)


def _listen(model: AudioBertForMaskedLM, rows: Sequence[Row], listener: str, world: World, seed: int) -> None:
    """Puts into each row, whose spans are those detected, what this listener goes by."""
    no_other_span = listener == OTHER_SPAN and len({text for row in rows for text in row["span_texts"]}) == 1
    if listener in _HEARINGS and not no_other_span:
        hear(model, rows, _HEARINGS[listener], seed)
        return
    for row in rows:
        if listener == AUDIO_OFF:
            row["audio_positions"], row["span_texts"] = [], []
        elif listener == NOTHING_INJECTED or no_other_span:
            row["recordings"] = [[] for _ in row["audio_positions"]]
        else:
            row["audio_positions"], row["span_texts"] = [start for start, _ in row["gold"]], list(row["spans"])
            row["recordings"] = [[world.rows[span]] for span in row["spans"]]


def _answers(
    swap: SoundSwap, rows: Sequence[Row], chosen: dict[int, str], listener: str, world: World | None = None
) -> list[SwapAnswer]:
    """The answers to the questions of the rows, in ascending order of their numbers."""
    # What was found is told of the sentence as the right answer is masked in it.
    row_of = {row["number"]: row for row in rows if swap.questions[row["number"]].answer in row["choices"]}
    return [
        SwapAnswer(swap.questions[number], chosen[number], *_found(row, listener, world))
        for number, row in sorted(row_of.items())
    ]


def _found(
    row: Row, listener: str, world: World | None
) -> tuple[tuple[bool, ...] | None, tuple[str | None, ...] | None]:
    """`spans_found` and `heard_as` of a row."""
    if "detected" not in row or listener in (GIVEN, AUDIO_OFF):
        return None, None
    places = [_place_of(span, row) for span in row["gold"]]
    spans_found = tuple(place is not None for place in places)
    if world is None or listener not in _HEARINGS or "recordings" not in row:
        return spans_found, None
    firsts = [None if place is None else next(iter(row["recordings"][place]), None) for place in places]
    labels = (None if first is None else world.knowledge_base.recording(first).label for first in firsts)
    return spans_found, tuple(None if label is None else spoken(label) for label in labels)


def _place_of(span: tuple[int, int], row: Row) -> int | None:
    """Which of the detected spans holds this one and no other of the question's; None if none does."""
    for place, start in enumerate(row["audio_positions"]):
        end = end_of_run(row["detected"], start)
        if [other for other in row["gold"] if start < other[1] and other[0] < end] == [span]:
            if start <= span[0] and span[1] <= end:
                return place
    return None
