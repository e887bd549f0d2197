"""A reproduction from its start to its report: the runs that are not done, then what all of them found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..benchmark.dataset.statistics import benchmark_statistics
from ..benchmark.people.human_evaluation import HumanEvaluation, aggregate, read_sheets
from .configuration import configuration_of, settle_configuration
from .planning import Plan, done_runs
from .presets import BUNDLED, Preset
from .report import write_report
from .results import Results
from .runs import Workshop, checkpoint_of, do_run, read_answers, read_detector, read_preservation

# Of the preset's values these say where checkpoints lie, not what they hold.
_CHECKPOINTS = ("berts", "ast", "knowledge_base", "baselines")


def with_local_copies(
    preset: Preset, berts: Sequence[str] = (), ast: str | None = None, knowledge_base: str | None = None
) -> Preset:
    """
    The preset with other checkpoints in the places of its own.

    Args:
        preset: as it is published.
        berts: in the place of all of its BERTs; where there are as many as it has, baselines of the same BERTs take
            them too.
        ast, knowledge_base: a folder or a Hub id.

    Raises:
        ValueError: there is no knowledge base, or an option would do nothing.
    """
    baselines = preset.baselines
    if len(berts) == len(preset.berts):
        copies = dict(zip(preset.berts, berts, strict=True))
        baselines = tuple(replace(each, checkpoint=copies.get(each.checkpoint, each.checkpoint)) for each in baselines)
    chosen = replace(
        preset,
        berts=tuple(berts) or preset.berts,
        ast=ast or preset.ast,
        knowledge_base=knowledge_base or preset.knowledge_base,
        baselines=baselines,
    )
    if ast is not None and chosen.berts == (BUNDLED,):
        raise ValueError("--ast means nothing without --bert: the bundled checkpoint has an audio encoder of its own.")
    if chosen.knowledge_base is None and preset.ast is not None:
        raise ValueError(
            f"Preset {preset.name} needs --knowledge-base: build one with `audiobert build-knowledge-base`."
        )
    return chosen


def describe(workshop: Workshop) -> dict[str, Any]:
    """The configuration of the runs of a workshop, see `configuration_of`."""
    preset = workshop.preset
    checkpoints = {f"bert {number}": name for number, name in enumerate(preset.berts, 1)}
    checkpoints |= {"ast": preset.ast, "knowledge base": preset.knowledge_base}
    checkpoints |= {baseline.name: baseline.checkpoint for baseline in preset.baselines}
    return configuration_of(
        {name: value for name, value in asdict(preset).items() if name not in _CHECKPOINTS},
        workshop.data,
        checkpoints={part: checkpoint_of(name) for part, name in checkpoints.items() if name is not None},
        text=workshop.text,
        audio=workshop.audio,
        max_steps=workshop.max_steps,
    )


def do_runs(plan: Plan, workshop: Workshop, tell: Callable[[str], None] = print) -> dict[str, str]:
    """
    Does the runs of a plan that are not done. One that fails holds up none but those that build on it: its traceback
    is kept in `runs/NAME.error.txt` until it is done.

    Args:
        plan: see `make_plan`.
        workshop: where they happen.
        tell: what is called with a line on each run.

    Returns:
        By the name of a run, why it failed.

    Raises:
        Exception: what a run fails of where several processes train together; they could not go on in step.
    """
    state = PartialState()
    tell = tell if state.is_main_process else lambda _: None
    remaining, failures = plan.remaining, {}
    for number, run in enumerate(remaining, 1):
        tell(f"{number} of {len(remaining)}: {run.name}")
        errors = workshop.folder(run.name).with_name(f"{run.name}.error.txt")
        try:
            do_run(run, workshop)
            errors.unlink(missing_ok=True)
        except Exception as error:
            if state.num_processes > 1:
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            failures[run.name] = reason
            errors.parent.mkdir(parents=True, exist_ok=True)
            errors.write_text(traceback.format_exc(), encoding="utf-8")
            tell(f"{run.name} failed: {reason}")
    return failures


def read_results(
    workshop: Workshop,
    tables: Sequence[int],
    seeds: int,
    configuration: Mapping[str, Any],
    human: HumanEvaluation | None = None,
) -> Results:
    """
    What all runs have found that are done in a folder, those of earlier starts with other tables too.

    Args:
        workshop: where they lie.
        tables: 1 adds the sizes of the benchmark.
        seeds: as planned; runs of more seeds are found by themselves.
        configuration: of these runs, see `describe`.
        human: Table IV.

    Raises:
        ValueError, OSError: what a run has left cannot be read.
    """
    main = workshop.preset.berts[-1]
    answers, detectors, alarms, preservation = [], [], [], {}
    for run in done_runs(workshop, seeds):
        if run.kind == "preservation":
            preservation[run.seed] = read_preservation(run, workshop)
        elif run.kind != "detector":
            answers.append(read_answers(run, workshop))
        elif run.bert == main:
            # Those on other BERTs serve AudioBERT alone.
            scores, found = read_detector(run, workshop)
            detectors += scores
            alarms += [] if found is None else [found]
    return Results(
        configuration=configuration,
        statistics=benchmark_statistics(workshop.dataset) if 1 in tables else None,
        detectors=detectors,
        alarms=alarms,
        answers=answers,
        preservation=preservation,
        human=human,
        train=list(workshop.dataset["train"]),
    )


def _human(folder: Path) -> HumanEvaluation:
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no sheets (*.csv): make them with `audiobert benchmark human-sheets`.")
    return aggregate(read_sheets(paths))


def reproduce(
    plan: Plan,
    workshop: Workshop,
    tables: Sequence[int],
    seeds: int,
    sheets: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Mapping[str, str]:
    """
    Does what is left of a plan and writes the report of all that is done.

    Returns:
        By the name of a run, why it failed.

    Raises:
        ValueError: the folder holds results of another configuration, see `settle_configuration`.
    """
    human = None if sheets is None else _human(sheets)  # before the runs, as it is no use to fail after them
    configuration = describe(workshop)
    with PartialState().main_process_first():
        settle_configuration(workshop.out, configuration)
    failures = do_runs(plan, workshop, tell)
    if PartialState().is_main_process:
        results = read_results(workshop, tables, seeds, configuration, human)
        tell(f"wrote {write_report(results, workshop.out)}")
    return failures
