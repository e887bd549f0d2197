"""Which runs the tables need, in which order, how far they are, and what they will take."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..reports.tables import TableReport, TextTable
from .presets import AUDIOBERT, BERT, GROUPS, LINEAR, MAJORITY, NO_AUDIO, PRESETS, TRAINED_CONTROLS, Preset

TABLES = (1, 2, 3, 4)
State = Literal["done", "cut off", "to do"]
Kind = Literal["control", "bert", "baseline", "detector", "audiobert", "preservation"]

RUNS_FOLDER = "runs"
# Of the mini preset, minutes by the kind of the run, on two cores that also do other work: of detector and AudioBERT by
# what an epoch of each took, the others in proportion to a smaller BERT's.
MINI_MINUTES: dict[Kind, float] = {
    "control": 0.2,
    "bert": 1.0,
    "detector": 8.0,
    "audiobert": 80.0,
    "preservation": 8.0,
}


@dataclass(frozen=True)
class Run:
    """
    Attributes:
        name: of the run and its folder.
        kind: what it does.
        what: the model's name as in the results, or for a detector the group it is trained on.
        seed: None for what has no seed.
        bert: the checkpoint that it is built on; None for a control without one.
        needs: runs that must be done before.
    """

    name: str
    kind: Kind
    what: str
    seed: int | None = None
    bert: str | None = None
    needs: tuple[str, ...] = ()


# --- where they lie --------------------------------------------------------------------------------------------------


def run_folder(out: Path, name: str) -> Path:
    """Where a run lies when it is done."""
    return out / RUNS_FOLDER / name


def unfinished_folder(out: Path, name: str) -> Path:
    """Where a run lies until it is done."""
    return run_folder(out, f"{name}.unfinished")


def is_done(out: Path, name: str) -> bool:
    return run_folder(out, name).is_dir()


def done_runs(preset: Preset, out: Path, at_least: int) -> list[Run]:
    """The runs of all tables that are done, also of seeds and tables that an earlier start was asked for.

    Args:
        preset: with the checkpoints in their places.
        out: the folder of the reproduction.
        at_least: seeds to look for; more are found as long as a seed has a run.
    """
    found: list[Run] = []
    for seeds in itertools.count(1):
        runs = [run for run in plan_runs(preset, TABLES, seeds, True) if is_done(out, run.name)]
        if len(runs) == len(found) and seeds > at_least:
            return runs
        found = runs
    raise AssertionError("unreachable")


# --- which there are -------------------------------------------------------------------------------------------------


def plan_runs(preset: Preset, tables: Collection[int], seeds: int, with_text: bool) -> list[Run]:
    """
    The runs that the tables need, each after those that it builds on; what is quick and needs no seed comes first, then
    seed after seed, so that a part of the runs gives a report of fewer seeds.

    Tables I and IV need none: they are counted when the report is written.

    Args:
        preset: with the checkpoints in their places.
        tables: numbers of the paper's tables.
        seeds: 0, 1, ..., one less than this.
        with_text: whether there is plain English to measure on.
    """
    runs: list[Run] = []
    if 3 in tables:
        runs += [Run(_slug(what), "control", what) for what in (MAJORITY, LINEAR)]
        runs.append(Run(_slug(BERT), "bert", BERT, bert=preset.berts[-1]))
        runs += [
            Run(f"baseline-{_slug(baseline.name)}", "baseline", baseline.name, bert=baseline.checkpoint)
            for baseline in preset.baselines
        ]
    for seed in range(seeds):
        runs += _runs_of_seed(preset, tables, seed, with_text)
    return runs


def _runs_of_seed(preset: Preset, tables: Collection[int], seed: int, with_text: bool) -> Iterator[Run]:
    *others, main = preset.berts
    for group in GROUPS if 2 in tables else ("both",) if 3 in tables else ():
        yield Run(f"detector-{group}-{seed}", "detector", group, seed, main)
    if 3 not in tables:
        return
    for what in (AUDIOBERT, *TRAINED_CONTROLS):
        yield Run(f"{_slug(what)}-{seed}", "audiobert", what, seed, main, (f"detector-both-{seed}",))
    if with_text:
        needs = (f"{_slug(AUDIOBERT)}-{seed}",)
        yield Run(f"preservation-{seed}", "preservation", AUDIOBERT, seed, main, needs)
    for bert in others:
        size = Path(bert).name
        detector = f"detector-both-{_slug(size)}-{seed}"
        yield Run(detector, "detector", "both", seed, bert)
        for what in (AUDIOBERT, NO_AUDIO):
            name = f"{what} ({size})"
            yield Run(f"{_slug(name)}-{seed}", "audiobert", name, seed, bert, (detector,))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("'", "")).strip("-")


# --- what they take --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlannedRun:
    """A run, how far it is, and the minutes that it takes on two cores; None where they were never measured."""

    run: Run
    state: State
    minutes: float | None


@dataclass(frozen=True)
class Plan(TableReport):
    """The runs in the order in which they are done."""

    runs: tuple[PlannedRun, ...]

    @property
    def remaining(self) -> list[Run]:
        """The runs that are not done."""
        return [planned.run for planned in self.runs if planned.state != "done"]

    @property
    def remaining_minutes(self) -> float | None:
        """Of the runs that are not done; None if that of one is not known."""
        minutes = [planned.minutes for planned in self.runs if planned.state != "done"]
        known = [each for each in minutes if each is not None]
        return sum(known) if len(known) == len(minutes) else None

    def to_dict(self) -> dict[str, Any]:
        """Minutes are None where they are not known."""
        return {
            "runs": [
                {**asdict(planned.run), "state": planned.state, "minutes": planned.minutes} for planned in self.runs
            ],
            "remaining_minutes": self.remaining_minutes,
        }

    def _table(self) -> TextTable:
        rows = [[planned.run.name, planned.state, _time(planned.minutes)] for planned in self.runs]
        return TextTable("Runs", ["run", "state", "time"], rows, names=2)

    def __str__(self) -> str:
        """One sentence on what is left."""
        left = len(self.remaining)
        text = f"{len(self.runs) - left} of {len(self.runs)} runs are done"
        if not left:
            return f"{text}."
        if self.remaining_minutes is None:
            return f"{text}; how long the other {left} take is not known: it was not measured."
        return f"{text}; the other {left} take about {_time(self.remaining_minutes)} on two cores."


def make_plan(
    preset: Preset, out: Path, tables: Collection[int], seeds: int, *, with_text: bool, is_cut: bool = False
) -> Plan:
    """
    The runs that the tables need, how far they are, and what they take.

    Args:
        preset, tables, seeds, with_text: as of `plan_runs`.
        out: the folder of the reproduction, which need not be there.
        is_cut: whether it is a try, of which nobody has measured the time.

    Raises:
        ValueError: a table that the paper does not have, no seed, or two BERTs of one name.
    """
    if not tables or not set(tables) <= set(TABLES):
        raise ValueError(f"Tables are numbers out of {', '.join(map(str, TABLES))}, got {', '.join(map(str, tables))}.")
    if seeds < 1:
        raise ValueError(f"At least one seed is needed, got {seeds}.")
    runs = plan_runs(preset, tables, seeds, with_text)
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(
            f"Two of {', '.join(preset.berts)} have the same name, so that the results of one would be taken for those "
            "of the other: rename a folder."
        )
    is_measured = preset == PRESETS["mini"] and not is_cut
    return Plan(
        tuple(PlannedRun(run, _state(run, out), MINI_MINUTES[run.kind] if is_measured else None) for run in runs)
    )


def _state(run: Run, out: Path) -> State:
    if is_done(out, run.name):
        return "done"
    return "cut off" if unfinished_folder(out, run.name).is_dir() else "to do"


def _time(minutes: float | None) -> str:
    if minutes is None:
        return "-"
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
