"""The commands that build a benchmark: `audiobert build-benchmark`, and `audiobert benchmark STAGE` for its parts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..console import Format, out, plain_errors, print_figures
from .stages import Shard, StageReport

if TYPE_CHECKING:
    from ..llm.client import ChatModel
    from .pipeline import BenchmarkBuild
    from .pitch import PitchSettings

app = typer.Typer(help="The stages of a benchmark build, one command each.", no_args_is_help=True)


class PitchMethod(str, Enum):
    pyin = "pyin"
    yin = "yin"


class Split(str, Enum):
    grouped = "grouped"
    plain = "plain"


MetadataArgument = Annotated[
    str,
    typer.Argument(
        help="A folder with metadata.csv; a folder of JSON beside FLAC, or WebDataset tars, as LAION-Audio-630K has; "
        "or a Hub dataset."
    ),
]
OutArgument = Annotated[Path, typer.Argument(help="Folder of the benchmark.")]
UrlOption = Annotated[str, typer.Option("--llm-url", help="An OpenAI-compatible server, such as vLLM's.")]
ModelOption = Annotated[str, typer.Option("--llm", help="The model, as the server names it.")]
KeyOption = Annotated[
    str | None, typer.Option("--llm-key", envvar="LLM_API_KEY", help="API key, if the server asks for one.")
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a reply.")]
TemplatesOption = Annotated[
    Path | None, typer.Option(help="Folder with your own versions of the templates; others are ours.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the pairs, the split and the samples.")]
ShardOption = Annotated[str | None, typer.Option(help="Do part I of N, such as 1/4; `merge` unites them.")]
ProcessesOption = Annotated[int, typer.Option("--num-proc", min=1, help="Processes that measure pitch.")]
MethodOption = Annotated[PitchMethod, typer.Option("--pitch-method", help="librosa's pyin or yin.")]
MaxPairsOption = Annotated[int, typer.Option(min=1, help="At most so many pairs for each main category.")]
SplitOption = Annotated[
    Split, typer.Option(help="grouped: no recording and no sentence in two splits. plain: the paper's.")
]
DataArgument = Annotated[Path, typer.Argument(help="A folder of the benchmark: its CSV files, or what was built here.")]
FormatOption = Annotated[Format, typer.Option("--format", help="What to print.")]
DecisionsOption = Annotated[Path | None, typer.Option(help="The sheet of `review`, filled in.")]
HubSplitOption = Annotated[str, typer.Option(help="Split of a Hub dataset.")]
HubConfigOption = Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")]


@plain_errors
def build_benchmark_command(
    metadata: MetadataArgument,
    output: OutArgument,
    url: UrlOption,
    model: ModelOption,
    key: KeyOption = None,
    concurrency: ConcurrencyOption = 16,
    timeout: TimeoutOption = 120.0,
    templates: TemplatesOption = None,
    num_proc: ProcessesOption = 1,
    pitch_method: MethodOption = PitchMethod.pyin,
    max_pairs: MaxPairsOption = 50_000,
    seed: SeedOption = 0,
    split: SplitOption = Split.grouped,
    decisions: DecisionsOption = None,
    hub_split: HubSplitOption = "train",
    hub_config: HubConfigOption = None,
) -> None:
    """Builds an AuditoryBench out of recordings and their texts; a build that was stopped goes on where it stopped."""
    from .pipeline import BenchmarkBuild
    from .sources.opening import open_source

    build = BenchmarkBuild(output, templates)
    source = open_source(metadata, split=hub_split, config=hub_config)
    with build.claimed(), _chat(build, "replies", url, model, key, concurrency, timeout) as chat:
        if not build.is_finished(source):
            # Before the work, which can take hours until the first request.
            chat.check()
        build.records(source)
        build.categories(chat)
        build.animals(chat)
        build.pitches(source, _pitch_settings(pitch_method), num_proc)
        build.pairs(seed, max_pairs)
        build.comparisons(chat)
        out.print(f"The server answered {chat.answered:,} requests; {chat.reused:,} replies were there already.")
        _publish(build, decisions, seed, split)


@app.command("records")
@plain_errors
def records_command(
    metadata: MetadataArgument,
    output: OutArgument,
    hub_split: HubSplitOption = "train",
    hub_config: HubConfigOption = None,
) -> None:
    """Lists the recordings and their texts."""
    from .pipeline import BenchmarkBuild
    from .sources.opening import open_source

    _print_report(BenchmarkBuild(output).records(open_source(metadata, split=hub_split, config=hub_config)))


def _add_llm_command(stage: str, description: str) -> None:
    @app.command(stage, help=description)
    @plain_errors
    def run(
        output: OutArgument,
        url: UrlOption,
        model: ModelOption,
        key: KeyOption = None,
        concurrency: ConcurrencyOption = 16,
        timeout: TimeoutOption = 120.0,
        templates: TemplatesOption = None,
        shard: ShardOption = None,
    ) -> None:
        from .pipeline import BenchmarkBuild

        build = BenchmarkBuild(output, templates)
        part = Shard.parse(shard) if shard else None
        name = "replies" if part is None else part.path(build.path(stage)).stem
        with _chat(build, name, url, model, key, concurrency, timeout) as chat:
            _print_report(getattr(build, stage)(chat, part))


_add_llm_command("categories", "Asks the LLM for the category of every recording.")
_add_llm_command("animals", "Asks the LLM for prompts on the sounds of animals.")
_add_llm_command("comparisons", "Asks the LLM for prompts on the pairs, and blindly for their answers.")


@app.command("pitches")
@plain_errors
def pitches_command(
    metadata: MetadataArgument,
    output: OutArgument,
    num_proc: ProcessesOption = 1,
    pitch_method: MethodOption = PitchMethod.pyin,
    hub_split: HubSplitOption = "train",
    hub_config: HubConfigOption = None,
    shard: ShardOption = None,
) -> None:
    """Measures the pitch of the recordings of music, objects and environment."""
    from .pipeline import BenchmarkBuild
    from .sources.opening import open_source

    source = open_source(metadata, split=hub_split, config=hub_config)
    part = Shard.parse(shard) if shard else None
    _print_report(BenchmarkBuild(output).pitches(source, _pitch_settings(pitch_method), num_proc, part))


@app.command("pairs")
@plain_errors
def pairs_command(output: OutArgument, seed: SeedOption = 0, max_pairs: MaxPairsOption = 50_000) -> None:
    """Draws pairs of recordings whose pitches differ."""
    from .pipeline import BenchmarkBuild

    _print_report(BenchmarkBuild(output).pairs(seed, max_pairs))


@app.command("merge")
@plain_errors
def merge_command(
    output: OutArgument,
    stage: Annotated[str, typer.Argument(help="categories, animals, pitches or comparisons.")],
    shards: Annotated[int, typer.Argument(min=1, help="The N of --shard I/N.")],
) -> None:
    """Unites the shards of a stage into the file of a run without shards."""
    from .pipeline import BenchmarkBuild

    _print_report(BenchmarkBuild(output).merge(stage, shards))


@app.command("review")
@plain_errors
def review_command(output: OutArgument) -> None:
    """Writes the sheet in which a person keeps or drops each animal prompt."""
    from .pipeline import BenchmarkBuild

    for path in BenchmarkBuild(output).review():
        out.print(f"wrote {path}", highlight=False)


@app.command("publish")
@plain_errors
def publish_command(
    output: OutArgument,
    decisions: DecisionsOption = None,
    seed: SeedOption = 0,
    split: SplitOption = Split.grouped,
) -> None:
    """Writes the dataset: splits, CSV, Parquet and card."""
    from .pipeline import BenchmarkBuild

    _publish(BenchmarkBuild(output), decisions, seed, split)


@app.command("wikipedia")
@plain_errors
def wikipedia_command(
    output: OutArgument,
    animals: Annotated[
        str | None, typer.Option(help='"List of animal sounds" as a saved page, or the address of an api.php.')
    ] = None,
    ranges: Annotated[
        str | None, typer.Option(help='"Template:Vocal and instrumental pitch ranges", likewise.')
    ] = None,
) -> None:
    """Makes this build's Wikipedia tables out of the pages given, or both out of the English Wikipedia as it is now."""
    from .pipeline import BenchmarkBuild
    from .wikipedia.refresh import refresh

    build = BenchmarkBuild(output)
    for what, source in (("animal", animals), ("pitch", ranges)):
        if source is None and (animals or ranges):
            continue
        with build.claimed("wikipedia"):
            table = refresh(what, build.wikipedia_folder, source)
        out.print(f"{table.count} facts in {table.path}", highlight=False)
        for reason, count in table.refused.items():
            out.print(f"  {count} not used: {escape(reason)}", highlight=False)


