"""The figures of the sound swap: who follows the sound, who the name, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...reports.tables import TableReport, TextTable, percent
from ..comparison import interval_text
from ..significance import Interval, PairedBootstrap, bootstrap_interval, paired_bootstrap
from .answering import END_TO_END
from .answers import NAME, NEITHER, SOUND, SwapAnswer
from .questions import PARTS, Question

Runs = Sequence[Sequence[SwapAnswer]]

NOTE = (
    "95 % intervals by bootstrap over the labels of the recordings, not over questions. Of unheard names and of a new "
    "sound the words give exactly half, whatever is made of them. Blind CLAP is a control of who was trained on it."
)


@dataclass(frozen=True)
class PartFigures:
    """What one listener answers to one part; shares from 0 to 1, over all seeds."""

    questions: int
    labels: int
    """Different ones of the recordings that sound."""
    seeds: int
    follows_sound: float
    sd: float | None
    """The sample standard deviation of it over the seeds; None for one seed."""
    interval: Interval
    """Of it, 95 %, by `bootstrap_interval` over labels."""
    follows_name: float | None
    """None where the names say nothing."""
    neither: float
    spans_found: float | None
    """Of the spans that are asked about, those that the detector found; None where it did not look."""
    recordings_found: float | None
    """Those at which a recording was heard that stands under their name; None where none was looked for."""
    hearing_adds: PairedBootstrap | None
    """By how much the model end to end follows the sound more often than this listener, by `paired_bootstrap` over
    labels; None of itself, or if it is not among the listeners."""

    @property
    def sound_text(self) -> str:
        """How often the sound is followed, in percent: "88.20 ± 1.30", without the deviation for one seed."""
        return percent(self.follows_sound) + ("" if self.sd is None else f" ± {percent(self.sd)}")


@dataclass(frozen=True)
class SoundSwapReport(TableReport):
    """What [`sound_swap_report`] found."""

    parts: dict[str, dict[str, PartFigures]]
    """By part, then by listener."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the answers depend on besides."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers; shares stay between 0 and 1, an interval is the pair of its ends."""
        return asdict(self)

    def _table(self) -> TextTable:
        shares = ("sound", "95 % interval", "name", "neither", "spans", "recordings")
        header = ("part", "listener", "questions", *shares, "hearing adds")
        return TextTable("Sound swap: answers that follow", header, list(self._rows()), names=2, note=NOTE)

    def _rows(self) -> Iterator[list[str]]:
        for part, listeners in self.parts.items():
            for listener, found in listeners.items():
                yield [
                    *(part, listener, f"{found.questions:,}"),
                    *(found.sound_text, interval_text(found.interval)),
                    *map(percent, (found.follows_name, found.neither, found.spans_found, found.recordings_found)),
                    _gain_text(found.hearing_adds),
                ]


def sound_swap_report(answers: Mapping[str, Runs], settings: Mapping[str, Any] | None = None) -> SoundSwapReport:
    """
    The figures of every listener in every part that it was asked.

    Args:
        answers: by listener, its answers to all questions, one list per training seed; of a listener without seeds one.
        settings: what the answers depend on, to be kept with the figures.

    Raises:
        ValueError: a listener has no answers, or not all of them answered the same questions.
    """
    _check_same_questions(answers)
    parts: dict[str, dict[str, PartFigures]] = {}
    for part in PARTS:
        asked = {listener: _of_part(runs, part) for listener, runs in answers.items()}
        for listener, runs in asked.items():
            if runs[0]:
                heard = asked.get(END_TO_END) if listener != END_TO_END else None
                parts.setdefault(part, {})[listener] = _figures(runs, heard)
    return SoundSwapReport(parts, dict(settings or {}))


def _check_same_questions(answers: Mapping[str, Runs]) -> None:
    first: list[Question] = []
    for listener, runs in answers.items():
        if not runs or not all(runs):
            raise ValueError(f"There are no answers of {listener!r}, or none of some seed.")
        for run in runs:
            questions = [answer.question for answer in run]
            if questions != (first := first or questions):
                raise ValueError(
                    f"{listener!r} answered other questions than the first one, or in another order: ask all the same."
                )


def _of_part(runs: Runs, part: str) -> Runs:
    return [[answer for answer in run if answer.question.part == part] for run in runs]


def _figures(runs: Runs, end_to_end: Runs | None) -> PartFigures:
    labels = [tuple(sorted(set(answer.question.labels))) for answer in runs[0]]
    follows = _follows(runs)
    sound = follows == SOUND
    by_seed = sound.mean(1)
    named = any(answer.question.by_name for answer in runs[0])
    return PartFigures(
        questions=len(labels),
        labels=len({label for together in labels for label in together}),
        seeds=len(runs),
        follows_sound=float(by_seed.mean()),
        sd=float(by_seed.std(ddof=1)) if len(runs) > 1 else None,
        interval=bootstrap_interval(sound, clusters=labels),
        follows_name=float((follows == NAME).mean()) if named else None,
        neither=float((follows == NEITHER).mean()),
        spans_found=_share([answer.spans_found for run in runs for answer in run]),
        recordings_found=_share([answer.recordings_found for run in runs for answer in run]),
        hearing_adds=paired_bootstrap(_follows(end_to_end) == SOUND, sound, clusters=labels) if end_to_end else None,
    )


def _follows(runs: Runs) -> NDArray[np.str_]:
    return np.array([[answer.follows for answer in run] for run in runs], dtype=np.str_)


def _gain_text(gain: PairedBootstrap | None) -> str:
    return "-" if gain is None else f"{100 * gain.difference:+.2f} {interval_text(gain.interval, sign='+')}"


def _share(found: Sequence[tuple[bool, ...] | None]) -> float | None:
    known = [there for spans in found if spans is not None for there in spans]
    return sum(known) / len(known) if known else None
