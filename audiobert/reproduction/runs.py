"""The runs of a reproduction: each trains or evaluates one model and leaves what it found in a folder of its own."""

from __future__ import annotations

import copy
import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict, concatenate_datasets
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, TrainingArguments, set_seed

from ..evaluation.causal import predict_causal
from ..evaluation.masked import EvaluationResult, evaluate_detector, evaluate_model
from ..evaluation.predictions import RowPrediction, load_predictions, save_predictions
from ..evaluation.preservation import FalseAlarms, Preservation, false_alarms, measure_preservation
from ..evaluation.sound_swap.answers import load_answers, save_answers
from ..evaluation.text_only import linear_control, majority_control
from ..hearing import BLIND_CLAP, Hearing
from ..language_models.causal import load_causal
from ..language_models.masked import load_masked
from ..modeling import AudioBertForMaskedLM
from ..training.adapter import audiobert_arguments, train_audiobert
from ..training.arguments import CHECKPOINTS_FOLDER
from ..training.detector import detector_arguments, train_detector
from ..training.viewings import Listening
from .findings import Answers, DetectorAlarms, DetectorScores
from .planning import Kind, Run, is_done, unfinished_folder
from .presets import (
    AUDIOBERT,
    BLIND,
    GROUPS,
    LABEL_AS_TEXT,
    LINEAR,
    MAJORITY,
    NO_AUDIO,
    ORACLE,
    OTHER_SPAN,
    RANDOM,
    Baseline,
    Cut,
    Preset,
    Recipe,
)
from .sound_swap import SWAP_FILE, Answered, text_only_answers, trained_answers
from .workshop import Workshop, checkpoint_of

# How each model of Table III that is trained hears, and whether it has audio at all.
HEARINGS: dict[str, tuple[Hearing, bool]] = {
    AUDIOBERT: ("retrieved", True),
    NO_AUDIO: ("retrieved", False),
    RANDOM: ("random", True),
    OTHER_SPAN: ("other-span", True),
    BLIND: ("blind-clap", True),
    LABEL_AS_TEXT: ("label-text", False),
    ORACLE: ("oracle", True),
}
EVALUATION_BATCH = 64

PREDICTIONS_FILE = "predictions.jsonl"
SIMILARITIES_FILE = "similarities.json"
SCORES_FILE = "scores.json"
DETECTOR_FILE = "detector.safetensors"
MODEL_FOLDER = "model"


def do_run(run: Run, workshop: Workshop) -> None:
    """
    Does a run unless it is done. One that was cut off goes on from its last checkpoint; what it leaves is moved to its
    place when it is whole. Under `accelerate launch` all processes train together and the first one does the rest.
    """
    folder = workshop.folder(run.name)
    if folder.is_dir():
        return
    missing = [name for name in run.needs if not is_done(workshop.out, name)]
    if missing:
        raise ValueError(f"Run {run.name} needs {', '.join(missing)}, which failed or was left out.")
    unfinished = unfinished_folder(workshop.out, run.name)
    unfinished.mkdir(parents=True, exist_ok=True)
    _KINDS[run.kind](run, workshop, unfinished)
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        shutil.rmtree(unfinished / CHECKPOINTS_FOLDER, ignore_errors=True)
        unfinished.rename(folder)
    state.wait_for_everyone()
    # A Trainer and its model hold on to each other.
    gc.collect()


# --- what the runs do ------------------------------------------------------------------------------------------------


def _control(run: Run, workshop: Workshop, folder: Path) -> None:
    if PartialState().is_main_process:
        control = {MAJORITY: majority_control, LINEAR: linear_control}[run.what]
        save_predictions(folder / PREDICTIONS_FILE, control(workshop.dataset))
        if workshop.sound_swap is not None:
            # Of all train rows in a try too: few of them may not name two of the animals that are asked for.
            answers = text_only_answers(run.what, workshop.sound_swap, workshop.benchmark["train"])
            save_answers(folder / SWAP_FILE, answers)


def _bert(run: Run, workshop: Workshop, folder: Path) -> None:
    if PartialState().is_main_process:
        model = start_model(_bert_of(run), workshop).to(PartialState().device)
        _save_answers(folder, _evaluated(model, model.tokenizer, workshop.dataset, audio="off"))


def _baseline(run: Run, workshop: Workshop, folder: Path) -> None:
    if not PartialState().is_main_process:
        return
    baseline = baseline_of(run, workshop.preset)
    load, predict = (load_causal, predict_causal) if baseline.kind == "causal" else (load_masked, _masked_answers)
    model, tokenizer = load(baseline.checkpoint)
    rows = predict(model.to(PartialState().device), tokenizer, workshop.dataset)
    save_predictions(folder / PREDICTIONS_FILE, rows)


