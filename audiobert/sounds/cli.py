"""The commands that make a knowledge base and let one grow: `audiobert build-knowledge-base --help`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..console import Format, out, plain_errors, print_figures


class Pooling(str, Enum):
    mean = "mean"
    sounding = "sounding"


class Retrieval(str, Enum):
    audio = "audio"
    label = "label"
    both = "both"


@plain_errors
def build_knowledge_base_command(
    source: Annotated[list[str], typer.Argument(metavar="AUDIO", help="Folders with metadata.csv, or Hub datasets.")],
    output: Annotated[Path, typer.Argument(help="Folder to write to; it may not be there yet.")],
    clap: Annotated[
        str, typer.Option(help="CLAP: a folder, a Hub id, or a .pt of laion-clap.")
    ] = "laion/clap-htsat-fused",
    ast: Annotated[str, typer.Option(help="AST: a folder or a Hub id.")] = "MIT/ast-finetuned-audioset-10-10-0.4593",
    clap_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of CLAP on the Hub.")] = None,
    ast_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of AST on the Hub.")] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "train",
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only recordings of this source.")] = None,
    without_sources: Annotated[
        list[str] | None, typer.Option("--without-source", help="No recordings of this source.")
    ] = None,
    pooling: Annotated[
        Pooling,
        typer.Option(help="What AST's embedding is the mean of: all of its input, as in the paper, or what sounds."),
    ] = Pooling.mean,
    retrieval: Annotated[
        Retrieval, typer.Option(help="Find recordings by their sound, as in the paper, by their label, or by either.")
    ] = Retrieval.audio,
    measure: Annotated[bool, typer.Option("--measure", help="Measure pitch and brightness of each recording.")] = False,
    carry_clap: Annotated[
        bool, typer.Option("--carry-clap", help="Save CLAP's audio tower along, so that recordings can be added.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the encoders run: cpu, cuda, mps, ...")] = "cpu",
) -> None:
    """Embeds recordings with CLAP and AST; a build that was stopped goes on where it stopped."""
    from .building import build_knowledge_base

    report = build_knowledge_base(
        [_opened(name, split) for name in source],
        output,
        clap=clap,
        ast=ast,
        clap_revision=clap_revision,
        ast_revision=ast_revision,
        sources=sources,
        without_sources=without_sources or (),
        pooling=pooling.value,
        retrieval=retrieval.value,
        measure=measure,
        carry_clap=carry_clap,
        device=device,
    )
    out.print(f"{report.count} recordings in {report.folder} ({report.resumed} from a build that was cut off).")
    _show_skipped(report.skipped)


@plain_errors
def add_recordings_command(
    model: Annotated[str, typer.Argument(help="The AudioBERT, a folder or a Hub id.")],
    audio_dir: Annotated[Path, typer.Argument(help="Folder of the recordings, with metadata.csv.")],
    output: Annotated[Path, typer.Argument(help="Folder of the new model; it may not be there yet.")],
) -> None:
    """Adds recordings to a model's knowledge base; the whole model is written to a new folder, nothing is trained."""
    from .growing import grow_checkpoint

    report = grow_checkpoint(model, audio_dir, output)
    out.print(f"{len(report.added)} recordings added; the knowledge base in {output} holds {report.count}.")
    _show_skipped(report.skipped)


@plain_errors
def evaluate_retrieval_command(
    model: Annotated[str, typer.Argument(help="An AudioBERT or a knowledge base, a folder or a Hub id.")],
    spans: Annotated[
        Path | None, typer.Option(help="CSV with the columns span and labels (separated by ;), in place of ours.")
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.table,
) -> None:
    """Measures how often a span finds a recording with a right label, by sound and by name."""
    from ..modeling.companions_audiobert import KNOWLEDGE_BASE_FOLDER, has_knowledge_base
    from ..modeling.knowledge_audiobert import AudioBertKnowledgeBase
    from .retrieval import measure_retrieval, read_labelled_spans

    asked = None if spans is None else read_labelled_spans(spans)
    subfolder = KNOWLEDGE_BASE_FOLDER if has_knowledge_base(model, KNOWLEDGE_BASE_FOLDER) else ""
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(model, subfolder=subfolder)
    print_figures(measure_retrieval(knowledge_base, asked), output_format)


def _opened(name: str, split: str) -> Any:
    if Path(name).is_dir():
        return name
    from datasets import load_dataset

    return load_dataset(name, split=split)


def _show_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    if skipped:
        out.print(f"{len(skipped)} were left out; skipped.csv lists them:")
        for name, reason in skipped[:10]:
            out.print(f"  {escape(name)}: {escape(reason)}", highlight=False)
