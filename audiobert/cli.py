"""The command line: `audiobert COMMAND --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from . import __version__
from .benchmark import cli as benchmark
from .console import Debugging, err, out, plain_errors
from .evaluation import cli as evaluation_cli
from .reproduction import cli as reproduction
from .sounds import cli as sounds_cli
from .training import cli as training_cli

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .inference import Answer, PromptAnswer
    from .modeling import AudioBertForMaskedLM, AuditorySpan, Recording

app = typer.Typer(
    help="AudioBERT: a BERT that looks up the sounds a sentence speaks of.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def audiobert_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda wanted: _version(wanted), help="Show the version."),
    ] = False,
) -> None:
    Debugging.on = debug


def _version(wanted: bool) -> None:
    if wanted:
        print(f"audiobert {__version__}")
        raise typer.Exit()


OutArgument = Annotated[Path, typer.Argument(help="Folder to write to.")]
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
    texts = _prompts(prompts or [], file)
    _hush()

    from .inference import answer_prompts

    audiobert, tokenizer = _load(model)
    audiobert.to(device)  # type: ignore[arg-type]  # transformers types it as a function without self
    answers = answer_prompts(audiobert, tokenizer, texts, top_k)
    failed = [answer for answer in answers if answer.error is not None]
    if as_json:
        print(json.dumps([asdict(answer) for answer in answers], ensure_ascii=False, indent=2))
    else:
        for answer in answers:
            if answer.error is None:
                _show(answer, str(tokenizer.mask_token))
    for answer in failed:
        err.print(f"[bold red]Error:[/] {escape(str(answer.error))}")
    if failed and len(answers) > 1:
        err.print(f"{len(failed)} of {len(answers)} prompts were not answered.")
    if len(failed) == len(answers):
        raise typer.Exit(1)


def _prompts(prompts: list[str], file: Path | None) -> list[str]:
    texts = [prompt for prompt in prompts if prompt != "-"]
    if file is not None:
        texts += _lines(file.read_bytes(), str(file))
    if "-" in prompts or (not prompts and file is None and not sys.stdin.isatty()):
        texts += _lines(sys.stdin.buffer.read(), "standard input")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError('No prompt given. Try: audiobert fill-mask "Meow is the sound a [MASK] makes."')
    return texts


def _lines(content: bytes, name: str) -> list[str]:
    """The lines of a text without its byte order mark; a line ends with a line feed and nothing else."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no UTF-8 (byte {error.start + 1}): save it as UTF-8.") from error
    return [line.removesuffix("\r") for line in text.split("\n")]


def _hush() -> None:
    """Standard error is for what concerns the answers: no progress bars, load reports or advice to programmers."""
    import warnings

    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")


def _load(model: str | None) -> tuple[AudioBertForMaskedLM, PreTrainedTokenizerBase]:
    from . import bundled
    from .modeling import AudioBertForMaskedLM

    audiobert = AudioBertForMaskedLM.from_pretrained(model or bundled())
    if audiobert.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer: save BERT's tokenizer into the same folder.")
    return audiobert, audiobert.tokenizer


def _show(answer: PromptAnswer, mask: str) -> None:
    out.print(_marked(answer), highlight=False)
    for heard in answer.spans:
        for line in _what_was_heard(heard.span, answer.min_similarity):
            out.print(f"  {line}", highlight=False)
    if not answer.spans:
        out.print("  no sound heard: this is plain BERT's answer", highlight=False)
    for number, (with_audio, without) in enumerate(zip(answer.answers, answer.answers_without_audio, strict=True), 1):
        title = None if len(answer.answers) == 1 else f"{mask} {number}"
        table = Table("answer", "probability", "audio off", "probability", title=title)
        for best, plain in zip(with_audio, without, strict=True):
            table.add_row(*_cells(best), *_cells(plain))
        out.print(table)
    out.print()


def _what_was_heard(span: AuditorySpan, min_similarity: float | None) -> Iterator[str]:
    text = f"[bold]{escape(span.text)}[/]"
    if span.injected or not span.recordings:
        for recording in span.recordings:
            yield f"heard {text} as {_described(recording)}"
        return
    nearest = _described(span.recordings[0], digits=3)
    yield f"nothing heard at {text}: too far is the nearest recording, {nearest}, below {min_similarity:.3f}"


def _described(recording: Recording, digits: int = 2) -> str:
    facts = f"{escape(recording.source)}, {escape(recording.id)}, similarity {recording.similarity:.{digits}f}"
    by_label = ", found by its label" if recording.found_by == "label" else ""
    return f"[cyan]{escape(recording.label)}[/] ({facts}{by_label})"


def _cells(answer: Answer) -> tuple[str, str]:
    return escape(answer.token), f"{answer.probability:.3f}"


def _marked(answer: PromptAnswer) -> str:
    text, end = "", 0
    for heard in answer.spans:
        span = escape(answer.prompt[heard.start : heard.end])
        text += f"{escape(answer.prompt[end : heard.start])}[bold green]«{span}»[/]"
        end = heard.end
    return text + escape(answer.prompt[end:])


# --- explain ---------------------------------------------------------------------------------------------------------


@app.command("explain")
@plain_errors
def explain_command(
    prompt: Annotated[str, typer.Argument(help="A prompt with a [MASK].")],
    output: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path("explanation.html"),
    model: Annotated[str | None, typer.Option(help="A folder or a Hub id; the bundled checkpoint if omitted.")] = None,
    audio_dir: Annotated[
        Path | None, typer.Option(help="Folder of the recordings, to hear and to see them in the page.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Answers per mask.")] = 5,
) -> None:
    """Writes a page on one prompt: what was taken for a sound, what was heard, and what it changed in the answer."""
    _hush()

    from .explain import explain, write_explanation

    audiobert, _ = _load(model)
    written = write_explanation(explain(audiobert, prompt, top_k, audio_dir), output)
    out.print(f"wrote {written}", highlight=False)


# --- knowledge base --------------------------------------------------------------------------------------------------


app.command("build-knowledge-base")(sounds_cli.build_knowledge_base_command)
app.command("add-recordings")(sounds_cli.add_recordings_command)


# --- training --------------------------------------------------------------------------------------------------------


app.add_typer(training_cli.app)


# --- evaluation ------------------------------------------------------------------------------------------------------


app.add_typer(evaluation_cli.app)


# --- reproduction ----------------------------------------------------------------------------------------------------


app.command("reproduce")(reproduction.reproduce_command)


# --- benchmark construction ------------------------------------------------------------------------------------------


app.command("build-benchmark")(benchmark.build_benchmark_command)
app.add_typer(benchmark.app, name="benchmark")
