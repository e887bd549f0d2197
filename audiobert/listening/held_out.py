"""What no training may hear: labels and recordings that are kept for measuring, as a file that travels with models."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import whole_file
from .pitches import clear_pitch

if TYPE_CHECKING:
    from ..modeling import AudioBertKnowledgeBase

HELD_OUT_FILE = "held_out.json"
SHARE = 0.2

_SHOWN = 5


@dataclass(frozen=True)
class HeldOut:
    """
    Labels all of whose recordings are held out, and single recordings.

    Attributes:
        seed: by which they were drawn.
        labels: sorted, as the knowledge base writes them.
        recordings: sorted ids, of labels that are not among `labels`.
    """

    seed: int
    labels: tuple[str, ...]
    recordings: tuple[str, ...]

    @classmethod
    def draw(
        cls, knowledge_base: AudioBertKnowledgeBase, animals: Collection[str], seed: int = 0, share: float = SHARE
    ) -> HeldOut:
        """
        A share of the labels with a pitch, and a share of the recordings of each animal.

        A label has a pitch if at least half of its recordings have a clear one (see [`clear_pitch`]) and it is no
        animal. Recordings of an animal that were cut from one file (see [`source_file_of`]) are held out together or
        not at all, and an animal of which there are too few files keeps them all.

        Args:
            knowledge_base: what there is.
            animals: the labels that are animals, see `audiobert.listening.rows.animal_labels`.
            seed: of the draw.
            share: of both, greater than 0 and less than 1.

        Raises:
            ValueError: for another share.
        """
        if not 0 < share < 1:
            raise ValueError(f"The share that is held out must lie between 0 and 1, got {share}.")
        by_label = defaultdict(list)
        for number in range(len(knowledge_base)):
            recording = knowledge_base.recording(number)
            by_label[recording.label].append(recording)
        pitched = [
            label
            for label, found in by_label.items()
            if label not in animals and 2 * sum(clear_pitch(one) is not None for one in found) >= len(found)
        ]
        recordings = []
        for label in sorted(by_label.keys() & set(animals)):
            files = {source_file_of(one.id) for one in by_label[label]}
            chosen = set(_drawn(files, share, f"held out {seed} {label}"))
            recordings += [one.id for one in by_label[label] if source_file_of(one.id) in chosen]
        return cls(seed, tuple(sorted(_drawn(pitched, share, f"held out {seed}"))), tuple(sorted(recordings)))

    def rows(self, knowledge_base: AudioBertKnowledgeBase) -> list[int]:
        """The numbers of the rows of a knowledge base that are held out, ascending."""
        labels, recordings = set(self.labels), set(self.recordings)
        numbered = ((number, knowledge_base.recording(number)) for number in range(len(knowledge_base)))
        return [number for number, one in numbered if one.label in labels or one.id in recordings]

    def without(self, knowledge_base: AudioBertKnowledgeBase) -> AudioBertKnowledgeBase:
        """
        The knowledge base that training may hear: its other recordings, in their order.

        Raises:
            ValueError: none is left.
        """
        held_out = set(self.rows(knowledge_base))
        if len(held_out) == len(knowledge_base):
            raise ValueError("All recordings of the knowledge base are held out: nothing is left to train on.")
        return knowledge_base.subset([number for number in range(len(knowledge_base)) if number not in held_out])

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all."""
        with whole_file(Path(path)) as file:
            file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the file into the folder of a model, beside what else is saved there."""
        self.save(Path(save_directory, HELD_OUT_FILE))

    @classmethod
    def load(cls, path: str | Path, knowledge_base: AudioBertKnowledgeBase | None = None) -> HeldOut:
        """
        Args:
            path: a file that `save` wrote.
            knowledge_base: in which all that is held out must be.

        Raises:
            ValueError: the file is not such a one, or names what is not in the knowledge base.
            OSError: it cannot be read.
        """
        try:
            kept = json.loads(Path(path).read_text(encoding="utf-8"))
            held_out = cls(kept["seed"], tuple(kept["labels"]), tuple(kept["recordings"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no list of what is held out (seed, labels and recordings, as JSON): {error!r}."
            ) from error
        if not isinstance(held_out.seed, int) or not all(
            isinstance(name, str) for name in (*held_out.labels, *held_out.recordings)
        ):
            raise ValueError(f"{path} is no list of what is held out: the seed is a number, the others are texts.")
        if knowledge_base is not None:
            held_out.check(knowledge_base, path)
        return held_out

    def check(self, knowledge_base: AudioBertKnowledgeBase, where: str | Path) -> None:
        """
        Raises:
            ValueError: with `where`, if labels or recordings are not in the knowledge base.
        """
        there = [knowledge_base.recording(number) for number in range(len(knowledge_base))]
        missing = [
            *sorted(set(self.labels) - {one.label for one in there}),
            *sorted(set(self.recordings) - {one.id for one in there}),
        ]
        if missing:
            more = ", ..." if len(missing) > _SHOWN else ""
            raise ValueError(
                f"{where} holds out {len(missing)} labels or recordings that are not in the knowledge base: "
                f"{', '.join(missing[:_SHOWN])}{more}. Give the list that was drawn from this knowledge base."
            )


def source_file_of(recording_id: str) -> str:
    """
    The file that a recording was cut from: takes of one file sound alike.

    Recordings of ESC-50 are named fold-file-take-class ("4-59579-B-20.wav"), and the same ones stand in ESC-10. Of
    others the name tells nothing, so that each is of a file of its own.
    """
    name = recording_id.rpartition("/")[2]
    match = re.fullmatch(r"\d-(\d+)-[A-Z]-\d+\.\w+", name)
    return f"ESC-50 {match[1]}" if match else recording_id


def _drawn(items: Iterable[str], share: float, seed: str) -> list[str]:
    ordered = sorted(items)
    return random.Random(seed).sample(ordered, round(share * len(ordered)))
