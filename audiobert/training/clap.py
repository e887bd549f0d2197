"""The recipe for CLAP: text and audio brought together by a symmetric contrastive loss (paper, equations 1 to 3)."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather
from datasets import Dataset, Features, Value
from tqdm.auto import tqdm
from transformers import (
    ClapFeatureExtractor,
    ClapModel,
    EvalPrediction,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from ..sounds.decoding import AudioDecodingError
from ..sounds.features import clap_features
from ..sounds.recordings import SourceRecording
from .arguments import recipe_arguments
from .settings import digest_of_arrays, digest_of_model, run_settings
from .trainer import RecipeTrainer, scores_of, train_or_resume

logger = logging.getLogger(__name__)

# How often a training text is the recording's label instead of one of its captions.
LABEL_SHARE = 0.6


def contrastive_loss(
    text_embeds: torch.Tensor,
    audio_embeds: torch.Tensor,
    text_scale: torch.Tensor | float,
    audio_scale: torch.Tensor | float,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    The mean of the text-to-audio and the audio-to-text loss (equation 3).

    Args:
        text_embeds: unit vectors, float `(texts, width)`.
        audio_embeds: unit vectors, float `(recordings, width)`.
        text_scale: factor on the cosines in the text-to-audio direction, `ClapModel.logit_scale_t.exp()`.
        audio_scale: the same for audio-to-text, `ClapModel.logit_scale_a.exp()`.
        positives: bool `(texts, recordings)`, what belongs together; if omitted text i belongs to recording i alone,
            which is what the paper has. A text with several recordings is to share its probability among them.

    Returns:
        The loss, a scalar.
    """
    return (
        text_to_audio_loss(text_embeds, audio_embeds, text_scale, positives)
        + audio_to_text_loss(text_embeds, audio_embeds, audio_scale, positives)
    ) / 2


def text_to_audio_loss(
    text_embeds: torch.Tensor,
    audio_embeds: torch.Tensor,
    scale: torch.Tensor | float,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each text picks its recording among all recordings (equation 1); arguments as for `contrastive_loss`."""
    return _choice_loss(scale * text_embeds @ audio_embeds.T, positives)


def audio_to_text_loss(
    text_embeds: torch.Tensor,
    audio_embeds: torch.Tensor,
    scale: torch.Tensor | float,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each recording picks its text among all texts (equation 2); arguments as for `contrastive_loss`."""
    return _choice_loss(scale * audio_embeds @ text_embeds.T, None if positives is None else positives.T)


def _choice_loss(logits: torch.Tensor, positives: torch.Tensor | None) -> torch.Tensor:
    if positives is None:
        if logits.shape[0] != logits.shape[1]:
            raise ValueError(f"{tuple(logits.shape)} texts and recordings are not pairs; say which are `positives`.")
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    targets = positives.to(logits.dtype)
    targets = targets / targets.sum(dim=1, keepdim=True)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def make_captions(labels: Sequence[str], dataset: Dataset) -> dict[str, list[str]]:
    """
    Collects what AuditoryBench says the sounds of these labels are like.

    A span captions a label if its row's answer is the label or the label's last word ("woof" of a dog, "tweeting" of
    chirping birds), or if the label stands in the span ("sound of a train at a station"); number does not matter.

    Args:
        labels: the labels of the recordings.
        dataset: columns `answer` and `spans`, as the train split of `load_auditorybench`. Never give dev or test.

    Returns:
        For each label its captions in the order of the rows, a caption as often as it was said; may be empty.
    """
    words = {label: _words(label) for label in dict.fromkeys(labels)}
    captions: dict[str, list[str]] = {label: [] for label in words}
    for answer, spans in zip(dataset["answer"], dataset["spans"], strict=True):
        named = _words(answer)
        for span in filter(None, spans):
            said = f" {' '.join(_words(span))} "
            for label, parts in words.items():
                if named in (parts, parts[-1:]) or f" {' '.join(parts)} " in said:
                    captions[label].append(span)
    return captions


def _words(text: str) -> list[str]:
    words = "".join(character if character.isalnum() else " " for character in text.lower()).split()
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]