@app.command("statistics")
@plain_errors
def statistics_command(
    data: DataArgument,
    paper: Annotated[bool, typer.Option(help="Show the paper's Table I beside it.")] = False,
    output_format: FormatOption = Format.table,
) -> None:
    """Counts captions, words per caption and tokens, as Table I of the paper does."""
    from .dataset.publication import read_dataset
    from .dataset.statistics import benchmark_statistics

    counted = benchmark_statistics(read_dataset(data))
    if paper and output_format is Format.table:
        out.print(counted.to_table(paper=True))
    elif paper:
        raise ValueError("--paper goes with --format table alone.")
    else:
        print_figures(counted, output_format)


@app.command("leakage")
@plain_errors
def leakage_command(data: DataArgument, output_format: FormatOption = Format.table) -> None:
    """Reports what of dev, test and the Wikipedia set stands in train."""
    from .dataset.leakage import leakage
    from .dataset.publication import read_dataset

    print_figures(leakage(read_dataset(data)), output_format)


@app.command("human-sheets")
@plain_errors
def human_sheets_command(
    data: DataArgument,
    output: Annotated[Path, typer.Argument(help="Folder of the sheets.")],
    per_task: Annotated[int, typer.Option(min=1, help="Prompts of each task.")] = 100,
    annotators: Annotated[int, typer.Option(min=1, help="People who fill in a sheet each.")] = 3,
    split: Annotated[str, typer.Option(help="Split to draw from.")] = "test",
    seed: SeedOption = 0,
) -> None:
    """Writes the sheets of a human evaluation, as Table IV of the paper has it."""
    from .dataset.publication import read_dataset
    from .dataset.statistics import rows_by_task
    from .people.human_evaluation import sample_for_evaluation, write_sheets

    by_task = {task: splits[split] for task, splits in rows_by_task(read_dataset(data)).items()}
    sample = sample_for_evaluation(by_task, per_task=per_task, seed=seed)
    for paths in write_sheets(sample, output, annotators, seed=seed):
        out.print(f"wrote {paths[0]} and {paths[1].name}", highlight=False)


