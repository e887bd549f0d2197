"""The command `audiobert reproduce`."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..console import check_output_folder, err, out, plain_errors

if TYPE_CHECKING:
    from .planning import Plan


class PresetName(str, Enum):
    paper = "paper"
    mini = "mini"


@plain_errors
def reproduce_command(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the runs and of their report.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of AuditoryBench's CSV files.")],
    tables: Annotated[str, typer.Option(help="Tables of the paper, with commas between them.")] = "1,2,3,4",
    preset: Annotated[
        PresetName, typer.Option(help="The paper's checkpoints and values, or what two cores can do.")
    ] = PresetName.paper,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model.")] = 5,
    text: Annotated[
        Path | None, typer.Option(help="Folder with WikiText's valid.txt and test.txt, to measure plain English.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the knowledge base's recordings, to train the audio encoder.")
    ] = None,
    sheets: Annotated[Path | None, typer.Option(help="Folder of human evaluation's sheets, for Table IV.")] = None,
    berts: Annotated[
        list[str] | None, typer.Option("--bert", help="In the place of the preset's BERTs, such as a local copy.")
    ] = None,
    ast: Annotated[str | None, typer.Option(help="In the place of the preset's AST.")] = None,
    knowledge_base: Annotated[str | None, typer.Option(help="Knowledge base: a folder or a Hub id.")] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Try out whether all works: trainings of so many steps, evaluated on a few rows."),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show the runs and what they will take, and stop.")] = False,
) -> None:
    """Trains and evaluates what the paper's tables need, and reports it; what is done already is not done again."""
    check_output_folder(output)
    from .configuration import refuse_another, values_of
    from .planning import make_plan
    from .presets import PRESETS, Cut, with_local_copies

    numbers = _numbers(tables)
    chosen = with_local_copies(PRESETS[preset.value], berts or (), ast, knowledge_base)
    hears = chosen.audio == "trained" and 3 in numbers
    if hears != (audio is not None):
        raise ValueError(
            f"Preset {chosen.name} needs --audio for Table III, the folder of the recordings."
            if hears
            else f"--audio means nothing for preset {chosen.name} and these tables; leave it out."
        )
    if sheets is not None and 4 not in numbers:
        raise ValueError("--sheets means nothing without Table IV; leave it out.")
    cut = None if max_steps is None else Cut(max_steps)
    plan = make_plan(chosen, output, numbers, seeds, with_text=text is not None, is_cut=cut is not None)
    refuse_another(output, values_of(chosen, cut))
    if plan_only:
        _show(plan)
        return

    # What follows needs torch and the models' libraries, which take seconds to load.
    from accelerate import PartialState

    from .reproducing import reproduce
    from .workshop import Workshop

    # Under `accelerate launch` the first process evaluates, for hours if need be, while the others wait for it.
    if PartialState(timeout=timedelta(days=7)).is_main_process:
        _show(plan)
    workshop = Workshop(output, chosen, data, text, audio, cut)
    failures = reproduce(plan, workshop, numbers, seeds, sheets, lambda line: out.print(escape(line), highlight=False))
    if failures:
        err.print(f"{len(failures)} of {len(plan.runs)} runs failed; start the same command again to retry them.")
        raise typer.Exit(1)


def _show(plan: Plan) -> None:
    out.print(plan.to_table())
    out.print(str(plan), highlight=False)


def _numbers(tables: str) -> list[int]:
    parts = [part.strip() for part in tables.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"--tables are numbers with commas between them, such as 2,3, got {tables!r}.")
    return sorted(set(map(int, parts)))
