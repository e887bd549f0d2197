"""The recipe for AudioBERT itself: the adapter, the map from audio to text, and the audio encoder (paper, III-D)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from torch import nn
from transformers import ASTFeatureExtractor, TrainingArguments

from ..data.batches import IGNORED, AudioBertDataCollator, HearingCollator
from ..evaluation.metrics import AuditoryMetrics
from ..hearing import BLIND_CLAP, Hearing, audible_rows, check_hearing
from ..language_models.modes import logits_of_columns
from ..modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase
from ..sounds.features import ast_features
from ..sounds.recordings import find_recording
from .arguments import recipe_arguments
from .settings import digest_of_files, digest_of_knowledge_base, digest_of_model, digest_of_rows, run_settings
from .trainer import RecipeTrainer, scores_of, tokenizer_of, train_or_resume, training_only
from .viewings import NOT_LISTENING, Listening, hearing_only, viewings

# What is trained (of BERT, only its adapter is trainable), by where the audio comes from.
AUDIO_MODES = {
    "cached": ["text_model.", "audio_projection."],
    "trained": ["text_model.", "audio_projection.", "audio_model."],
    "none": ["text_model."],
}
SPLITS = ("train", "dev")
# Features of one recording are about half a megabyte.
CACHED_FEATURES = 1024
SHOWN_MISSING = 5


def audiobert_arguments(output_dir: str | Path, batch_size: int = 32, **values: Any) -> TrainingArguments:
    """The paper's values: 20 epochs, batches of 32, AdamW at 3e-4, cosine schedule with 10 % warm-up."""
    defaults = {
        "num_train_epochs": 20,
        "learning_rate": 3e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "label_names": ["labels"],
    }
    return recipe_arguments(output_dir, batch_size, **{**defaults, **values})


def train_audiobert(
    model: AudioBertForMaskedLM,
    dataset: DatasetDict,
    args: TrainingArguments,
    audio: str = "cached",
    audio_dir: str | Path | None = None,
    hearing: Hearing = "retrieved",
    listening: Listening = NOT_LISTENING,
) -> dict[str, float]:
    """
    Trains the adapter of `model`, and what brings audio to it, in place. BERT and the detector stay as they are.

    Args:
        model: with its tokenizer, a trained detector and, unless `audio` is "none", a knowledge base.
        dataset: splits train and dev, as `load_auditorybench` gives them. No row is left out: where a span is not in
            its sentence the row trains with the spans that the model's detector finds.
        args: see [`audiobert_arguments`]. A run that was stopped goes on from its last checkpoint.
        audio: "cached" injects the knowledge base's stored embeddings; "trained" runs and trains the audio encoder on
            the recordings, then embeds the knowledge base anew; "none" injects nothing, on the same data with the same
            adapter and steps: the text-only control. "none" sets `config.injection` so.
        audio_dir: for "trained": the folder in which the recordings lie under their ids.
        hearing: what is heard at the spans, see `audiobert.hearing.hear`: what is retrieved, or for a control what
            stands in its place, drawn by the seed of `args`. "label-text" goes with `audio="none"`.
        listening: rows made of the knowledge base that are trained on as well, what no row may hear, and how what is
            heard varies; nothing of it if omitted, as in the paper.

    Returns:
        Answer accuracy on dev, from 0 to 1, by task; spans as given, not as detected.

    Raises:
        ValueError: for an unknown `audio` or `hearing`, if what it needs is not there, or if in the folder of `args`
            lies a run with other settings.
        FileNotFoundError: recordings of the knowledge base are not in `audio_dir`.
    """
    _check(model, audio)
    tokenizer, recordings = tokenizer_of(model), _recordings(model, audio, audio_dir)
    _check_listening(listening, audio)
    settings = audiobert_settings(model, dataset, args, audio, audio_dir, hearing, listening)
    if audio == "none":
        model.config.injection = "none"
    check_hearing(model, hearing)
    if audio == "trained" and hearing == BLIND_CLAP:
        raise ValueError("With hearing='blind-clap' no recording is heard to train the audio encoder on: use 'cached'.")
    metrics = AuditoryMetrics(tokenizer, ["labels"])
    with hearing_only(model, listening.held_out):
        rows = {
            split: audible_rows(model, dataset[split], hearing=hearing, seed=args.seed) for split in ("train", "dev")
        }
        trainer = AnswerTrainer(
            model=model,
            args=args,
            train_dataset=viewings(model, rows["train"], dataset["train"], listening, hearing, args.seed),
            eval_dataset=rows["dev"],
            data_collator=_collator(model, recordings),
            compute_metrics=metrics,
            preprocess_logits_for_metrics=metrics.reduce,
        )
        with training_only(model, AUDIO_MODES[audio]):
            train_or_resume(trainer, settings)
        scores = scores_of(trainer.evaluate())
    if recordings is not None and model.knowledge_base is not None:
        embeddings = embed_recordings(model, recordings)
        model.set_knowledge_base(
            model.knowledge_base.with_audio_embeddings(embeddings, ast_name="trained with this model")
        )
    return scores


