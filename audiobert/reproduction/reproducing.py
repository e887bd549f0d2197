"""A reproduction from its start to its report: the runs that are not done, then what all of them found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..benchmark.dataset.statistics import benchmark_statistics
from ..benchmark.people.human_evaluation import HumanEvaluation, aggregate, read_sheets
from ..evaluation.preservation import Preservation
from .configuration import settle_configuration, values_of
from .contents import contents_of
from .findings import Answers, DetectorAlarms, DetectorScores, Results
from .planning import Plan, done_runs
from .report import write_report
from .runs import do_run, read_answers, read_detector, read_preservation, read_swap
from .sound_swap import Answered
from .workshop import Workshop, checkpoint_of


def describe(workshop: Workshop) -> dict[str, Any]:
    """The configuration of the runs of a workshop: everything that a result depends on, but its seed."""
    preset = workshop.preset
    named = {f"bert {number}": name for number, name in enumerate(preset.berts, 1)}
    named |= {baseline.name: baseline.checkpoint for baseline in preset.baselines}
    optional = {"ast": preset.ast, "knowledge base": preset.knowledge_base}
    named |= {part: name for part, name in optional.items() if name is not None}
    checkpoints = {part: checkpoint_of(name) for part, name in named.items()}
    return {
        **values_of(preset, workshop.cut),
        **contents_of(workshop.data, checkpoints=checkpoints, text=workshop.text, audio=workshop.audio),
    }


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
    remaining = plan.remaining
    failures: dict[str, str] = {}
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
    answers: list[Answers] = []
    detectors: list[DetectorScores] = []
    alarms: list[DetectorAlarms] = []
    preservation: dict[int, Preservation] = {}
    swap: list[Answered] = []
    for run in done_runs(workshop.preset, workshop.out, seeds):
        if run.kind == "preservation" and run.seed is not None:
            preservation[run.seed] = read_preservation(run, workshop)
        elif run.kind != "detector":
            answers.append(read_answers(run, workshop))
            swap.append(read_swap(run, workshop))
        elif run.bert == main:
            # Those on other BERTs serve AudioBERT alone.
            scores, found = read_detector(run, workshop)
            detectors += scores
            alarms += [] if found is None else [found]
    return Results(
        configuration=configuration,
        statistics=benchmark_statistics(workshop.benchmark) if 1 in tables else None,
        detectors=detectors,
        alarms=alarms,
        answers=answers,
        preservation=preservation,
        swap=swap,
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
        ValueError: the folder holds results of another configuration, see `settle_configuration`; the main checkpoint
            lacks what the preset needs of it.
    """
    human = None if sheets is None else _human(sheets)  # before the runs, as it is no use to fail after them
    if plan.remaining:
        workshop.check()
    configuration = describe(workshop)
    state = PartialState()
    if state.is_main_process:
        configuration = settle_configuration(workshop.out, configuration)
    # The others wait: where the first one refuses, whoever started them ends them too.
    state.wait_for_everyone()
    failures = do_runs(plan, workshop, tell)
    if state.is_main_process:
        results = read_results(workshop, tables, seeds, configuration, human)
        tell(f"wrote {write_report(results, workshop.out)}")
    return failures