def _masked_answers(model: Any, tokenizer: Any, dataset: DatasetDict) -> list[RowPrediction]:
    return _evaluated(model, tokenizer, dataset).rows


def _evaluated(model: Any, tokenizer: Any, dataset: DatasetDict, **how: Any) -> EvaluationResult:
    return evaluate_model(model, tokenizer, dataset, batch_size=EVALUATION_BATCH, **how)


def _detector(run: Run, workshop: Workshop, folder: Path) -> None:
    set_seed(_seed_of(run))
    model = start_model(_bert_of(run), workshop)
    of_group = {name: _of_tasks(part, GROUPS[run.what]) for name, part in workshop.dataset.items()}
    train = concatenate_datasets([of_group["train"], workshop.silence])
    args = _arguments(detector_arguments, folder, workshop.preset.detector, _seed_of(run), workshop.cut)
    # Rows that are made to listen are of both tasks: a detector of one alone is trained on that task's own.
    share = workshop.preset.detector_listen if run.what == "both" else 0.0
    listening = Listening(share, workshop.held_out if share else None)
    train_detector(model, DatasetDict({**of_group, "train": train}), args, listening)
    if not PartialState().is_main_process:
        return
    weights = {name: value.cpu().contiguous() for name, value in model.detector.state_dict().items()}
    save_file(weights, folder / DETECTOR_FILE)
    alarms = None if workshop.text is None else asdict(false_alarms(model, workshop.passages))
    scores = {"scores": evaluate_detector(model, workshop.dataset), "alarms": alarms}
    (folder / SCORES_FILE).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


def _audiobert(run: Run, workshop: Workshop, folder: Path) -> None:
    hearing, with_audio = hearing_of(run)
    set_seed(_seed_of(run))
    model = start_model(_bert_of(run), workshop)
    model.detector.load_state_dict(load_file(workshop.folder(run.needs[0]) / DETECTOR_FILE))
    args = _arguments(audiobert_arguments, folder, workshop.preset.adapter, _seed_of(run), workshop.cut)
    audio = _audio_of(hearing, workshop.preset) if with_audio else "none"
    audio_dir = workshop.audio if audio == "trained" else None
    listening = listening_of(workshop, with_audio)
    train_audiobert(
        model, workshop.adapter_rows, args, audio=audio, audio_dir=audio_dir, hearing=hearing, listening=listening
    )
    if not PartialState().is_main_process:
        return
    result = _evaluated(model, model.tokenizer, workshop.dataset, hearing=hearing, seed=_seed_of(run))
    _save_answers(folder, result)
    if workshop.sound_swap is not None:
        swapped = trained_answers(run.what, model, workshop.sound_swap, _seed_of(run))
        if swapped:
            save_answers(folder / SWAP_FILE, swapped)
    model.save_pretrained(folder / MODEL_FOLDER)
    if workshop.held_out is not None:
        workshop.held_out.save_pretrained(folder / MODEL_FOLDER)


def _preservation(run: Run, workshop: Workshop, folder: Path) -> None:
    if PartialState().is_main_process:
        model = AudioBertForMaskedLM.from_pretrained(workshop.folder(run.needs[0]) / MODEL_FOLDER)
        model = model.to(PartialState().device)
        files = [] if workshop.text is None else [workshop.text / "test.txt"]
        found = measure_preservation(model, workshop.passages, workshop.perplexity_passages, files=files)
        (folder / SCORES_FILE).write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")


_KINDS: dict[Kind, Callable[[Run, Workshop, Path], None]] = {
    "control": _control,
    "bert": _bert,
    "baseline": _baseline,
    "detector": _detector,
    "audiobert": _audiobert,
    "preservation": _preservation,
}


def _bert_of(run: Run) -> str:
    if run.bert is None:
        raise ValueError(f"Run {run.name} of kind {run.kind} has no BERT to be built on.")
    return run.bert


def _seed_of(run: Run) -> int:
    if run.seed is None:
        raise ValueError(f"Run {run.name} of kind {run.kind} has no seed.")
    return run.seed


def hearing_of(run: Run) -> tuple[Hearing, bool]:
    """How the model of a run hears, and whether it has audio at all."""
    return HEARINGS[run.what.split(" (")[0]]


def listening_of(workshop: Workshop, with_audio: bool) -> Listening:
    """How an adapter listens. The control without audio trains on the same rows, and has nothing to leave out."""
    preset = workshop.preset
    if not with_audio:
        return Listening(preset.listen, workshop.held_out)
    return Listening(preset.listen, workshop.held_out, preset.vary_recordings, preset.audio_dropout)


