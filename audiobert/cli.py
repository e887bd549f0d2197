"""The command line: `audiobert COMMAND --help`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .benchmark import cli as benchmark
from .console import err, out, plain_errors
from .evaluation import cli as evaluation_cli
from .reproduction import cli as reproduction
from .sounds import cli as sounds_cli

if TYPE_CHECKING:
    from .inference import Answer, PromptAnswer
    from .modeling import AudioBertForMaskedLM

app = typer.Typer(
    help="AudioBERT: a BERT that looks up the sounds a sentence speaks of.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Audio(str, Enum):
    cached = "cached"
    trained = "trained"
    none = "none"


DataOption = Annotated[Path, typer.Option("--data", help="Folder of AuditoryBench's CSV files.")]
OutArgument = Annotated[Path, typer.Argument(help="Folder to write to.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the run.")]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, mps, ...")]


# --- fill-mask -------------------------------------------------------------------------------------------------------


@app.command("fill-mask")
@plain_errors
def fill_mask(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts with a [MASK]; none, or -, reads standard input.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A folder or a Hub id; the bundled checkpoint if omitted.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with a prompt on each line.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Answers per mask.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list with an object for each prompt.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Answers prompts, and shows what was heard and what plain BERT would say."""
    from transformers.utils import logging

    from .inference import answer_prompts

    logging.disable_progress_bar()
    texts = _prompts(prompts or [], file)
    audiobert = _load(model).to(device)
    answers = answer_prompts(audiobert, audiobert.tokenizer, texts, top_k)
    failed = [answer for answer in answers if answer.error is not None]
    if as_json:
        print(json.dumps([asdict(answer) for answer in answers], ensure_ascii=False, indent=2))
    else:
        for answer in answers:
            if answer.error is None:
                _show(answer, audiobert.tokenizer.mask_token)
    for answer in failed:
        err.print(f"[bold red]Error:[/] {escape(answer.error)}")
    if failed and len(answers) > 1:
        err.print(f"{len(failed)} of {len(answers)} prompts were not answered.")
    if len(failed) == len(answers):
        raise typer.Exit(1)


def _prompts(prompts: list[str], file: Path | None) -> list[str]:
    texts = [prompt for prompt in prompts if prompt != "-"]
    if file is not None:
        texts += file.read_text(encoding="utf-8").splitlines()
    if "-" in prompts or (not prompts and file is None and not sys.stdin.isatty()):
        texts += sys.stdin.read().splitlines()
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError('No prompt given. Try: audiobert fill-mask "Meow is the sound a [MASK] makes."')
    return texts


def _load(model: str | None) -> AudioBertForMaskedLM:
    from . import bundled
    from .modeling import AudioBertForMaskedLM

    audiobert = AudioBertForMaskedLM.from_pretrained(model or bundled())
    if audiobert.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer: save BERT's tokenizer into the same folder.")
    return audiobert


def _show(answer: PromptAnswer, mask: str) -> None:
    out.print(_marked(answer), highlight=False)
    for heard in answer.spans:
        for recording in heard.span.recordings:
            out.print(
                f"  heard [bold]{escape(heard.span.text)}[/] as [cyan]{escape(recording.label)}[/] "
                f"({escape(recording.source)}, {escape(recording.id)}, similarity {recording.similarity:.2f})",
                highlight=False,
            )
    if not answer.spans:
        out.print("  no sound heard: this is plain BERT's answer", highlight=False)
    for number, (with_audio, without) in enumerate(zip(answer.answers, answer.answers_without_audio, strict=True), 1):
        title = None if len(answer.answers) == 1 else f"{mask} {number}"
        table = Table("answer", "probability", "audio off", "probability", title=title)
        for best, plain in zip(with_audio, without, strict=True):
            table.add_row(*_cells(best), *_cells(plain))
        out.print(table)
    out.print()


def _cells(answer: Answer) -> tuple[str, str]:
    return escape(answer.token), f"{answer.probability:.3f}"


def _marked(answer: PromptAnswer) -> str:
    text, end = "", 0
    for heard in answer.spans:
        span = escape(answer.prompt[heard.start : heard.end])
        text += f"{escape(answer.prompt[end : heard.start])}[bold green]«{span}»[/]"
        end = heard.end
    return text + escape(answer.prompt[end:])


# --- knowledge base --------------------------------------------------------------------------------------------------


app.command("build-knowledge-base")(sounds_cli.build_knowledge_base_command)


# --- training --------------------------------------------------------------------------------------------------------


BertOption = Annotated[str | None, typer.Option(help="Start from this BERT: a folder or a Hub id.")]
AstOption = Annotated[str | None, typer.Option(help="... and this AST.")]
KnowledgeOption = Annotated[str | None, typer.Option(help="Knowledge base: a folder or a Hub id.")]
StartOption = Annotated[str | None, typer.Option("--model", help="Start from this AudioBERT: a folder or a Hub id.")]
EpochsOption = Annotated[float | None, typer.Option(help="Epochs; the recipe's if omitted.")]
BatchOption = Annotated[int | None, typer.Option(help="Batch size; the recipe's if omitted.")]
RateOption = Annotated[float | None, typer.Option(help="Learning rate; the recipe's if omitted.")]


