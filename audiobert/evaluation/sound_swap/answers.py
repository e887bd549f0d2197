"""Answers to the questions of the sound swap, one by one: what every figure is computed from, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...files import whole_file
from .questions import Question

SOUND = "sound"
NAME = "name"
NEITHER = "neither"


@dataclass(frozen=True)
class SwapAnswer:
    """
    The answer to one question.

    Attributes:
        question: what was asked.
        predicted: the most probable of the part's answers; empty where several are as probable.
        spans_found: for each span whether the model's detector found it, whole and apart from the other; None where it
            did not look: the spans were given, audio was off, or the model has no detector.
        heard_as: for each span the label of the first recording that was heard there, None where none was; None where
            no recordings were looked for.
    """

    question: Question
    predicted: str
    spans_found: tuple[bool, ...] | None = None
    heard_as: tuple[str | None, ...] | None = None

    @property
    def follows(self) -> str:
        """sound, name or neither."""
        if self.predicted == self.question.answer:
            return SOUND
        return NAME if self.predicted and self.predicted == self.question.by_name else NEITHER

    @property
    def recordings_found(self) -> tuple[bool, ...] | None:
        """For each span whether the recording heard there is one that stands under the span's name."""
        if self.heard_as is None:
            return None
        return tuple(label == span for label, span in zip(self.heard_as, self.question.spans, strict=True))


def save_answers(path: str | Path, answers: Mapping[str, Sequence[SwapAnswer]]) -> None:
    """Writes answers by listener as JSON Lines, each with its question and what it follows."""
    with whole_file(Path(path)) as file:
        for listener, given in answers.items():
            file.writelines(json.dumps(_values(listener, answer), ensure_ascii=False) + "\n" for answer in given)


def _values(listener: str, answer: SwapAnswer) -> dict[str, Any]:
    found = {"spans_found": answer.spans_found, "heard_as": answer.heard_as}
    return {
        "listener": listener,
        **asdict(answer.question),
        "predicted": answer.predicted,
        "follows": answer.follows,
        **found,
    }


def load_answers(path: str | Path) -> dict[str, list[SwapAnswer]]:
    """
    Reads what `save_answers` wrote.

    Raises:
        ValueError: a line is none of its answers, with the file and the line.
    """
    answers: dict[str, list[SwapAnswer]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                values: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(line).items()
                }
                own = {name: values.pop(name) for name in ("predicted", "spans_found", "heard_as")}
                listener, _ = values.pop("listener"), values.pop("follows")
                answers.setdefault(listener, []).append(SwapAnswer(Question(**values), **own))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: no answer to the sound swap ({error}).") from error
    return answers
