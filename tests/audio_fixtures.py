"""Tiny CLAP, AST and recordings, made on the spot: nothing is downloaded and nothing takes longer than a second."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    PreTrainedTokenizerFast,
)

from audiobert.modeling.knowledge_audiobert import (
    AudioBertKnowledgeBase,
    EncoderReference,
    KnowledgeBaseConfig,
    QueryEncoder,
    inner_product_index,
)

WORDS = ["dog", "cat", "rain", "low", "high", "meow", "woof", "drip", "hum", "beep", "sound", "a", "the", "of"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word tokenizer with RoBERTa's special tokens, as CLAP's is."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def tiny_clap_text_config(width: int = 8) -> ClapTextConfig:
    return ClapTextConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        projection_dim=width,
        hidden_dropout_prob=0.0,
    )


def save_tiny_clap(folder: Path, width: int = 8, fusion: bool = False, seed: int = 0) -> Path:
    """Writes a CLAP checkpoint (1 s at 8 kHz) as `ClapModel` itself does, with tokenizer and feature extractor."""
    torch.manual_seed(seed)
    audio = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=64,
        window_size=4,
        patch_size=4,
        patch_stride=[4, 4],
        hidden_size=32,
        patch_embeds_hidden_size=16,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        num_hidden_layers=2,
        enable_fusion=fusion,
        mlp_ratio=1.0,
        hidden_dropout_prob=0.0,
    )
    config = ClapConfig(text_config=tiny_clap_text_config(width), audio_config=audio, projection_dim=width)
    ClapModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=8000,
        hop_length=128,
        max_length_s=1,
        fft_window_size=256,
        frequency_min=50,
        frequency_max=4000,
        truncation="fusion" if fusion else "rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    return folder


def save_tiny_ast(folder: Path, hidden_size: int = 12, seed: int = 0) -> Path:
    """Writes an AST checkpoint (0.64 s at 16 kHz) as `ASTModel` itself does, with its feature extractor."""
    torch.manual_seed(seed)
    config = ASTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=64,
        num_mel_bins=32,
        frequency_stride=16,
        time_stride=16,
    )
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return folder


def tone(frequency: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def write_recordings(folder: Path, rows: Sequence[dict[str, str]], frequency: float = 300.0) -> Path:
    """Writes an audiofolder: a short tone for each row's `file_name`, and `metadata.csv` with the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        path = folder / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(frequency * (1 + number), 0.4 + 0.1 * (number % 4), 16000), 16000)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def tiny_knowledge_base(count: int = 12, width: int = 8, audio_hidden_size: int = 6) -> AudioBertKnowledgeBase:
    """A knowledge base of random vectors behind a tiny text tower; labels go round dog, cat and rain."""
    torch.manual_seed(0)
    text_tower = ClapTextModelWithProjection(tiny_clap_text_config(width))
    with torch.no_grad():
        # Far enough apart that words find recordings of their own.
        for weight in text_tower.parameters():
            weight.normal_()
    vectors = torch.nn.functional.normalize(torch.randn(count, width), dim=-1).numpy()
    metadata = pyarrow.table(
        {
            "id": [f"sounds/{i}.ogg" for i in range(count)],
            "label": [("dog", "cat", "rain")[i % 3] for i in range(count)],
            "source": ["tests"] * count,
            "license": ["CC0"] * count,
            "seconds": [1.0 + i for i in range(count)],
        }
    )
    config = KnowledgeBaseConfig(
        clap=EncoderReference("tiny-clap"),
        ast=EncoderReference("tiny-ast"),
        clap_width=width,
        audio_hidden_size=audio_hidden_size,
        count=count,
    )
    embeddings = torch.randn(count, audio_hidden_size).half()
    return AudioBertKnowledgeBase(
        config, inner_product_index(vectors), embeddings, metadata, QueryEncoder(text_tower, tiny_tokenizer())
    )
