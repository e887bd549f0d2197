"""The commands that train: train-detector, train-clap and train."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..console import check_output_folder, out, plain_errors
from ..evaluation.cli import Heard

if TYPE_CHECKING:
    from datasets import DatasetDict

    from ..listening.held_out import HeldOut
    from ..modeling import AudioBertForMaskedLM
    from .trainer import Part

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
StepsOption = Annotated[int | None, typer.Option(min=1, help="At which to stop, to try out whether all works.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Rows of a step, of all processes together; the recipe's if omitted.")
]
ListenOption = Annotated[
    float, typer.Option("--listen", help="Share of rows made of the knowledge base under invented names, below 1.")
]
HeldOutOption = Annotated[
    Path | None,
    typer.Option(help="With --listen: what no row may hear; held_out.json of --model, or drawn, if omitted."),
]
HeldOutSeedOption = Annotated[int, typer.Option(help="Of the draw, where what is held out is drawn.")]
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
    max_steps: StepsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    listen: ListenOption = 0.0,
    held_out: HeldOutOption = None,
    held_out_seed: HeldOutSeedOption = 0,
    seed: SeedOption = 0,
) -> None:
    """Trains the span detector."""
    from ..data.auditorybench import load_auditorybench
    from .detector import detector_arguments, detector_settings, train_detector
    from .trainer import finished_scores, is_finished, save_run
    from .viewings import Listening

    _claim(output)
    audiobert, dataset = _start(model, bert, ast, knowledge_base, seed), load_auditorybench(data)
    listening = Listening(listen, _held_out(audiobert, dataset, listen, model, held_out, held_out_seed))
    args = detector_arguments(output, seed=seed, **_given(epochs, max_steps, batch_size, learning_rate))
    if is_finished(args):
        settings = detector_settings(audiobert, dataset, args, listening)
        return _tell_finished(output, finished_scores(args, settings), "dev")
    scores = train_detector(audiobert, dataset, args, listening)
    save_run(args, scores, *_parts(audiobert, listening.held_out))
    _show_scores(output, scores, "dev")


@app.command("train-clap")
@plain_errors
def train_clap_command(
    audio_dir: Annotated[Path, typer.Argument(metavar="AUDIO", help="Folder with metadata.csv.")],
    output: OutArgument,
    clap: Annotated[str, typer.Option(help="Start from this CLAP: a folder or a Hub id.")] = "laion/clap-htsat-fused",
    data: Annotated[Path | None, typer.Option(help="AuditoryBench, whose train spans become captions.")] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only recordings of this source.")] = None,
    epochs: EpochsOption = None,
    max_steps: StepsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains CLAP on recordings and their labels."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    from ..data.auditorybench import load_auditorybench
    from ..sounds.recordings import read_recordings
    from .clap import CaptionedRecordings, clap_arguments, clap_settings, hold_out, make_captions, train_clap
    from .trainer import finished_scores, is_finished, save_run

    _claim(output)
    recordings = read_recordings(audio_dir, sources)
    captions = None
    if data is not None:
        captions = make_captions([recording.label for recording in recordings], load_auditorybench(data)["train"])
    extractor, tokenizer = ClapFeatureExtractor.from_pretrained(clap), AutoTokenizer.from_pretrained(clap)
    train, held_out = (
        CaptionedRecordings(part, extractor, captions, seed=seed) for part in hold_out(recordings, seed=seed)
    )
    model = ClapModel.from_pretrained(clap)
    args = clap_arguments(output, seed=seed, **_given(epochs, max_steps, batch_size, learning_rate))
    if is_finished(args):
        settings = clap_settings(model, tokenizer, train, held_out, args)
        return _tell_finished(output, finished_scores(args, settings), "held-out recordings")
    scores = train_clap(model, tokenizer, train, held_out, args)
    save_run(args, scores, model, tokenizer, extractor)
    _show_scores(output, scores, "held-out recordings")


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
    listen: ListenOption = 0.0,
    held_out: HeldOutOption = None,
    held_out_seed: HeldOutSeedOption = 0,
    vary_recordings: Annotated[
        bool, typer.Option("--vary-recordings", help="A random part of a span's recordings is heard each time.")
    ] = False,
    audio_dropout: Annotated[float, typer.Option(help="Share of rows in which nothing is heard, below 1.")] = 0.0,
    epochs: EpochsOption = None,
    max_steps: StepsOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
) -> None:
    """Trains AudioBERT, or with --audio none or --hearing one of its controls."""
    from ..data.auditorybench import load_auditorybench
    from .adapter import audiobert_arguments, audiobert_settings, train_audiobert
    from .trainer import finished_scores, is_finished, save_run
    from .viewings import Listening

    if (audio is Audio.trained) != (audio_dir is not None):
        raise ValueError("--audio trained and --audio-dir go together.")
    _claim(output)
    audiobert, dataset = _start(model, bert, ast, knowledge_base, seed), load_auditorybench(data)
    kept = _held_out(audiobert, dataset, listen, model, held_out, held_out_seed)
    how: dict[str, Any] = {"audio": audio.value, "audio_dir": audio_dir, "hearing": hearing.value}
    how["listening"] = Listening(listen, kept, vary_recordings, audio_dropout)
    args = audiobert_arguments(output, seed=seed, **_given(epochs, max_steps, batch_size, learning_rate))
    if is_finished(args):
        settings = audiobert_settings(audiobert, dataset, args, **how)
        return _tell_finished(output, finished_scores(args, settings), "dev")
    scores = train_audiobert(audiobert, dataset, args, **how)
    save_run(args, scores, *_parts(audiobert, kept))
    _show_scores(output, scores, "dev")


def _claim(output: Path) -> None:
    """Refuses, before the work, a folder that holds something else."""
    from .trainer import SETTINGS_FILE

    check_output_folder(output)
    # What a kill left of the settings themselves is nothing yet.
    is_used = output.is_dir() and any(not path.name.endswith(".unfinished") for path in output.iterdir())
    if is_used and not (output / SETTINGS_FILE).is_file():
        raise FileExistsError(
            f"{output} is not empty, and no {SETTINGS_FILE} in it says that a run was begun there with known settings: "
            "name a folder that is empty or not there yet."
        )


def _held_out(
    audiobert: AudioBertForMaskedLM,
    dataset: DatasetDict,
    listen: float,
    model: str | None,
    path: Path | None,
    seed: int,
) -> HeldOut | None:
    """
    What no row may hear: as a file says, or the list of the model that is trained on, or drawn. Without --listen too,
    where a list is given or travels with the model.
    """
    from ..listening.held_out import HELD_OUT_FILE, HeldOut
    from ..listening.rows import animal_labels

    sounds = audiobert.knowledge_base
    own = Path(model, HELD_OUT_FILE) if model is not None else None
    if path is None and own is not None and own.is_file():
        path = own
    if path is not None:
        if sounds is None:
            raise ValueError(f"{path} says which recordings are held out, but there is no knowledge base.")
        _say(f"No row hears what {path} holds out.")
        return HeldOut.load(path, sounds)
    if not listen:
        return None
    if sounds is None:
        raise ValueError("--listen makes rows of a knowledge base: name one with --knowledge-base.")
    answers = [row["answer"] for row in dataset["train"] if row["task"] == "animal"]
    kept = HeldOut.draw(sounds, animal_labels(sounds, answers), seed)
    _say(f"No row hears {len(kept.labels)} labels and {len(kept.recordings)} recordings of animals: they are held out.")
    return kept


def _parts(audiobert: AudioBertForMaskedLM, held_out: HeldOut | None) -> list[Part]:
    return [audiobert] if held_out is None else [audiobert, held_out]


def _start(
    model: str | None, bert: str | None, ast: str | None, knowledge_base: str | None, seed: int
) -> AudioBertForMaskedLM:
    from transformers import set_seed

    from ..modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase

    if model is not None and bert is None and ast is None:
        audiobert = AudioBertForMaskedLM.from_pretrained(model)
        if audiobert.tokenizer is None:
            raise ValueError(f"{model} has no tokenizer: save BERT's tokenizer into the same folder.")
        if knowledge_base is not None:
            audiobert.set_knowledge_base(AudioBertKnowledgeBase.from_pretrained(knowledge_base))
        return audiobert
    if model is not None or bert is None or ast is None:
        raise ValueError("Start from an AudioBERT with --model, or from a BERT and an AST with --bert and --ast.")
    # Of what starts at random too: a run that goes on has to start from the same model.
    set_seed(seed)
    return AudioBertForMaskedLM.from_backbones(bert, ast, knowledge_base)


def _given(
    epochs: float | None, max_steps: int | None, batch_size: int | None, learning_rate: float | None
) -> dict[str, Any]:
    values = {
        "num_train_epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    return {name: value for name, value in values.items() if value is not None}


def _tell_finished(output: Path, scores: Mapping[str, float], on: str) -> None:
    _say(f"{output} was trained with these settings before: nothing is left to do.")
    _show_scores(output, scores, on)


def _say(text: str) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        out.print(text, highlight=False)


def _show_scores(output: Path, scores: Mapping[str, float], on: str) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        table = Table(on, "", title=f"saved to {output}")
        for name, value in scores.items():
            table.add_row(name.removeprefix("eval_"), f"{value:.4f}")
        out.print(table)
