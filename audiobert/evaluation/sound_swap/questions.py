"""The questions of the sound swap, each with its recordings and its answer, and the folder that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.auditorybench import MASK, PITCH_ANSWERS
from ...files import sha256_of, whole_file

if TYPE_CHECKING:
    from ...listening.held_out import HeldOut
    from ...modeling import AudioBertKnowledgeBase
    from ...modeling.knowledge_audiobert import Recording

UNHEARD_NAMES = "unheard names"
SWAPPED_RECORDINGS = "swapped recordings"
NEW_SOUND = "new sound"
ANIMALS_BY_EAR = "animals by ear"
PARTS = (UNHEARD_NAMES, SWAPPED_RECORDINGS, NEW_SOUND, ANIMALS_BY_EAR)

# The folder's name where it travels with a checkpoint.
SOUND_SWAP_FOLDER = "sound_swap"
SETTINGS_FILE = "settings.json"
FORMAT = 1

_MAKE = "Make them anew with `audiobert make-sound-swap`."


@dataclass(frozen=True)
class Question:
    """
    A sentence, and what its spans sound like.

    Attributes:
        part: one of `PARTS`.
        world: questions of one part and world are asked of the same knowledge base, see
            [`audiobert.evaluation.sound_swap.worlds`].
        sentence: with `[MASK]` for the answer.
        spans: what is looked up, as it stands in the sentence: invented names, or labels of the knowledge base.
        recordings: for each span the id of the recording that sounds there.
        labels: for each span the label that this recording bears in the knowledge base.
        answer: what follows from the sound.
        by_name: what would follow from the names; None where they say nothing.
    """

    part: str
    world: int
    sentence: str
    spans: tuple[str, ...]
    recordings: tuple[str, ...]
    labels: tuple[str, ...]
    answer: str
    by_name: str | None = None

    @property
    def task(self) -> str:
        """The task of AuditoryBench that it is like."""
        return "animal" if self.part == ANIMALS_BY_EAR else "pitch"


@dataclass(frozen=True)
class SoundSwap:
    """
    All questions, made from one knowledge base and its list of what is held out.

    Attributes:
        seed: of all draws.
        questions: part by part.
    """

    seed: int
    questions: tuple[Question, ...]

    def part(self, name: str) -> list[Question]:
        return [question for question in self.questions if question.part == name]

    def answers(self, part: str) -> tuple[str, ...]:
        """Those between which a model chooses in a part: higher and lower, or the animals that are asked for."""
        if part != ANIMALS_BY_EAR:
            return PITCH_ANSWERS
        return tuple(sorted({question.answer for question in self.part(part)}))

    def worlds(self, part: str) -> dict[int, list[int]]:
        """The numbers of a part's questions, from 0 among `questions`, by world."""
        worlds: dict[int, list[int]] = {}
        for number, question in enumerate(self.questions):
            if question.part == part:
                worlds.setdefault(question.world, []).append(number)
        return worlds

    def save(self, folder: str | Path) -> None:
        """
        Writes a file of JSON Lines for each part, and last `settings.json` with their checksums. The same questions
        give the same bytes.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            with whole_file(_file_of(target, part)) as file:
                file.writelines(_line(question) for question in self.part(part))
        files = {path.name: sha256_of(path) for path in (_file_of(target, part) for part in PARTS)}
        with whole_file(target / SETTINGS_FILE) as file:
            file.write(json.dumps({"format": FORMAT, "seed": self.seed, "files": files}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, knowledge_base: AudioBertKnowledgeBase | None = None) -> SoundSwap:
        """
        Args:
            folder: that `save` wrote.
            knowledge_base: in which the recordings must be.

        Raises:
            OSError: the folder or one of its files is not there.
            ValueError: a file is not the one that was written, or the questions are of another knowledge base.
        """
        folder = Path(folder)
        settings = _settings(folder)
        questions = tuple(
            question for part in PARTS for question in _read(_file_of(folder, part), part, settings["files"])
        )
        loaded = cls(settings["seed"], questions)
        if knowledge_base is not None:
            loaded.check(knowledge_base, folder)
        return loaded

    def check(self, knowledge_base: AudioBertKnowledgeBase, where: str | Path) -> None:
        """
        Raises:
            ValueError: with `where`, if the knowledge base does not hold the recordings under their labels.
        """
        by_id = recordings_by_id(knowledge_base)
        asked = {
            recording: label
            for question in self.questions
            for recording, label in zip(question.recordings, question.labels, strict=True)
        }
        missing = [f"{recording} ({label})" for recording, label in asked.items() if recording not in by_id]
        if missing:
            raise ValueError(
                f"{where} is of another knowledge base: {len(missing)} of its {len(asked)} recordings are not in this "
                f"one, the first is {missing[0]}. {_MAKE}"
            )
        for recording, label in asked.items():
            if by_id[recording].label != label:
                raise ValueError(
                    f"{where} is of another knowledge base: there {recording} was {label!r}, in this one it is "
                    f"{by_id[recording].label!r}. {_MAKE}"
                )

    def check_held_out(self, held_out: HeldOut, where: str | Path) -> None:
        """
        Raises:
            ValueError: with `where`, if a recording that is asked about was not held out, so that it may be known.
        """
        labels, recordings = set(held_out.labels), set(held_out.recordings)
        for question in self.questions:
            for recording, label in zip(question.recordings, question.labels, strict=True):
                if recording not in recordings and label not in labels:
                    raise ValueError(
                        f"{where} asks about {recording} ({label}), which the model's list of what is held out does "
                        f"not name: training may have heard it. {_MAKE}"
                    )


def recordings_by_id(knowledge_base: AudioBertKnowledgeBase) -> dict[str, Recording]:
    return {
        recording.id: recording for recording in (knowledge_base.recording(row) for row in range(len(knowledge_base)))
    }


def _file_of(folder: Path, part: str) -> Path:
    return folder / f"{part.replace(' ', '_')}.jsonl"


def _line(question: Question) -> str:
    values = {name: value for name, value in asdict(question).items() if name != "part" and value is not None}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no questions of the sound swap: there is no {path.name} in it. Make them with `audiobert "
            "make-sound-swap`, or name their folder (`--questions`)."
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        known = settings["format"] == FORMAT
        seed, files = settings["seed"], settings["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of the sound swap ({error!r}). {_MAKE}") from error
    if not known or not isinstance(seed, int) or not isinstance(files, Mapping):
        raise ValueError(f"{path} is no file of the sound swap of format {FORMAT}. {_MAKE}")
    return settings


def _read(path: Path, part: str, digests: Mapping[str, str]) -> Iterator[Question]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {_MAKE}")
    if sha256_of(path) != digests.get(path.name):
        raise ValueError(f"{path} is not the file that {SETTINGS_FILE} beside it describes. {_MAKE}")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield _question(part, json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no question of the sound swap ({error}). {_MAKE}") from error


def _question(part: str, values: Mapping[str, Any]) -> Question:
    lists: dict[str, Sequence[str]] = {name: tuple(values.get(name, ())) for name in ("spans", "recordings", "labels")}
    question = Question(part, **{**values, **lists})
    if len({len(value) for value in lists.values()}) != 1 or not question.spans:
        raise ValueError("it needs as many spans as recordings and labels")
    if MASK not in question.sentence:
        raise ValueError(f"the sentence has no {MASK}")
    return question
