"""The recipe for AudioBERT itself: the adapter, the map from audio to text, and the audio encoder (paper, III-D)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import ASTFeatureExtractor, PreTrainedTokenizerBase, Trainer, TrainingArguments

from audiobert.data import AudioBertDataCollator, tokenize_auditorybench
from audiobert.features import ast_features
from audiobert.metrics import AuditoryMetrics
from audiobert.modeling import AudioBertForMaskedLM, AudioBertKnowledgeBase

from .arguments import recipe_arguments, train_or_resume, training_only

# What is trained (of BERT, only its adapter is trainable), by where the audio comes from.
AUDIO_MODES = {
    "cached": ["text_model.", "audio_projection."],
    "trained": ["text_model.", "audio_projection.", "audio_model."],
    "none": ["text_model."],
}
# Features of one recording are about half a megabyte.
CACHED_FEATURES = 1024


def audiobert_arguments(output_dir: str | Path, **values) -> TrainingArguments:
    """The paper's values: 20 epochs, batches of 32, AdamW at 3e-4, cosine schedule with 10 % warm-up."""
    defaults = {
        "num_train_epochs": 20,
        "per_device_train_batch_size": 32,
        "learning_rate": 3e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "label_names": ["labels"],
    }
    return recipe_arguments(output_dir, **{**defaults, **values})


