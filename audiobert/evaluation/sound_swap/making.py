"""
Making the questions out of what no training has heard: a knowledge base and its list of held-out labels and recordings.

In the parts under invented names every sentence stands twice, in two worlds, with the two answers: who goes by words
alone has half of them right, whatever the words are. Every pair stands in both orders besides.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median, quantiles
from typing import TYPE_CHECKING

from ...data.auditorybench import PITCH_ANSWERS
from ...listening.held_out import HeldOut
from ...listening.names import invented_names
from ...listening.phrasings import animal_sentence, pitch_sentence
from ...listening.pitches import clear_pitch
from ...modeling.labels_audiobert import spoken
from .questions import (
    ANIMALS_BY_EAR,
    NEW_SOUND,
    SWAPPED_RECORDINGS,
    UNHEARD_NAMES,
    Question,
    SoundSwap,
    recordings_by_id,
)

if TYPE_CHECKING:
    from ...modeling import AudioBertKnowledgeBase
    from ...modeling.knowledge_audiobert import Recording

# Pitches closer than this are not asked about, as in the rows that models train on.
CLOSE = 1.1
# What is far apart: sounds an octave, and names a fifth, by the median pitch of their recordings.
FAR = 2.0
NAMES_APART = 1.5
UNHEARD_PAIRS = 100
SWAPPED_WORLDS = 4
NEW_SOUNDS = 24
# With how many labels a new sound is compared.
COMPARED_WITH = 4


def make_sound_swap(
    knowledge_base: AudioBertKnowledgeBase, held_out: HeldOut, seed: int = 0, words: Collection[str] = ()
) -> SoundSwap:
    """
    The four parts, from recordings that are held out alone.

    - unheard names: up to 100 pairs of recordings of two labels, each in one pair at most, whose pitches differ by more
      than 10 %, under two invented names; in both orders, and in a second world with the two names exchanged.
    - swapped recordings: of the labels, those with a low median pitch exchange sounds with those with a high one. Asked
      is about every two labels whose names say the one, as their medians are a fifth apart or more, and whose sounds
      say the other, by an octave or more; in four worlds, with one sound for each label in each.
    - new sound: a recording under an invented name, alone added to the knowledge base, is compared with labels that
      stay as they are. It is far below them, or in a second world far above them: an octave and more from the median of
      the label, and beyond nine tenths of its recordings.
    - animals by ear: each recording of an animal that is held out, under an invented word for its sound.

    Args:
        knowledge_base: with `pitch_hz`.
        held_out: drawn from it.
        seed: of all draws; the same arguments give the same questions.
        words: that mean something, such as a vocabulary's, so that they are no invented names. Those of the labels and
            of the knowledge base's text tower are none either.

    Raises:
        ValueError: what is held out is not in the knowledge base, no recording of it has a pitch, or there are too few
            labels for a part.
    """
    held_out.check(knowledge_base, "The list of what is held out")
    by_id = recordings_by_id(knowledge_base)
    pitched = _pitched(by_id.values(), held_out.labels)
    animals = [by_id[recording] for recording in held_out.recordings]
    names = _names(knowledge_base, 2 * UNHEARD_PAIRS + NEW_SOUNDS + len(animals), seed, words)
    draw = random.Random(f"sound swap {seed}")
    return SoundSwap(
        seed,
        (
            *_unheard_names(pitched, names, draw),
            *_swapped_recordings(pitched, draw),
            *_new_sound(pitched, names, draw),
            *_animals_by_ear(animals, names, draw),
        ),
    )


@dataclass(frozen=True)
class _Pitched:
    """A label and its recordings that have a pitch, from low to high."""

    label: str
    recordings: tuple[Recording, ...]

    @property
    def pitches(self) -> list[float]:
        return [_pitch(recording) for recording in self.recordings]

    @property
    def median(self) -> float:
        return median(self.pitches)

    def typical(self) -> Recording:
        """The one nearest to the median."""
        return min(self.recordings, key=lambda one: (_apart(_pitch(one), self.median), one.id))


def _names(knowledge_base: AudioBertKnowledgeBase, count: int, seed: int, words: Collection[str]) -> Iterator[str]:
    """Invented names, none given twice."""
    labels = {knowledge_base.recording(row).label for row in range(len(knowledge_base))}
    of_labels = {word for label in labels for word in re.split(r"[\s_-]+", label)}
    known = {str(token).lstrip("Ġ▁") for token in knowledge_base.query_encoder.tokenizer.get_vocab()}
    return iter(invented_names(count, seed, {*labels, *of_labels, *known, *words}, held_out=True))


def _pitch(recording: Recording) -> float:
    assert recording.pitch_hz is not None  # only of those in `_Pitched`
    return recording.pitch_hz


def _pitched(recordings: Iterable[Recording], labels: Sequence[str]) -> list[_Pitched]:
    by_label: dict[str, list[Recording]] = {label: [] for label in labels}
    for recording in recordings:
        if recording.label in by_label and clear_pitch(recording) is not None:
            by_label[recording.label].append(recording)
    found = [
        _Pitched(label, tuple(sorted(found, key=lambda one: (_pitch(one), one.id))))
        for label, found in by_label.items()
        if found
    ]
    if not found:
        raise ValueError(
            "No recording of the labels that are held out has a pitch: build the knowledge base with `pitch_hz`, and "
            "draw from it what is held out."
        )
    return found


def _apart(first: float, second: float) -> float:
    """How many times the higher of two pitches is the lower one."""
    return max(first, second) / min(first, second)


def _answer(first: float, second: float) -> str:
    return PITCH_ANSWERS[0] if first > second else PITCH_ANSWERS[1]


# --- the parts -------------------------------------------------------------------------------------------------------


def _unheard_names(pitched: Sequence[_Pitched], names: Iterator[str], draw: random.Random) -> Iterator[Question]:
    pairs = _disjoint_pairs([one for label in pitched for one in label.recordings], draw)[:UNHEARD_PAIRS]
    if not pairs:
        raise ValueError(
            f"{_counted(pitched)} hold no two recordings of different labels whose pitches differ by more than "
            f"{CLOSE - 1:.0%}: hold out more labels."
        )
    for pair in pairs:
        spans = next(names), next(names)
        written = _written(spans, draw)
        for world, (first, second) in enumerate((pair, pair[::-1])):
            yield from _both_orders(UNHEARD_NAMES, world, written, spans, (first, second))


def _disjoint_pairs(recordings: Sequence[Recording], draw: random.Random) -> list[tuple[Recording, Recording]]:
    left = draw.sample(recordings, len(recordings))
    pairs = []
    while left:
        first = left.pop()
        fitting = (
            number
            for number, one in enumerate(left)
            if one.label != first.label and _apart(_pitch(one), _pitch(first)) > CLOSE
        )
        if (number := next(fitting, None)) is not None:
            pairs.append((first, left.pop(number)))
    return pairs


def _swapped_recordings(pitched: Sequence[_Pitched], draw: random.Random) -> Iterator[Question]:
    ordered = sorted(pitched, key=lambda one: (one.median, one.label))
    half = len(ordered) // 2
    partners = [
        (low, high)
        for low, high in zip(ordered[:half], ordered[len(ordered) - half :], strict=True)
        if high.median >= NAMES_APART * low.median
    ]
    asked = [pair for world in range(SWAPPED_WORLDS) for pair in _swapped_world(world, partners, draw)]
    if not asked:
        raise ValueError(
            f"{_counted(pitched)} hold no two labels far enough apart in pitch to swap their recordings: hold out more "
            "labels."
        )
    yield from asked


def _swapped_world(
    world: int, partners: Sequence[tuple[_Pitched, _Pitched]], draw: random.Random
) -> Iterator[Question]:
    heard = {}
    for low, high in partners:
        heard[low.label] = draw.choice([one for one in high.recordings if _pitch(one) >= high.median])
        heard[high.label] = draw.choice([one for one in low.recordings if _pitch(one) <= low.median])
    for one, other in combinations([label for pair in partners for label in pair], 2):
        sounds = heard[one.label], heard[other.label]
        pitches, medians = (_pitch(sounds[0]), _pitch(sounds[1])), (one.median, other.median)
        far = _apart(*pitches) >= FAR and _apart(*medians) >= NAMES_APART
        if far and _answer(*pitches) != _answer(*medians):
            spans = spoken(one.label), spoken(other.label)
            written = _written(spans, draw)
            yield from _both_orders(SWAPPED_RECORDINGS, world, written, spans, sounds, medians)


def _new_sound(pitched: Sequence[_Pitched], names: Iterator[str], draw: random.Random) -> Iterator[Question]:
    recordings = [one for label in pitched for one in label.recordings]
    chances = [(label, *_far_from(label, recordings)) for label in pitched]
    chances = [(label, below, above) for label, below, above in chances if below and above]
    if not chances:
        raise ValueError(
            f"{_counted(pitched)} hold no label with recordings of others an octave below and above it, so that no new "
            "sound can be asked about: hold out more labels."
        )
    draw.shuffle(chances)
    for number in range(NEW_SOUNDS):
        name = next(names)
        _, below, above = chances[number % len(chances)]
        low, high = draw.choice(below), draw.choice(above)
        fitting = [label for label, lower, higher in chances if low in lower and high in higher]
        for label in draw.sample(fitting, min(COMPARED_WITH, len(fitting))):
            spans = name, spoken(label.label)
            written = _written(spans, draw)
            for side, new in enumerate((low, high)):
                yield from _both_orders(NEW_SOUND, 2 * number + side, written, spans, (new, label.typical()))


def _far_from(label: _Pitched, recordings: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """
    Recordings of other labels that are far below and far above this one, whichever of its recordings is heard, but for
    a tenth of them at either end: some labels are sampled over all octaves.
    """
    low, *_, high = quantiles(label.pitches, n=10, method="inclusive") if len(label.pitches) > 1 else label.pitches * 2
    others = [one for one in recordings if one.label != label.label]
    below = [one for one in others if _pitch(one) < min(label.median / FAR, low / CLOSE)]
    above = [one for one in others if _pitch(one) > max(label.median * FAR, high * CLOSE)]
    return below, above


def _animals_by_ear(animals: Sequence[Recording], names: Iterator[str], draw: random.Random) -> Iterator[Question]:
    if len({recording.label for recording in animals}) < 2:
        raise ValueError(
            f"The {len(animals)} animal recordings that are held out are not of two labels at least, between which one "
            "could choose: hold out more recordings."
        )
    for recording in animals:
        sentence, spans = animal_sentence(next(names), draw)
        yield Question(
            ANIMALS_BY_EAR,
            0,
            sentence,
            tuple(spans),
            (recording.id,),
            (recording.label,),
            spoken(recording.label),
        )


def _written(spans: tuple[str, str], draw: random.Random) -> tuple[str, str]:
    """Two sentences, the second with the spans in the other order."""
    first, second = spans
    return pitch_sentence(first, second, draw)[0], pitch_sentence(second, first, draw)[0]


def _both_orders(
    part: str,
    world: int,
    written: tuple[str, str],
    spans: tuple[str, str],
    sounds: tuple[Recording, Recording],
    medians: tuple[float, float] | None = None,
) -> Iterator[Question]:
    """A pair as it stands in the two sentences: the first span first, then the second; by name it is its median."""
    for sentence, order in zip(written, ((0, 1), (1, 0)), strict=True):
        heard = [sounds[place] for place in order]
        by_name = _answer(medians[order[0]], medians[order[1]]) if medians else None
        yield Question(
            part,
            world,
            sentence,
            tuple(spans[place] for place in order),
            tuple(one.id for one in heard),
            tuple(one.label for one in heard),
            _answer(_pitch(heard[0]), _pitch(heard[1])),
            by_name,
        )


def _counted(pitched: Sequence[_Pitched]) -> str:
    recordings = sum(len(label.recordings) for label in pitched)
    labels = "label" if len(pitched) == 1 else "labels"
    return f"The {recordings} recordings with a pitch of {len(pitched)} {labels} that are held out"
