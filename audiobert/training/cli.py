"""The commands that train: train-detector, train-clap and train."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..console import out, plain_errors
from ..evaluation.cli import Heard

if TYPE_CHECKING:
    from ..modeling import AudioBertForMaskedLM

app = typer.Typer()


class Audio(str, Enum):
    cached = "cached"
    trained = "trained"
    none = "none"


DataOption = Annotated[Path, typer.Option("--data", help="Folder of AuditoryBench's CSV files.")]
OutArgument = Annotated[Path, typer.Argument(help="Folder to write to.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the run.")]
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
    from ..data.auditorybench import load_auditorybench
    from .detector import detector_arguments, train_detector

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

    from ..data.auditorybench import load_auditorybench
    from ..sounds.recordings import read_recordings
    from .clap import CaptionedRecordings, clap_arguments, hold_out, make_captions, train_clap

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
        Heard, typer.Option(help="What is heard at a span: what is retrieved, or a control.")
    ] = Heard.retrieved,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains AudioBERT, or with --audio none or --hearing one of its controls."""
    from ..data.auditorybench import load_auditorybench
    from .adapter import audiobert_arguments, train_audiobert

    if (audio is Audio.trained) != (audio_dir is not None):
        raise ValueError("--audio trained and --audio-dir go together.")
    audiobert = _start(model, bert, ast, knowledge_base)
    args = audiobert_arguments(output, seed=seed, **_given(epochs, batch_size, learning_rate))
    scores = train_audiobert(audiobert, load_auditorybench(data), args, audio.value, audio_dir, hearing.value)
    _finish(audiobert, output, scores)


def _start(model: str | None, bert: str | None, ast: str | None, knowledge_base: str | None) -> AudioBertForMaskedLM:
    from ..modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase

    if (model is None) == (bert is None) or (bert is None) != (ast is None):
        raise ValueError("Start from an AudioBERT with --model, or from a BERT and an AST with --bert and --ast.")
    if bert is not None:
        return AudioBertForMaskedLM.from_backbones(bert, ast, knowledge_base)
    audiobert = AudioBertForMaskedLM.from_pretrained(model)
    if audiobert.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer: save BERT's tokenizer into the same folder.")
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