def train_audiobert(
    model: AudioBertForMaskedLM,
    dataset: DatasetDict,
    args: TrainingArguments,
    audio: str = "cached",
    audio_dir: str | Path | None = None,
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

    Returns:
        Answer accuracy on dev, from 0 to 1, by task; spans as given, not as detected.

    Raises:
        ValueError: for an unknown `audio`, or if what it needs is not there.
    """
    _check(model, audio, audio_dir)
    if audio == "none":
        model.config.injection = "none"
    rows = {split: audible_rows(model, dataset[split]) for split in ("train", "dev")}
    metrics = AuditoryMetrics(model.tokenizer, ["labels"])
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows["dev"],
        data_collator=_collator(model, audio, audio_dir),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.reduce,
    )
    with training_only(model, AUDIO_MODES[audio]):
        train_or_resume(trainer)
    scores = trainer.evaluate()
    if audio == "trained":
        embeddings = embed_recordings(model, audio_dir)
        model.set_knowledge_base(
            model.knowledge_base.with_audio_embeddings(embeddings, ast_name="trained with this model")
        )
    return scores


def _check(model: AudioBertForMaskedLM, audio: str, audio_dir: str | Path | None) -> None:
    if audio not in AUDIO_MODES:
        raise ValueError(f"`audio` must be one of {', '.join(AUDIO_MODES)}, got {audio!r}.")
    if audio != "none" and model.knowledge_base is None:
        raise ValueError(f"audio={audio!r} needs a knowledge base: give the model one with `set_knowledge_base`.")
    if audio == "trained" and audio_dir is None:
        raise ValueError("audio='trained' needs `audio_dir`, the folder of the recordings.")
    if audio == "trained" and model.feature_extractor is None:
        raise ValueError("audio='trained' needs `model.feature_extractor`, the one of the audio encoder's checkpoint.")


def audible_rows(model: AudioBertForMaskedLM, dataset: Dataset, batch_size: int = 64) -> Dataset:
    """
    The rows of `load_auditorybench`, tokenized, with the recordings of their spans.

    Args:
        model: whose detector reads the rows of which no span could be aligned.
        dataset: columns sentence, answer and spans.
        batch_size: rows that the detector reads at once.

    Returns:
        The columns of `tokenize_auditorybench` and `recordings`: for each span the indices of its recordings in the
        model's knowledge base, best first; no column `recordings` if the model injects nothing.
    """
    tokenized = tokenize_auditorybench(dataset, model.tokenizer, model.config.text_config.max_position_embeddings)
    silent = [index for index, positions in enumerate(tokenized["audio_positions"]) if not positions]
    found = detect(model, tokenized.select(silent), batch_size) if silent else []
    detected = dict(zip(silent, found, strict=True))

    def hear(row: dict, index: int) -> dict:
        if index in detected:
            spans = detected[index]
            row = {"audio_positions": [span.start for span in spans], "span_texts": [span.text for span in spans]}
        heard = {"audio_positions": row["audio_positions"], "span_texts": row["span_texts"]}
        if model.config.injection != "none":
            top_k = model.config.retrieval_top_k
            heard["recordings"] = [
                list(found.indices) for found in model.knowledge_base.search(row["span_texts"], top_k)
            ]
        return heard

    return tokenized.map(hear, with_indices=True, keep_in_memory=True, desc="Looking up recordings")


@torch.no_grad()
def detect(model: AudioBertForMaskedLM, tokenized: Dataset, batch_size: int) -> list[list]:
    """What the model's detector finds in each row of a tokenized dataset: lists of `AuditorySpan`."""
    was_training = model.training
    model.eval()
    collate = AudioBertDataCollator(model.tokenizer)
    inputs = tokenized.select_columns(["input_ids", "attention_mask", "token_type_ids"])
    found = []
    for start in range(0, len(inputs), batch_size):
        rows = inputs.select(range(start, min(start + batch_size, len(inputs))))
        batch = {name: value.to(model.device) for name, value in collate(list(rows)).items()}
        # No positions: the plain pass is all that the detector needs.
        silent = torch.full((len(rows), 1), -1, device=model.device)
        span_logits = model(**batch, audio_positions=silent).span_logits
        found += model.detect_spans(batch["input_ids"], span_logits, batch["attention_mask"])
    model.train(was_training)
    return found


class HearingCollator(AudioBertDataCollator):
    """
    Adds to each row the audio of its recordings and makes the batch.

    Args:
        tokenizer: as for `AudioBertDataCollator`.
        name: `"audio_embeds"` or `"audio_values"`.
        audio_of: from the indices of a span's recordings to its audio, an array of the same shape for every span.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, audio_of: Any) -> None:
        super().__init__(tokenizer)
        self.name = name
        self.audio_of = audio_of

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return super().__call__(
            [{**row, self.name: [self.audio_of(found) for found in row["recordings"]]} for row in rows]
        )


def _collator(model: AudioBertForMaskedLM, audio: str, audio_dir: str | Path | None) -> AudioBertDataCollator:
    if audio == "none":
        return AudioBertDataCollator(model.tokenizer)
    knowledge_base = model.knowledge_base
    if audio == "cached":
        return HearingCollator(
            model.tokenizer, "audio_embeds", lambda found: knowledge_base.audio_embeds(found).mean(0).numpy()
        )
    features = functools.lru_cache(maxsize=CACHED_FEATURES)(
        lambda index: recording_features(knowledge_base, index, audio_dir, model.feature_extractor)
    )
    # The encoder runs on the best recording of each span.
    return HearingCollator(model.tokenizer, "audio_values", lambda found: features(found[0]))


def recording_features(
    knowledge_base: AudioBertKnowledgeBase,
    index: int,
    audio_dir: str | Path,
    feature_extractor: ASTFeatureExtractor,
) -> np.ndarray:
    """AST's input for a recording, float32 `(frames, mel_bins)`."""
    return ast_features(feature_extractor, str(Path(audio_dir) / knowledge_base.recording(index).id))


@torch.no_grad()
def embed_recordings(model: AudioBertForMaskedLM, audio_dir: str | Path) -> torch.Tensor:
    """The model's audio embedding of every recording of its knowledge base, float32 `(count, audio_hidden_size)`."""
    model.eval()
    embeddings = []
    for index in range(len(model.knowledge_base)):
        features = torch.from_numpy(recording_features(model.knowledge_base, index, audio_dir, model.feature_extractor))
        hidden = model.audio_model(features[None].to(model.device, model.audio_model.dtype)).last_hidden_state
        embeddings.append(hidden.mean(1)[0].float().cpu())
    return torch.stack(embeddings)
