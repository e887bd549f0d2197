"""The command that makes a knowledge base: `audiobert build-knowledge-base --help`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..console import out, plain_errors


class Pooling(str, Enum):
    mean = "mean"
    sounding = "sounding"


@plain_errors
def build_knowledge_base_command(
    source: Annotated[str, typer.Argument(metavar="AUDIO", help="Folder with metadata.csv, or a Hub dataset.")],
    output: Annotated[Path, typer.Argument(help="Folder to write to; it may not be there yet.")],
    clap: Annotated[str, typer.Option(help="CLAP: a folder or a Hub id.")] = "laion/clap-htsat-fused",
    ast: Annotated[str, typer.Option(help="AST: a folder or a Hub id.")] = "MIT/ast-finetuned-audioset-10-10-0.4593",
    clap_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of CLAP on the Hub.")] = None,
    ast_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of AST on the Hub.")] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "train",
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only recordings of this source.")] = None,
    pooling: Annotated[
        Pooling,
        typer.Option(help="What AST's embedding is the mean of: all of its input, as in the paper, or what sounds."),
    ] = Pooling.mean,
    device: Annotated[str, typer.Option(help="Where the encoders run: cpu, cuda, mps, ...")] = "cpu",
) -> None:
    """Embeds recordings with CLAP and AST; a build that was stopped goes on where it stopped."""
    from .building import build_knowledge_base

    data: Any = source
    if not Path(source).is_dir():
        from datasets import load_dataset

        data = load_dataset(source, split=split)
    report = build_knowledge_base(
        data,
        output,
        clap=clap,
        ast=ast,
        clap_revision=clap_revision,
        ast_revision=ast_revision,
        sources=sources,
        pooling=pooling.value,
        device=device,
    )
    out.print(f"{report.count} recordings in {report.folder} ({report.resumed} from a build that was cut off).")
    if report.skipped:
        out.print(f"{len(report.skipped)} were left out; skipped.csv lists them:")
        for name, reason in report.skipped[:10]:
            out.print(f"  {escape(name)}: {escape(reason)}", highlight=False)
