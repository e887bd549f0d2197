"""Where the runs of a reproduction happen and what they take: rows, plain English, sounds, and what none may hear."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasets import Dataset, DatasetDict

from .. import bundled
from ..data.auditorybench import FEATURES, load_auditorybench
from ..data.plain_text import read_passages, sample_passages
from ..data.variants import silent_rows, varied_rows
from ..evaluation.sound_swap.questions import PARTS, SETTINGS_FILE, SOUND_SWAP_FOLDER, SoundSwap
from ..listening.held_out import HELD_OUT_FILE, HeldOut
from ..modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase
from .planning import run_folder
from .presets import BUNDLED, Cut, Preset

# Passages whose every token is predicted, which takes long.
PERPLEXITY_PASSAGES = 100


@dataclass(frozen=True)
class Workshop:
    """
    Where the runs happen and what they take.

    Attributes:
        out: the runs lie in its folder `runs`.
        preset: the values.
        data: folder of AuditoryBench's CSV files.
        text: folder with WikiText's valid.txt, of which detectors learn silence, and test.txt, which is measured on.
        audio: folder of the recordings, where the audio encoder is trained.
        cut: how little to do of everything, to try out whether all works; None for results.
    """

    out: Path
    preset: Preset
    data: Path
    text: Path | None = None
    audio: Path | None = None
    cut: Cut | None = None

    @cached_property
    def benchmark(self) -> DatasetDict:
        """AuditoryBench as it is."""
        return load_auditorybench(self.data)

    @cached_property
    def dataset(self) -> DatasetDict:
        """What is trained and evaluated on."""
        if self.cut is None:
            return self.benchmark
        return DatasetDict({name: _few_rows(part, self.cut.rows) for name, part in self.benchmark.items()})

    @cached_property
    def knowledge_base(self) -> AudioBertKnowledgeBase:
        """One for all models, so that what one has looked up no other has to."""
        if self.preset.knowledge_base is not None:
            return AudioBertKnowledgeBase.from_pretrained(self.preset.knowledge_base)
        name = self.preset.berts[-1]
        found = AudioBertForMaskedLM.from_pretrained(checkpoint_of(name)).knowledge_base
        if found is None:
            raise ValueError(f"{name} has no knowledge base: name one with --knowledge-base.")
        return found

    @cached_property
    def adapter_rows(self) -> DatasetDict:
        train = self.dataset["train"]
        rows = varied_rows(train, seed=0) if self.preset.variants else train
        return DatasetDict({**self.dataset, "train": rows})

    @cached_property
    def silence(self) -> Dataset:
        """Plain sentences for the detector, none if the preset has it so or there is no text."""
        rows = silent_rows(self._passages("valid.txt")) if self.preset.silence and self.text is not None else []
        return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)

    @cached_property
    def passages(self) -> list[str]:
        """Plain English that is measured on."""
        return self._passages("test.txt")

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What no training may hear, as it travels with the main checkpoint; None for a preset that needs no such list.

        Raises:
            ValueError: it is not there, or of another knowledge base.
        """
        preset = self.preset
        if not (preset.listen or preset.detector_listen or preset.sound_swap):
            return None
        path = self._beside_main_checkpoint(HELD_OUT_FILE, "`audiobert train --listen` writes one")
        return HeldOut.load(path, self.knowledge_base)

    @cached_property
    def sound_swap(self) -> SoundSwap | None:
        """The questions that travel with the main checkpoint; None for a preset that has it so.

        Raises:
            ValueError: they are not there, of another knowledge base, or about what a training may hear.
        """
        if not self.preset.sound_swap:
            return None
        settings = f"{SOUND_SWAP_FOLDER}/{SETTINGS_FILE}"
        folder = self._beside_main_checkpoint(settings, "`audiobert make-sound-swap` writes it").parent
        swap = SoundSwap.load(folder, self.knowledge_base)
        if self.held_out is not None:
            swap.check_held_out(self.held_out, folder)
        return swap if self.cut is None else _few_questions(swap, self.cut.rows)

    def _beside_main_checkpoint(self, name: str, remedy: str) -> Path:
        checkpoint = checkpoint_of(self.preset.berts[-1])
        path = Path(checkpoint, name)
        if not path.is_file():
            raise ValueError(
                f"{checkpoint} has no {name}, which preset {self.preset.name} needs: name with --bert the folder of an "
                f"AudioBERT that has ({remedy})."
            )
        return path

    def check(self) -> None:
        """
        Reads what must travel with the main checkpoint, so that what is wrong with it shows before anything is trained.

        Raises:
            ValueError, OSError: it is not there, or of another checkpoint.
        """
        _ = self.held_out, self.sound_swap

    @property
    def perplexity_passages(self) -> list[str]:
        """Those of them whose every token is predicted."""
        count = PERPLEXITY_PASSAGES if self.cut is None else self.cut.perplexity_passages
        return sample_passages(self.passages, count)

    def _passages(self, name: str) -> list[str]:
        if self.text is None:
            raise ValueError("There is no folder of plain English: give one with --text.")
        passages = read_passages(self.text / name)
        return passages if self.cut is None else sample_passages(passages, self.cut.passages)

    def folder(self, name: str) -> Path:
        return run_folder(self.out, name)


def _few_rows(part: Dataset, rows: int) -> Dataset:
    """So many rows of each task, in their order: the first of a shuffle that is always the same."""
    by_task: dict[str, list[int]] = {}
    for number, task in enumerate(part["task"]):
        by_task.setdefault(task, []).append(number)
    chosen = [_first_of_shuffle(numbers, rows) for numbers in by_task.values()]
    return part.select(sorted(number for numbers in chosen for number in numbers))


def _few_questions(swap: SoundSwap, count: int) -> SoundSwap:
    """So many questions of each part, likewise."""
    parts = [swap.part(name) for name in PARTS]
    chosen = [part[number] for part in parts for number in _first_of_shuffle(range(len(part)), count)]
    return SoundSwap(swap.seed, tuple(chosen))


def _first_of_shuffle(numbers: Sequence[int], count: int) -> list[int]:
    return sorted(random.Random(0).sample(numbers, min(count, len(numbers))))


def checkpoint_of(name: str) -> str:
    """Where a checkpoint of a preset lies: a folder or a Hub id."""
    return str(bundled()) if name == BUNDLED else name
