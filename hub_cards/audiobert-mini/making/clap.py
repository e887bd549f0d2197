"""
The CLAP of the mini model: a text tower of three layers that a sentence encoder teaches, and an audio tower that learns
where its recordings lie among texts.

The tower starts from the encoder itself, with the word pieces that come up most, and is taught where that encoder puts
texts; so that a span which no recording was ever called by ("acoustic bass") lies near the labels that mean the same.
What the train rows call a sound ("meow") it is taught to put near the label of that sound. Then it stays as it is, and
the audio tower is trained by CLAP's loss over labels and train spans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    BertModel,
    BertTokenizer,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    PreTrainedTokenizerBase,
    set_seed,
)

from audiobert.sounds.recordings import SourceRecording
from audiobert.training.arguments import recipe_arguments
from audiobert.training.clap import CaptionedRecordings, clap_arguments, make_captions, train_clap
from audiobert.training.settings import digest_of_arrays, digest_of_json, digest_of_model, run_settings
from audiobert.training.trainer import RecipeTrainer, train_or_resume

PIECES = 12_000
# Of the encoder's six, those that the tower starts from.
LAYERS = (0, 2, 4)
WIDTH = 256
LONGEST = 64
TEMPLATE = "{span} sound"
TAUGHT_STEPS, TAUGHT_BATCH = 500, 128
# Of the cosines that the tower is taught.
SHARPNESS = 20.0
# How much a label weighs beside the words of a span that the train rows call its sound.
LABEL_WEIGHT = 2.0


def trimmed_tokenizer(encoder: Path, texts: Iterable[str], pieces: int = PIECES) -> BertTokenizer:
    """The encoder's tokenizer with the word pieces that come up most in the texts, and all single characters."""
    whole = BertTokenizer.from_pretrained(encoder)
    counts = Counter(token for text in texts for token in whole.tokenize(text))
    vocabulary = sorted(whole.get_vocab(), key=whole.get_vocab().__getitem__)
    kept = {token for token in vocabulary if token in whole.all_special_tokens or len(token.removeprefix("##")) == 1}
    for token, _ in counts.most_common():
        if len(kept) >= pieces:
            break
        kept.add(token)
    tokens = [token for token in vocabulary if token in kept]
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, do_lower_case=True, model_max_length=LONGEST
    )


def new_clap(encoder: Path, tokenizer: PreTrainedTokenizerBase) -> ClapModel:
    """An audio tower that knows nothing, and a text tower made of the encoder's layers and word pieces."""
    teacher = BertModel.from_pretrained(encoder, add_pooling_layer=False, use_safetensors=True)
    config = teacher.config
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=len(LAYERS),
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Positions are counted from behind that of padding.
        max_position_embeddings=LONGEST + tokenizer.pad_token_id + 1,
        type_vocab_size=1,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    audio = ClapAudioConfig(
        spec_size=128,
        patch_size=8,
        patch_stride=[8, 8],
        patch_embeds_hidden_size=64,
        hidden_size=256,
        depths=[2, 2, 2],
        num_hidden_layers=3,
        num_attention_heads=[4, 8, 8],
        window_size=4,
        mlp_ratio=2.0,
        hidden_dropout_prob=0.0,
    )
    model = ClapModel(
        ClapConfig(text_config=text, audio_config=audio, projection_dim=WIDTH, logit_scale_init_value=10.0)
    )
    take_over(model, teacher, BertTokenizer.from_pretrained(encoder), tokenizer)
    return model


@torch.no_grad()
def take_over(
    model: ClapModel, teacher: BertModel, whole: PreTrainedTokenizerBase, trimmed: PreTrainedTokenizerBase
) -> None:
    """Copies the encoder's embeddings and layers into the text tower, which has the same parts under the same names."""
    own, given = model.text_model.state_dict(), teacher.state_dict()
    known = whole.get_vocab()
    rows = [known[token] for token in sorted(trimmed.get_vocab(), key=trimmed.get_vocab().__getitem__)]
    own["embeddings.word_embeddings.weight"].copy_(given["embeddings.word_embeddings.weight"][rows])
    own["embeddings.position_embeddings.weight"][-LONGEST:].copy_(
        given["embeddings.position_embeddings.weight"][:LONGEST]
    )
    own["embeddings.token_type_embeddings.weight"].copy_(given["embeddings.token_type_embeddings.weight"][:1])
    for name in ("weight", "bias"):
        own[f"embeddings.LayerNorm.{name}"].copy_(given[f"embeddings.LayerNorm.{name}"])
    for place, layer in enumerate(LAYERS):
        for name in [name for name in given if name.startswith(f"encoder.layer.{layer}.")]:
            own[name.replace(f"layer.{layer}.", f"layer.{place}.", 1)].copy_(given[name])