@app.command("train-detector")
@plain_errors
def train_detector_command(
    output: OutArgument,
    data: DataOption,
    model: StartOption = None,
    bert: BertOption = None,
    ast: AstOption = None,
    knowledge_base: KnowledgeOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains the span detector."""
    from .data.auditorybench import load_auditorybench
    from .training.detector import detector_arguments, train_detector

    audiobert = _start(model, bert, ast, knowledge_base)
    args = detector_arguments(output, seed=seed, **_given(epochs, batch_size, learning_rate))
    scores = train_detector(audiobert, load_auditorybench(data), args)
    _finish(audiobert, output, scores)


@app.command("train-clap")
@plain_errors
def train_clap_command(
    audio_dir: Annotated[Path, typer.Argument(metavar="AUDIO", help="Folder with metadata.csv.")],
    output: OutArgument,
    clap: Annotated[str, typer.Option(help="Start from this CLAP: a folder or a Hub id.")] = "laion/clap-htsat-fused",
    data: Annotated[Path | None, typer.Option(help="AuditoryBench, whose train spans become captions.")] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only recordings of this source.")] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains CLAP on recordings and their labels."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    from .data.auditorybench import load_auditorybench
    from .sounds.recordings import read_recordings
    from .training.clap import CaptionedRecordings, clap_arguments, hold_out, make_captions, train_clap

    recordings = read_recordings(audio_dir, sources)
    captions = None
    if data is not None:
        captions = make_captions([recording.label for recording in recordings], load_auditorybench(data)["train"])
    extractor, tokenizer = ClapFeatureExtractor.from_pretrained(clap), AutoTokenizer.from_pretrained(clap)
    train, held_out = (
        CaptionedRecordings(part, extractor, captions, seed=seed) for part in hold_out(recordings, seed=seed)
    )
    model = ClapModel.from_pretrained(clap)
    args = clap_arguments(output, seed=seed, **_given(epochs, batch_size, learning_rate))
    scores = train_clap(model, tokenizer, train, held_out, args)
    for part in (model, tokenizer, extractor):
        part.save_pretrained(output)
    _report_scores(output, scores, "held-out recordings")


@app.command("train")
@plain_errors
def train_command(
    output: OutArgument,
    data: DataOption,
    model: StartOption = None,
    bert: BertOption = None,
    ast: AstOption = None,
    knowledge_base: KnowledgeOption = None,
    audio: Annotated[
        Audio, typer.Option(help="Cached embeddings, an encoder that is trained, or the control.")
    ] = Audio.cached,
    audio_dir: Annotated[Path | None, typer.Option(help="For --audio trained: the folder of the recordings.")] = None,
    hearing: Annotated[
        evaluation_cli.Heard, typer.Option(help="What is heard at a span: what is retrieved, or a control.")
    ] = evaluation_cli.Heard.retrieved,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains AudioBERT, or with --audio none or --hearing one of its controls."""
    from .data.auditorybench import load_auditorybench
    from .training.adapter import audiobert_arguments, train_audiobert

    if (audio is Audio.trained) != (audio_dir is not None):
        raise ValueError("--audio trained and --audio-dir go together.")
    audiobert = _start(model, bert, ast, knowledge_base)
    args = audiobert_arguments(output, seed=seed, **_given(epochs, batch_size, learning_rate))
    scores = train_audiobert(audiobert, load_auditorybench(data), args, audio.value, audio_dir, hearing.value)
    _finish(audiobert, output, scores)


def _start(model: str | None, bert: str | None, ast: str | None, knowledge_base: str | None) -> AudioBertForMaskedLM:
    from .modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase

    if (model is None) == (bert is None) or (bert is None) != (ast is None):
        raise ValueError("Start from an AudioBERT with --model, or from a BERT and an AST with --bert and --ast.")
    if bert is not None:
        return AudioBertForMaskedLM.from_backbones(bert, ast, knowledge_base)
    audiobert = _load(model)
    if knowledge_base is not None:
        audiobert.set_knowledge_base(AudioBertKnowledgeBase.from_pretrained(knowledge_base))
    return audiobert


def _given(epochs: float | None, batch_size: int | None, learning_rate: float | None) -> dict[str, float]:
    values = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    return {name: value for name, value in values.items() if value is not None}


def _finish(audiobert: AudioBertForMaskedLM, output: Path, scores: dict[str, float]) -> None:
    audiobert.save_pretrained(output)
    _report_scores(output, scores, "dev")


def _report_scores(output: Path, scores: dict[str, float], on: str) -> None:
    (output / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    table = Table(on, "", title=f"saved to {output}")
    for name, value in scores.items():
        table.add_row(name.removeprefix("eval_"), f"{value:.4f}")
    out.print(table)


# --- evaluation ------------------------------------------------------------------------------------------------------


app.add_typer(evaluation_cli.app)


# --- reproduction ----------------------------------------------------------------------------------------------------


app.command("reproduce")(reproduction.reproduce_command)


# --- benchmark construction ------------------------------------------------------------------------------------------


app.command("build-benchmark")(benchmark.build_benchmark_command)
app.add_typer(benchmark.app, name="benchmark")