def _audio_of(hearing: Hearing, preset: Preset) -> str:
    # Blind CLAP hears no recording that an audio encoder could be trained on.
    return "cached" if hearing == BLIND_CLAP else preset.audio


def baseline_of(run: Run, preset: Preset) -> Baseline:
    """The baseline that a run evaluates."""
    return next(baseline for baseline in preset.baselines if baseline.name == run.what)


def start_model(name: str, workshop: Workshop) -> AudioBertForMaskedLM:
    """
    An AudioBERT with adapter, detector and map from audio to text as they are before any training.

    Args:
        name: a BERT, or an AudioBERT of which BERT, audio encoder and knowledge base are taken.
        workshop: its preset has the rest.
    """
    checkpoint, preset = checkpoint_of(name), workshop.preset
    if AutoConfig.from_pretrained(checkpoint).model_type != "audiobert":
        if preset.ast is None:
            raise ValueError(f"{name} is a BERT without an audio encoder: name one with --ast.")
        values = dict(preset.config)
        return AudioBertForMaskedLM.from_backbones(
            checkpoint, preset.ast, workshop.knowledge_base, dtype="float32", **values
        )
    trained = AudioBertForMaskedLM.from_pretrained(checkpoint)
    config = copy.deepcopy(trained.config)
    config.update({"injection": "add", **preset.config})
    model = AudioBertForMaskedLM(config)
    learned = ("lora_", "audio_projection.", "detector.")
    kept = {name: value for name, value in trained.state_dict().items() if not any(part in name for part in learned)}
    model.load_state_dict({**model.state_dict(), **kept})
    model.tokenizer, model.feature_extractor = trained.tokenizer, trained.feature_extractor
    model.set_knowledge_base(workshop.knowledge_base)
    return model.eval()


def _arguments(
    make: Callable[..., TrainingArguments], folder: Path, recipe: Recipe, seed: int, cut: Cut | None
) -> TrainingArguments:
    return make(
        folder,
        num_train_epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        train_sampling_strategy="group_by_length",
        eval_strategy="no",
        max_steps=-1 if cut is None else cut.max_steps,
        report_to="none",
        seed=seed,
    )


def _of_tasks(part: Dataset, tasks: tuple[str, ...]) -> Dataset:
    return part.filter(lambda task: task in tasks, input_columns="task", keep_in_memory=True)


def _save_answers(folder: Path, result: EvaluationResult) -> None:
    save_predictions(folder / PREDICTIONS_FILE, result.rows)
    similarities = [[split, row, value] for (split, row), value in result.similarities.items()]
    (folder / SIMILARITIES_FILE).write_text(json.dumps(similarities) + "\n", encoding="utf-8")


# --- what they have left ---------------------------------------------------------------------------------------------


def read_answers(run: Run, workshop: Workshop) -> Answers:
    """What a run of kind control, bert, baseline or audiobert has left."""
    folder = workshop.folder(run.name)
    similarities = {}
    if (folder / SIMILARITIES_FILE).is_file():
        stored = json.loads((folder / SIMILARITIES_FILE).read_text(encoding="utf-8"))
        similarities = {(split, row): value for split, row, value in stored}
    return Answers(run.what, run.seed, load_predictions(folder / PREDICTIONS_FILE), similarities)


def read_swap(run: Run, workshop: Workshop) -> Answered:
    """What a run has answered to the sound swap; nothing if it was not asked."""
    path = workshop.folder(run.name) / SWAP_FILE
    return load_answers(path) if path.is_file() else {}


def read_detector(run: Run, workshop: Workshop) -> tuple[list[DetectorScores], DetectorAlarms | None]:
    """What a run of kind detector has left; no alarms if there was no plain text."""
    stored = json.loads((workshop.folder(run.name) / SCORES_FILE).read_text(encoding="utf-8"))
    scores = [
        DetectorScores(
            trained_on=run.what,
            seed=_seed_of(run),
            split=split,
            task=task,
            rows=found["rows"],
            token_f1=found["span_f1"],
            exact_f1=found["span_exact_f1"],
        )
        for split, by_task in stored["scores"].items()
        for task, found in by_task.items()
    ]
    alarms = stored["alarms"]
    return scores, None if alarms is None else DetectorAlarms(run.what, _seed_of(run), FalseAlarms(**alarms))


def read_preservation(run: Run, workshop: Workshop) -> Preservation:
    """What a run of kind preservation has left."""
    return Preservation.from_dict(json.loads((workshop.folder(run.name) / SCORES_FILE).read_text(encoding="utf-8")))
