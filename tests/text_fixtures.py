"""Tiny tokenizers, models and AuditoryBench folders, made on the spot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *("the", "sound", "of", "a", "is", "makes", "has", "pitch", "than", "higher", "lower", "meow", "bark", "rain"),
    *("hum", "cat", "dog", "##ling", "duck", "bass", "oct", "##o"),
]
HEADERS = {"animal": ["animal", "description", "sentence"], "pitch": ["sentence", "answer", "span1", "span2"]}
ANIMAL_ROWS = [
    ["cat", "meow", "Meow is the sound a [MASK] makes."],
    ["dog", "NA", "The sound of a bark is [MASK]."],
    ["duckling", "hum", 'A [MASK] makes a "hum" sound.'],
]
PITCH_ROWS = [
    ["The rain has a [MASK] pitch than the hum.", "higher", "rain", "hum"],
    ["The bark has a [MASK] pitch than the meow of a cat.", "lower", "meow of a cat", "bark"],
]


def tiny_tokenizer(words: Sequence[str] = (), **kwargs) -> BertTokenizer:
    """WordPiece over single characters and the words above (and `words`); knows no limit of its model by itself."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS, *words]
    return BertTokenizer(vocab={token: index for index, token in enumerate(dict.fromkeys(vocabulary))}, **kwargs)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_auditorybench(
    folder: Path, animal: Sequence[Sequence[str]] = ANIMAL_ROWS, pitch: Sequence[Sequence[str]] = PITCH_ROWS
) -> Path:
    """All eight files, the same rows in each split."""
    for split in ("train", "dev", "test", "wiki"):
        write_csv(folder / f"animal_{split}.csv", HEADERS["animal"], animal)
        write_csv(folder / f"pitch_{split}.csv", HEADERS["pitch"], pitch)
    return folder


def tiny_bert_config(vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        # Large enough for random models to tell their inputs apart.
        initializer_range=0.5,
    )


def tiny_bert(vocab_size: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(tiny_bert_config(vocab_size)).eval()
