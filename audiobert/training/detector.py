"""The recipe for the span detector (paper, section III-A)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import TrainingArguments

from ..data.batches import AudioBertDataCollator, tokenize_auditorybench
from ..evaluation.metrics import AuditoryMetrics
from ..language_models.modes import logits_of_columns
from ..modeling import AudioBertForMaskedLM
from .arguments import recipe_arguments
from .settings import digest_of_knowledge_base, digest_of_model, digest_of_rows, run_settings
from .trainer import RecipeTrainer, scores_of, tokenizer_of, train_or_resume, training_only
from .viewings import NOT_LISTENING, Listening, Viewings, hearing_only, listening_rows

logger = logging.getLogger(__name__)


def detector_arguments(output_dir: str | Path, batch_size: int = 16, **values: Any) -> TrainingArguments:
    """
    The paper's 5 epochs and batches of 16 with AdamW. Its learning rate, 1e-5, fine-tunes a pretrained BERT; the
    detector here is a head that starts from nothing, on top of a BERT that stays as it is, and takes 1e-3.
    """
    defaults = {
        "num_train_epochs": 5,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "label_names": ["span_labels"],
    }
    return recipe_arguments(output_dir, batch_size, **{**defaults, **values})


def train_detector(
    model: AudioBertForMaskedLM, dataset: DatasetDict, args: TrainingArguments, listening: Listening = NOT_LISTENING
) -> dict[str, float]:
    """
    Trains the detector of `model` in place; nothing else of the model changes.

    Args:
        model: with its tokenizer.
        dataset: splits train and dev, as `load_auditorybench` gives them. Rows with a span that is not in their
            sentence are left out, as their labels would be wrong; their number is logged.
        args: see [`detector_arguments`]. A run that was stopped goes on from its last checkpoint.
        listening: of it the share of rows about invented names, whose spans are to be found too, and what is held out.

    Returns:
        Token-level precision, recall and F1 of the span class and exact-span F1 on dev, from 0 to 1.

    Raises:
        ValueError: in the folder of `args` lies a run with other settings.
    """
    if listening.vary_recordings or listening.audio_dropout:
        raise ValueError("The detector hears nothing: `vary_recordings` and `audio_dropout` are for the adapter.")
    settings, tokenizer = detector_settings(model, dataset, args, listening), tokenizer_of(model)
    max_length = model.config.text_config.max_position_embeddings
    rows = {}
    for split in ("train", "dev"):
        tokenized = tokenize_auditorybench(dataset[split], tokenizer, max_length)
        rows[split] = tokenized.filter(_is_labelled)
        logger.info("%s: %d of %d rows have all their spans", split, len(rows[split]), len(tokenized))
    metrics = AuditoryMetrics(tokenizer, ["span_labels"], model.config.detector_threshold)
    train = _detector_columns(rows["train"])
    with hearing_only(model, listening.held_out):
        made = listening_rows(model, dataset["train"], listening, args.seed)
    trainer = RecipeTrainer(
        model=model,
        args=args,
        train_dataset=train if made is None else Viewings(train, train.column_names, listening, made, seed=args.seed),
        eval_dataset=_detector_columns(rows["dev"]),
        data_collator=AudioBertDataCollator(tokenizer),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.reduce,
    )
    # Nobody reads BERT's scores of the vocabulary here, so they are computed nowhere.
    with logits_of_columns(model, torch.tensor([], dtype=torch.long)):
        with training_only(model, ["detector."]):
            train_or_resume(trainer, settings)
        return scores_of(trainer.evaluate())


def detector_settings(
    model: AudioBertForMaskedLM, dataset: DatasetDict, args: TrainingArguments, listening: Listening = NOT_LISTENING
) -> dict[str, Any]:
    """What a detector depends on; arguments as for [`train_detector`], the model as it is before the training."""
    return run_settings(
        "detector",
        args,
        model=digest_of_model(model, model.tokenizer),
        data=digest_of_rows(dataset, ("train", "dev")),
        listening=listening.settings(),
        knowledge_base=digest_of_knowledge_base(model.knowledge_base) if listening.share else None,
    )


def _is_labelled(row: dict) -> bool:
    return len(row["audio_positions"]) == len(row["spans"])


def _detector_columns(dataset: Dataset) -> Dataset:
    # Without labels of the answer the model runs BERT's plain pass and looks nothing up.
    return dataset.select_columns(["input_ids", "attention_mask", "token_type_ids", "span_labels"])