def new_clap_extractor() -> ClapFeatureExtractor:
    return ClapFeatureExtractor(
        sampling_rate=16_000,
        max_length_s=5,
        # 256 frames, the width of the audio tower's input.
        hop_length=313,
        frequency_min=50,
        frequency_max=8000,
        truncation="rand_trunc",
    )


def save_untrained_clap(out: Path, encoder: Path, texts: Iterable[str]) -> None:
    """A CLAP in which only the text tower's start is known, with its tokenizer and its feature extractor."""
    set_seed(0)
    tokenizer = trimmed_tokenizer(encoder, texts)
    new_clap(encoder, tokenizer).save_pretrained(out)
    tokenizer.save_pretrained(out)
    new_clap_extractor().save_pretrained(out)


# --- what the text tower is taught -----------------------------------------------------------------------------------


@torch.no_grad()
def sentence_embeddings(encoder: Path, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
    """What the sentence encoder makes of texts: unit vectors, float32 `(texts, width)`, the mean over their tokens."""
    tokenizer = BertTokenizer.from_pretrained(encoder)
    model = BertModel.from_pretrained(encoder, add_pooling_layer=False, use_safetensors=True).eval()
    parts = []
    for start in range(0, len(texts), batch_size):
        chosen = list(texts[start : start + batch_size])
        batch = tokenizer(chosen, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        states = model(**batch).last_hidden_state
        weights = batch["attention_mask"][..., None].float()
        parts.append(nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1))
    return torch.cat(parts)


def taught_embeddings(encoder: Path, texts: Sequence[str], captions: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """
    Where the tower is to put texts: unit vectors, float32 `(texts, 256)`.

    They are those of the sentence encoder, turned so that the dimensions in which they vary most come first and cut to
    the tower's width. A span that the train rows call a sound by lies between its own place and that of the labels.

    Args:
        encoder: the teacher.
        texts: all that is taught, the labels among them.
        captions: by label the spans of train rows, one as often as it was said.
    """
    embeddings = sentence_embeddings(encoder, texts)
    place = {text: row for row, text in enumerate(texts)}
    of_labels = torch.zeros_like(embeddings)
    for label, spans in captions.items():
        for span in spans:
            if span in place and span != label:
                of_labels[place[span]] += embeddings[place[label]]
    embeddings = nn.functional.normalize(embeddings + LABEL_WEIGHT * nn.functional.normalize(of_labels, dim=-1), dim=-1)
    _, _, directions = torch.linalg.svd(embeddings, full_matrices=False)
    turned = nn.functional.normalize(embeddings @ directions[:WIDTH].T, dim=-1)
    return nn.functional.pad(turned, (0, WIDTH - turned.shape[1]))


class TaughtTexts(torch.utils.data.Dataset):
    """Texts as queries are sent, each with where it is to lie."""

    def __init__(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, embeddings: torch.Tensor) -> None:
        queries = [TEMPLATE.replace("{span}", text) for text in texts]
        self.ids = tokenizer(queries, truncation=True, max_length=LONGEST)["input_ids"]
        self.embeddings = embeddings

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.ids[row], "taught": self.embeddings[row]}


class TaughtCollator:
    """Pads texts to the longest of a batch."""

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(row["input_ids"]) for row in rows], batch_first=True, padding_value=self.padding
        )
        return {
            "input_ids": ids,
            "attention_mask": (ids != self.padding).long(),
            "taught": torch.stack([row["taught"] for row in rows]),
        }


