"""Which runs the tables need, in which order, how far they are, and what they will take."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..reports.tables import TableReport, TextTable
from .costs import (
    GPU,
    SHAPES,
    TINY_MINUTES,
    Cost,
    Shape,
    adapter_cost,
    detector_cost,
    evaluation_cost,
    preservation_cost,
)
from .presets import PRESETS, Preset
from .results import AUDIOBERT, BERT, LINEAR, MAJORITY, NO_AUDIO, TRAINED_CONTROLS
from .runs import GROUPS, Run, Workshop, baseline_of, hearing_of

TABLES = (1, 2, 3, 4)
State = Literal["done", "cut off", "to do"]


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


def done_runs(workshop: Workshop, at_least: int) -> list[Run]:
    """The runs of all tables that are done, also of seeds and tables that an earlier start was asked for.

    Args:
        workshop: where they lie.
        at_least: seeds to look for; more are found as long as a seed has a run.
    """
    found: list[Run] = []
    for seeds in itertools.count(1):
        runs = [run for run in plan_runs(workshop.preset, TABLES, seeds, True) if workshop.is_done(run.name)]
        if len(runs) == len(found) and seeds > at_least:
            return runs
        found = runs
    raise AssertionError("unreachable")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("'", "")).strip("-")


@dataclass(frozen=True)
class PlannedRun:
    """A run, how far it is, and what it takes; None if that is not known."""

    run: Run
    state: State
    cost: Cost | None


@dataclass(frozen=True)
class Plan(TableReport):
    """
    Attributes:
        runs: in the order in which they are done.
        where: what the costs are of, two cores or a GPU.
    """

    runs: tuple[PlannedRun, ...]
    where: str

    @property
    def remaining(self) -> list[Run]:
        """The runs that are not done."""
        return [planned.run for planned in self.runs if planned.state != "done"]

    @property
    def remaining_cost(self) -> Cost:
        """Of the runs that are not done, as far as it is known: hours in all, and the most memory of one."""
        costs = [planned.cost for planned in self.runs if planned.state != "done" and planned.cost is not None]
        memory = [cost.gpu_gib for cost in costs if cost.gpu_gib is not None]
        return Cost(sum(cost.hours for cost in costs), max(memory, default=None))

    def to_dict(self) -> dict[str, Any]:
        """Hours and GiB, None where they are not known."""
        return {
            "where": self.where,
            "runs": [
                {**asdict(planned.run), "state": planned.state, "cost": planned.cost and asdict(planned.cost)}
                for planned in self.runs
            ],
            "remaining": asdict(self.remaining_cost),
        }

    def _table(self) -> TextTable:
        rows = [[planned.run.name, planned.state, *_cells(planned.cost)] for planned in self.runs]
        return TextTable("Runs", ["run", "state", "time", "GPU memory"], rows, names=2)

    def __str__(self) -> str:
        """One sentence on what is left."""
        left = len(self.remaining)
        text = f"{len(self.runs) - left} of {len(self.runs)} runs are done"
        if not left:
            return f"{text}."
        unknown = sum(planned.cost is None for planned in self.runs if planned.state != "done")
        time, memory = _cells(self.remaining_cost)
        text += f"; the other {left} take "
        if unknown == left:
            return f"{text}a time that is not known beforehand."
        text += f"{time} on {self.where} (an estimate)"
        text += f" and up to {memory} of its memory" if self.remaining_cost.gpu_gib is not None else ""
        return f"{text}, without {unknown} whose cost is not known." if unknown else f"{text}."


def make_plan(workshop: Workshop, tables: Collection[int], seeds: int) -> Plan:
    """
    The runs that the tables need, how far they are in `workshop.out`, and what they take.

    Raises:
        ValueError: a table that the paper does not have, or no seed.
    """
    if not tables or not set(tables) <= set(TABLES):
        raise ValueError(f"Tables are numbers out of {', '.join(map(str, TABLES))}, got {', '.join(map(str, tables))}.")
    if seeds < 1:
        raise ValueError(f"At least one seed is needed, got {seeds}.")
    runs = plan_runs(workshop.preset, tables, seeds, workshop.text is not None)
    on_cores = workshop.preset.name == "tiny"
    return Plan(
        tuple(PlannedRun(run, _state(run, workshop), _cost(run, workshop)) for run in runs),
        where="two cores" if on_cores else f"one {GPU}",
    )


def _state(run: Run, workshop: Workshop) -> State:
    if workshop.is_done(run.name):
        return "done"
    return "cut off" if workshop.is_begun(run.name) else "to do"


def _cost(run: Run, workshop: Workshop) -> Cost | None:
    preset = workshop.preset
    if workshop.max_steps is not None:
        # Of a training that is cut short no one has to plan anything.
        return None
    if run.kind == "control":
        return Cost(TINY_MINUTES["control"] / 60)
    if preset.name == "tiny":
        return Cost(TINY_MINUTES[run.kind] / 60) if preset.berts == PRESETS["tiny"].berts else None
    shape = _shape(run, preset)
    if shape is None:
        return None
    costs = {
        "bert": lambda: evaluation_cost(shape, "masked"),
        "baseline": lambda: evaluation_cost(shape, baseline_of(run, preset).kind),
        "detector": lambda: detector_cost(shape, preset.detector, GROUPS[run.what]),
        "audiobert": lambda: adapter_cost(shape, preset, with_audio=hearing_of(run)[1]),
        "preservation": lambda: preservation_cost(shape),
    }
    return costs[run.kind]()


def _shape(run: Run, preset: Preset) -> Shape | None:
    """Of the checkpoint of a run; a local copy is taken to be of the checkpoint in whose place it stands."""
    originals = PRESETS[preset.name].berts
    copies: Mapping[str, str] = dict(zip(preset.berts, originals, strict=False))
    if len(preset.berts) != len(originals):
        copies = {}
    return SHAPES.get(copies.get(run.bert, run.bert))


def _cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["-", "-"]
    time = f"{60 * cost.hours:.1f} min" if cost.hours < 1 else f"{cost.hours:.1f} h"
    return [time, "-" if cost.gpu_gib is None else f"{cost.gpu_gib:.1f} GiB"]