@app.command("human-scores")
@plain_errors
def human_scores_command(
    sheets: Annotated[list[Path], typer.Argument(help="The sheets, filled in.")],
    output_format: FormatOption = Format.table,
) -> None:
    """Unites the sheets of the annotators: accuracy, fluency and Krippendorff's alpha of each task."""
    from .people.human_evaluation import aggregate, read_sheets

    print_figures(aggregate(read_sheets(sheets)), output_format)


def _chat(
    build: BenchmarkBuild, log: str, url: str, model: str, key: str | None, concurrency: int, timeout: float
) -> AbstractContextManager[ChatModel]:
    """The model behind the server; its replies are kept with the stages."""
    from ..llm.client import open_chat

    return open_chat(url, model, key, build.replies, log, concurrency=concurrency, timeout=timeout)


def _pitch_settings(method: PitchMethod) -> PitchSettings:
    from .pitch import PitchSettings

    return PitchSettings(method=method.value)


def _publish(build: BenchmarkBuild, decisions: Path | None, seed: int, split: Split) -> None:
    published = build.publish(decisions, seed, split is Split.grouped)
    out.print(_stage_table(StageReport(**count) for count in published.provenance["stages"]))
    out.print(published.statistics.to_table())
    out.print(published.leakage.to_table())
    out.print(f"The dataset is in {published.folder}.", highlight=False)


def _print_report(report: StageReport) -> None:
    out.print(_stage_table([report]))


def _stage_table(reports: Iterable[StageReport]) -> Table:
    table = Table("stage", "read", "kept", "refused", "because")
    for report in reports:
        table.add_row(report.stage, f"{report.read:,}", f"{report.kept:,}", "", "")
        for reason, count in sorted(report.refused.items(), key=lambda item: -item[1]):
            table.add_row("", "", "", f"{count:,}", escape(reason))
    return table