class SimilarityTrainer(RecipeTrainer):
    """
    Teaches where texts lie, and how near to one another: in a batch, each text's distribution over the others by their
    cosines is to be the teacher's as well.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        taught = inputs["taught"] @ inputs["taught"].T
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        own = nn.functional.normalize(output.text_embeds, dim=-1)
        cosines = own @ own.T
        itself = torch.eye(len(own), dtype=torch.bool, device=own.device)
        expected = (SHARPNESS * taught).masked_fill(itself, -torch.inf).softmax(1)
        found = (SHARPNESS * cosines).masked_fill(itself, -torch.inf).log_softmax(1).masked_fill(itself, 0.0)
        apart = 1 - (own * inputs["taught"]).sum(1).mean()
        return nn.functional.kl_div(found, expected, reduction="batchmean") + 5 * apart


def teach_text_tower(
    out: Path,
    run: Path,
    start: Path,
    encoder: Path,
    texts: Sequence[str],
    captions: Mapping[str, Sequence[str]],
    **values: Any,
) -> None:
    """
    Teaches the text tower of the CLAP in `start` and saves it alone, as `ClapTextModelWithProjection`.

    Args:
        out: the folder of the taught tower.
        run: where checkpoints are kept; a run that was stopped goes on from there.
        start: what [`save_untrained_clap`] wrote.
        encoder: the teacher.
        texts: names of sounds and things, without the query template, with the labels and the spans of `captions`.
        captions: by label the spans of train rows that call its sound so.
        values: fields of `TrainingArguments` in place of the recipe's.
    """
    tokenizer = BertTokenizer.from_pretrained(start)
    tower = ClapTextModelWithProjection.from_pretrained(start)
    embeddings = taught_embeddings(encoder, texts, captions)
    defaults: dict[str, Any] = {
        "max_steps": TAUGHT_STEPS,
        "learning_rate": 3e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 250,
        "seed": 0,
    }
    args = recipe_arguments(run, **{"batch_size": TAUGHT_BATCH, **defaults, **values})
    data = TaughtTexts(texts, tokenizer, embeddings)
    settings = run_settings(
        "text tower",
        args,
        model=digest_of_model(tower, tokenizer),
        data=digest_of_json(data.ids),
        taught=digest_of_arrays([{"embeddings": embeddings.numpy()}]),
    )
    trainer = SimilarityTrainer(tower, args, TaughtCollator(tokenizer.pad_token_id), data)
    train_or_resume(trainer, settings)
    tower.save_pretrained(out)
    tokenizer.save_pretrained(out)


# --- the audio tower -------------------------------------------------------------------------------------------------


def train_mini_clap(
    out: Path,
    run: Path,
    start: Path,
    taught: Path,
    recordings: Sequence[SourceRecording],
    train: Dataset,
    **values: Any,
) -> None:
    """
    Trains the audio tower on recordings and saves the whole CLAP in half precision.

    Args:
        out: its folder.
        run: where checkpoints are kept; a run that was stopped goes on from there.
        start: what [`save_untrained_clap`] wrote.
        taught: what [`teach_text_tower`] wrote.
        recordings: that may be heard.
        train: AuditoryBench's train rows, whose spans are captions beside the labels.
        values: fields of `TrainingArguments` in place of the recipe's.
    """
    set_seed(0)
    model, tokenizer = ClapModel.from_pretrained(start), BertTokenizer.from_pretrained(start)
    tower = ClapTextModelWithProjection.from_pretrained(taught)
    model.text_model.load_state_dict(tower.text_model.state_dict())
    model.text_projection.load_state_dict(tower.text_projection.state_dict())
    for part in (model.text_model, model.text_projection):
        part.requires_grad_(False)
    extractor = ClapFeatureExtractor.from_pretrained(start)
    captions = make_captions([recording.label for recording in recordings], train)
    data = CaptionedRecordings(recordings, extractor, captions, TEMPLATE)
    args = clap_arguments(
        run, **{"num_train_epochs": 24, "batch_size": 64, "weight_decay": 0.05, "eval_strategy": "no", **values}
    )
    train_clap(model, tokenizer, data, data, args)
    # The knowledge base keeps each tower in the dtype that its own part of the config names.
    for part in (model.config.text_config, model.config.audio_config):
        part.dtype = torch.float16
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    extractor.save_pretrained(out)