def hold_out(
    recordings: Sequence[SourceRecording], share: float = 0.1, seed: int = 0
) -> tuple[list[SourceRecording], list[SourceRecording]]:
    """Splits recordings into those to train on and a share of each label's, at least one of two or more, to score."""
    by_label: dict[str, list[SourceRecording]] = defaultdict(list)
    for recording in recordings:
        by_label[recording.label].append(recording)
    train, held_out = [], []
    for label in sorted(by_label):
        group = sorted(by_label[label], key=lambda recording: recording.id)
        random.Random(f"{seed} {label}").shuffle(group)
        count = min(max(1, round(share * len(group))), len(group) - 1)
        held_out += group[:count]
        train += group[count:]
    return train, held_out


class CaptionedRecordings(torch.utils.data.Dataset):
    """
    Recordings, each with a text drawn anew every epoch; features are computed once and kept in memory.

    The text is the label more often than not, else one of the label's captions, in the query template that spans are
    retrieved with. The draw depends on seed, epoch and row alone, so that a resumed run sees what it would have seen.

    Args:
        recordings: those that cannot be decoded are left out and logged.
        feature_extractor: CLAP's.
        captions: label to captions; labels without captions stand for themselves.
        query_template: with `{span}` where the text goes.
        max_seconds: how much of a recording is read.
        seed: of the draw.
    """

    def __init__(
        self,
        recordings: Sequence[SourceRecording],
        feature_extractor: ClapFeatureExtractor,
        captions: Mapping[str, Sequence[str]] | None = None,
        query_template: str = "{span} sound",
        max_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        self.captions = captions or {}
        self.query_template = query_template
        self.seed = seed
        self.epoch = 0
        self.features: list[dict[str, np.ndarray]] = []
        self.labels: list[str] = []
        for recording in tqdm(recordings, desc="Reading recordings", unit="rec"):
            try:
                features = clap_features(feature_extractor, recording.open(), recording.id, max_seconds)
            except AudioDecodingError as error:
                logger.warning("left out %s: %s", recording.id, error.reason)
                continue
            self.features.append(features)
            self.labels.append(recording.label)
        if not self.features:
            raise ValueError(f"none of the {len(recordings)} recordings could be decoded.")

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def description(self) -> dict[str, Any]:
        """All that the rows depend on, as JSON knows it; the recordings by a digest of their features."""
        return {
            "recordings": digest_of_arrays(self.features),
            "labels": self.labels,
            "captions": {label: list(captions) for label, captions in self.captions.items()},
            "query_template": self.query_template,
            "seed": self.seed,
        }

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> dict[str, Any]:
        label = self.labels[row]
        draw = random.Random(f"{self.seed} {self.epoch} {row}")
        captions = self.captions.get(label)
        text = draw.choice(captions) if captions and draw.random() >= LABEL_SHARE else label
        return {**self.features[row], "text": self.query_template.replace("{span}", text), "label": label}


class ClapCollator:
    """
    Makes a batch of rows of `CaptionedRecordings`.

    Returns input_features, is_longer, input_ids and attention_mask as `ClapModel` takes them, and labels: int64
    `(batch, 2)`, a number for each label and one for each text, the same in every batch, worker and process.

    Args:
        tokenizer: CLAP's.
        max_length: tokens at which a text is cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        texts = [row["text"] for row in rows]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        return {
            "input_features": torch.from_numpy(np.stack([row["input_features"] for row in rows])),
            "is_longer": torch.from_numpy(np.stack([row["is_longer"] for row in rows])),
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": torch.tensor([[_number(row["label"]), _number(row["text"])] for row in rows]),
        }


def _number(name: str) -> int:
    # 63 bits of a digest: no two of some thousand names share them, and nobody has to count the names.
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class LabelRetrieval(evaluate.Metric):
    """
    How well texts find recordings of their label, from 0 to 1; it needs no hub and writes no files.

    `compute(predictions=, references=)` takes for each text the labels of all recordings as numbers, best first, and
    the text's own label. Returns `{"precision_at_1": float, "mean_reciprocal_rank": float}`.
    """

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="How well texts find recordings of their label.",
            citation="",
            inputs_description="",
            features=Features({"predictions": [Value("int64")], "references": Value("int64")}),
        )

    def _compute(self, predictions: list[list[int]], references: list[int]) -> dict[str, float]:
        ranks = [
            ranking.index(label) + 1 if label in ranking else float("inf")
            for ranking, label in zip(map(list, predictions), references, strict=True)
        ]
        return {
            "precision_at_1": float(np.mean([rank == 1 for rank in ranks])),
            "mean_reciprocal_rank": float(np.mean([1 / rank for rank in ranks])),
        }


def clap_arguments(output_dir: str | Path, batch_size: int = 64, **values: Any) -> TrainingArguments:
    """20 epochs, batches of 64, AdamW at 5e-4 with a cosine schedule and 10 % warm-up."""
    defaults = {
        "num_train_epochs": 20,
        "learning_rate": 5e-4,
        "weight_decay": 0.01,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "label_names": ["labels"],
    }
    return recipe_arguments(output_dir, batch_size, **{**defaults, **values})


def train_clap(
    model: ClapModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: CaptionedRecordings,
    eval_dataset: CaptionedRecordings,
    args: TrainingArguments,
) -> dict[str, float]:
    """
    Trains CLAP in place.

    Within a batch a text belongs to every recording of its own label or of an equal text; where labels and texts are
    all distinct this is the loss of the paper. (The loss that `ClapModel` of transformers 5.23 returns scores the
    direction from text to audio twice.)

    Args:
        model: pretrained or new.
        tokenizer: the model's.
        train_dataset: recordings to train on.
        eval_dataset: recordings for the score; may be the same, as a knowledge base may hold what CLAP learned from.
        args: see [`clap_arguments`]. A run that was stopped goes on from its last checkpoint.

    Returns:
        `eval_precision_at_1`: how many texts find a recording of their label first; `eval_mean_reciprocal_rank`.

    Raises:
        ValueError: in the folder of `args` lies a run with other settings.
    """
    settings = clap_settings(model, tokenizer, train_dataset, eval_dataset, args)
    text_config = model.text_model.config
    # As RoBERTa's, they are numbered from behind that of padding.
    positions = text_config.max_position_embeddings - (text_config.pad_token_id or 0) - 1

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        texts, audio, names = map(_of_all_processes, (outputs.text_embeds, outputs.audio_embeds, labels))
        positives = (names[:, None] == names[None, :]).any(dim=-1)
        return contrastive_loss(texts, audio, model.logit_scale_t.exp(), model.logit_scale_a.exp(), positives)

    trainer = RecipeTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=ClapCollator(tokenizer, max_length=min(tokenizer.model_max_length, positions)),
        compute_loss_func=loss,
        preprocess_logits_for_metrics=_embeddings,
        compute_metrics=_retrieval_scores,
    )
    # `ClapModel` hands arguments it does not know to its towers, which refuse them; and the loss is a batch's mean.
    trainer.model_accepts_loss_kwargs = False
    trainer.loss_is_scaled_for_ga = False
    train_or_resume(trainer, settings)
    return scores_of(trainer.evaluate())


def clap_settings(
    model: ClapModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: CaptionedRecordings,
    eval_dataset: CaptionedRecordings,
    args: TrainingArguments,
) -> dict[str, Any]:
    """What a CLAP depends on; arguments as for [`train_clap`], the model as it is before the training."""
    return run_settings(
        "clap",
        args,
        model=digest_of_model(model, tokenizer),
        data={"train": train_dataset.description(), "held out": eval_dataset.description()},
    )


def _of_all_processes(rows: torch.Tensor) -> torch.Tensor:
    """
    The rows of all processes that share a batch, as each row is told apart from all others of the batch.

    Each process has the loss of the whole batch and, of the rows, the gradients of its own alone. They count as often
    as there are processes, so that the mean that is then taken over the processes is what one with all rows would get.
    """
    state = PartialState()
    if state.num_processes == 1:
        return rows
    parts = list(gather(rows.detach()).split(len(rows)))
    parts[state.process_index] = rows
    if rows.requires_grad:
        parts[state.process_index] = rows + (state.num_processes - 1) * (rows - rows.detach())
    return torch.cat(parts)


def _embeddings(outputs: tuple, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # `ClapOutput` without loss: logits per audio, logits per text, text embeddings, audio embeddings, tower outputs.
    return outputs[2], outputs[3]


def _retrieval_scores(prediction: EvalPrediction) -> dict[str, float]:
    text_embeds, audio_embeds = tuple(prediction.predictions)
    labels = np.asarray(prediction.label_ids)[:, 0]
    rankings = labels[np.argsort(-text_embeds @ audio_embeds.T, axis=1, kind="stable")]
    return LabelRetrieval().compute(predictions=rankings, references=labels)


__all__ = [
    "CaptionedRecordings",
    "ClapCollator",
    "LabelRetrieval",
    "audio_to_text_loss",
    "clap_arguments",
    "contrastive_loss",
    "hold_out",
    "make_captions",
    "text_to_audio_loss",
    "train_clap",
]