def audiobert_settings(
    model: AudioBertForMaskedLM,
    dataset: DatasetDict,
    args: TrainingArguments,
    audio: str = "cached",
    audio_dir: str | Path | None = None,
    hearing: Hearing = "retrieved",
    listening: Listening = NOT_LISTENING,
) -> dict[str, Any]:
    """What an AudioBERT depends on; arguments as for [`train_audiobert`], the model as it is before the training."""
    recordings = _recordings(model, audio, audio_dir)
    return run_settings(
        "audiobert",
        args,
        audio=audio,
        hearing=hearing,
        listening=listening.settings(),
        model=digest_of_model(model, model.tokenizer),
        knowledge_base=digest_of_knowledge_base(model.knowledge_base),
        data=digest_of_rows(dataset, ("train", "dev")),
        recordings=None if recordings is None else digest_of_files(recordings.paths),
    )


def _check(model: AudioBertForMaskedLM, audio: str) -> None:
    if audio not in AUDIO_MODES:
        raise ValueError(f"`audio` must be one of {', '.join(AUDIO_MODES)}, got {audio!r}.")
    if audio != "none" and model.knowledge_base is None:
        raise ValueError(f"audio={audio!r} needs a knowledge base: give the model one with `set_knowledge_base`.")


def _check_listening(listening: Listening, audio: str) -> None:
    if audio == "none" and listening.audio_dropout:
        raise ValueError("With audio='none' nothing is heard in any row: `audio_dropout` has nothing to leave out.")
    if audio == "trained" and listening != NOT_LISTENING:
        raise ValueError("Listening rows are heard through stored embeddings: use audio='cached', or no `listening`.")


class AnswerTrainer(RecipeTrainer):
    """Scores the vocabulary, in training, at the places of masks alone: the same loss, sooner."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        # What is evaluated needs all places, as those of other batches are elsewhere.
        if return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        columns = (inputs["labels"] != IGNORED).any(0).nonzero()[:, 0]
        with logits_of_columns(self.accelerator.unwrap_model(model), columns):
            # Without labels of spans the plain pass, which the detector reads and nobody trains here, is left out.
            inputs = {name: value for name, value in inputs.items() if name != "span_labels"}
            inputs["labels"] = inputs["labels"][:, columns]
            return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)


def _collator(model: AudioBertForMaskedLM, recordings: BestRecording | None) -> AudioBertDataCollator:
    if recordings is not None:
        return HearingCollator(tokenizer_of(model), "audio_values", recordings)
    return AudioBertDataCollator(tokenizer_of(model)) if model.config.injection == "none" else HearingCollator.of(model)


def _recordings(model: AudioBertForMaskedLM, audio: str, audio_dir: str | Path | None) -> BestRecording | None:
    """What the audio encoder reads; None if it is not trained."""
    if audio != "trained" or model.knowledge_base is None:
        return None
    if audio_dir is None:
        raise ValueError("audio='trained' needs `audio_dir`, the folder of the recordings.")
    if model.feature_extractor is None:
        raise ValueError("audio='trained' needs `model.feature_extractor`, the one of the audio encoder's checkpoint.")
    if (pooling := model.knowledge_base.config.audio_pooling) != "mean":
        raise ValueError(
            f"audio='trained' takes the mean of all that the audio encoder gives, the knowledge base was built with "
            f"the pooling {pooling!r}: build one with 'mean', or train with audio='cached'."
        )
    return BestRecording(recording_paths(model.knowledge_base, audio_dir), model.feature_extractor)


def recording_paths(knowledge_base: AudioBertKnowledgeBase, audio_dir: str | Path) -> list[Path]:
    """
    The files of all recordings of a knowledge base, in its order.

    Raises:
        FileNotFoundError: some of them are not in the folder, with their number and the first few.
        ValueError: an id leads out of the folder.
    """
    paths, missing = [], []
    for index in range(len(knowledge_base)):
        recording_id = knowledge_base.recording(index).id
        try:
            paths.append(find_recording(audio_dir, recording_id))
        except FileNotFoundError:
            missing.append(recording_id)
    if missing:
        raise FileNotFoundError(
            f"{audio_dir} lacks {len(missing)} of the knowledge base's {len(knowledge_base)} recordings: "
            f"{', '.join(missing[:SHOWN_MISSING])}{', ...' if missing[SHOWN_MISSING:] else ''}. Give the folder that "
            "the knowledge base was built from."
        )
    return paths


class BestRecording:
    """
    AST's input for the best of a span's recordings, float32 `(frames, mel_bins)`: the audio encoder runs on one.

    Args:
        paths: the files of a knowledge base's recordings, in its order.
        feature_extractor: the audio encoder's.
    """

    def __init__(self, paths: Sequence[Path], feature_extractor: ASTFeatureExtractor) -> None:
        self.paths = paths
        self.feature_extractor = feature_extractor
        self._features = functools.lru_cache(maxsize=CACHED_FEATURES)(self._read)

    def __call__(self, found: Sequence[int], weights: Sequence[float] | None = None) -> np.ndarray:
        return self._features(found[0])

    def __reduce__(self) -> tuple:
        # Another process fills a cache of its own.
        return type(self), (self.paths, self.feature_extractor)

    def _read(self, index: int) -> np.ndarray:
        return ast_features(self.feature_extractor, str(self.paths[index]))


@torch.no_grad()
def embed_recordings(model: AudioBertForMaskedLM, recordings: BestRecording) -> torch.Tensor:
    """The model's audio embedding of each of the recordings, float32 `(count, audio_hidden_size)`."""
    model.eval()
    embeddings = []
    for index in range(len(recordings.paths)):
        features = torch.from_numpy(recordings([index]))
        hidden = model.audio_model(features[None].to(model.device, model.audio_model.dtype)).last_hidden_state
        embeddings.append(hidden.mean(1)[0].float().cpu())
    return torch.stack(embeddings)
