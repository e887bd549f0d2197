"""
Rows made from a knowledge base itself, as the paper makes its benchmark from recordings (section II): only who hears
the recordings can answer them.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.auditorybench import PITCH_ANSWERS
from ..data.batches import tokenized_columns
from ..modeling import AudioBertKnowledgeBase
from ..modeling.labels_audiobert import spoken
from .names import invented_names
from .phrasings import animal_sentence, pitch_sentence
from .pitches import clear_pitch

# Pitches closer than this are no pair: the ear, and the pitch tracker, would be unsure.
CLOSE = 1.1
# How many rows ask about an animal where there are both kinds; AuditoryBench's train rows have a third.
ANIMAL_SHARE = 0.35
# How many pairs of sounds bear invented names. Of the others half bear their labels and half each other's, so that a
# name says nothing of the answer.
INVENTED_SHARE = 0.6
NAMES = 3000

Row = dict[str, Any]


@dataclass(frozen=True)
class Sounds:
    """
    What of a knowledge base rows are made of: by label the numbers of its recordings.

    Attributes:
        pitched: labels with recordings that have a clear pitch.
        animals: labels that are animals.
        hertz: by the number of a recording its pitch.
    """

    pitched: dict[str, tuple[int, ...]]
    animals: dict[str, tuple[int, ...]]
    hertz: dict[int, float]

    @classmethod
    def of(cls, knowledge_base: AudioBertKnowledgeBase, animals: Collection[str]) -> Sounds:
        """
        Args:
            knowledge_base: of which nothing is held out, see `HeldOut.without`.
            animals: labels that are animals, see [`animal_labels`]; their pitch is not asked about.

        Raises:
            ValueError: no two labels can be compared in pitch, as the knowledge base does not say any.
        """
        by_label, hertz = defaultdict(list), {}
        for number in range(len(knowledge_base)):
            recording = knowledge_base.recording(number)
            by_label[recording.label].append(number)
            if (pitch := clear_pitch(recording)) is not None:
                hertz[number] = pitch
        pitched = {
            label: tuple(number for number in numbers if number in hertz)
            for label, numbers in by_label.items()
            if label not in animals and any(number in hertz for number in numbers)
        }
        found = cls(pitched, {label: tuple(by_label[label]) for label in by_label if label in animals}, hertz)
        if not found.can_be_compared():
            raise ValueError(
                f"Listening compares the pitch of recordings, and in the knowledge base {len(pitched)} labels have "
                "one, or none differ: build it with `audiobert build-knowledge-base --measure`, of more sounds."
            )
        return found

    def can_be_compared(self) -> bool:
        """Whether there are two labels without a word in common, with recordings of different pitch."""
        for label, other in combinations(self.pitched, 2):
            hertz = [self.hertz[number] for name in (label, other) for number in self.pitched[name]]
            if apart(label, other) and max(hertz) / min(hertz) > CLOSE:
                return True
        return False


def apart(label: str, other: str) -> bool:
    """Whether two labels share no word, so that one is not taken for the other where both stand in a sentence."""
    return not set(spoken(label).casefold().split()) & set(spoken(other).casefold().split())


def animal_labels(knowledge_base: AudioBertKnowledgeBase, animals: Iterable[str]) -> set[str]:
    """
    The labels of a knowledge base that are animals: those that are among the answers to AuditoryBench's animal rows.

    Args:
        knowledge_base: with labels as its sources write them.
        animals: the answers; upper case and underscores make no difference.
    """
    named = {spoken(name).casefold() for name in animals}
    labels = {knowledge_base.recording(number).label for number in range(len(knowledge_base))}
    return {label for label in labels if spoken(label).casefold() in named}


class ListeningRows:
    """
    Rows as `tokenize_auditorybench` gives them, with `recordings`, the numbers of those that are heard at each span.
    There is no end to them; each depends on the seed and on its number alone.

    - Two recordings of different labels whose pitches differ by more than 10 %, under invented names, their labels or
      each other's, in either order alike. The answer is that of the pitches heard there: of several recordings of a
      label, the mean on the scale of notes.
    - A recording of an animal, under an invented word for its sound. The answer is its label.

    Args:
        knowledge_base: of which nothing is held out; the numbers are those of its rows.
        animals: its labels that are animals; without any, all rows are pairs.
        tokenizer: the model's.
        seed: of all draws.
        top_k: at most so many recordings are heard at a span, one of them as often as several.
        max_length: tokens at which a sentence is cut.

    Raises:
        ValueError: the knowledge base has no pitch.
    """

    def __init__(
        self,
        knowledge_base: AudioBertKnowledgeBase,
        animals: Collection[str],
        tokenizer: PreTrainedTokenizerBase,
        seed: int = 0,
        top_k: int = 1,
        max_length: int | None = None,
    ) -> None:
        self.sounds = Sounds.of(knowledge_base, animals)
        self.tokenizer = tokenizer
        self.seed = seed
        self.top_k = top_k
        self.max_length = max_length
        self._pitched, self._animals = sorted(self.sounds.pitched), sorted(self.sounds.animals)
        words = {token.lstrip("Ġ▁#") for token in map(str, tokenizer.get_vocab())}
        labels = {knowledge_base.recording(number).label for number in range(len(knowledge_base))}
        self.names = invented_names(
            NAMES, seed, {*words, *(word for label in labels for word in spoken(label).split())}
        )

    def __getitem__(self, number: int) -> Row:
        return self.rows([number])[0]

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """Several rows by their numbers, tokenized at once."""
        drawn = [self._drawn(number) for number in numbers]
        columns = {name: [row[name] for row in drawn] for name in ("sentence", "answer", "spans")}
        tokens = tokenized_columns(columns, self.tokenizer, self.max_length)
        return [{**row, **{name: values[place] for name, values in tokens.items()}} for place, row in enumerate(drawn)]

    def _drawn(self, number: int) -> Row:
        draw = random.Random(f"listening {self.seed} {number}")
        if self._animals and draw.random() < ANIMAL_SHARE:
            return self._animal(draw)
        return self._pair(draw)

    def _animal(self, draw: random.Random) -> Row:
        label = draw.choice(self._animals)
        sentence, spans = animal_sentence(draw.choice(self.names), draw)
        recordings = [self._some(self.sounds.animals[label], draw)]
        return {
            "sentence": sentence,
            "answer": spoken(label).lower(),
            "spans": spans,
            "task": "animal",
            "recordings": recordings,
        }

    def _pair(self, draw: random.Random) -> Row:
        while True:
            labels = draw.sample(self._pitched, 2)
            recordings = [self._some(self.sounds.pitched[label], draw) for label in labels]
            first, second = (self._pitch(found) for found in recordings)
            if apart(*labels) and abs(first - second) > math.log2(CLOSE):
                break
        named = [spoken(label) for label in labels]
        invented = draw.random() < INVENTED_SHARE
        names = draw.sample(self.names, 2) if invented else draw.sample(named, 2)
        sentence, spans = pitch_sentence(names[0], names[1], draw)
        answer = PITCH_ANSWERS[0] if first > second else PITCH_ANSWERS[1]
        return {"sentence": sentence, "answer": answer, "spans": spans, "task": "pitch", "recordings": recordings}

    def _some(self, recordings: Sequence[int], draw: random.Random) -> list[int]:
        count = min(len(recordings), self.top_k)
        return draw.sample(recordings, 1 if draw.random() < 0.5 else draw.randint(1, count))

    def _pitch(self, recordings: Sequence[int]) -> float:
        """In octaves above 1 Hz."""
        return sum(math.log2(self.sounds.hertz[number]) for number in recordings) / len(recordings)
