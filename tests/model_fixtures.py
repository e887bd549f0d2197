"""A tiny AudioBERT whose detector really finds the auditory words of its vocabulary."""

from __future__ import annotations

import torch
from transformers import ASTConfig, BertForMaskedLM

from audiobert import AudioBertConfig, AudioBertForMaskedLM

from audio_fixtures import tiny_knowledge_base
from text_fixtures import tiny_bert_config, tiny_tokenizer

AUDITORY_WORDS = ["meow", "bark", "rain", "hum"]
AUDITORY = "meow is the sound a [MASK] makes"
TWO_SPANS = "the rain has a [MASK] pitch than the hum"
PLAIN = "the [MASK] is a cat"


def tiny_audio_config(hidden_size: int = 12) -> ASTConfig:
    return ASTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=32,
        num_mel_bins=16,
    )


def tiny_config(**values) -> AudioBertConfig:
    defaults = {"lora_rank": 4, "lora_alpha": 8, "detector_hidden_size": 16, "detector_num_heads": 2}
    text = tiny_bert_config(len(tiny_tokenizer()))
    return AudioBertConfig(text_config=text, audio_config=tiny_audio_config(), **{**defaults, **values})


def hearing_audiobert(**values) -> AudioBertForMaskedLM:
    """Adapters and audio map random, so that hearing shows; the detector trained on the words above; in eval mode."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = AudioBertForMaskedLM(tiny_config(**values))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or name.startswith("audio_projection"):
                parameter.normal_()
    model.set_knowledge_base(tiny_knowledge_base(audio_hidden_size=12), tokenizer)
    train_tiny_detector(model)
    return model.eval()


def train_tiny_detector(model: AudioBertForMaskedLM) -> None:
    tokenizer = model.tokenizer
    auditory = torch.tensor(tokenizer.convert_tokens_to_ids(AUDITORY_WORDS))
    prompts = [AUDITORY, TWO_SPANS, PLAIN, "a bark is the [MASK] of a dog", "is the duck higher than the bass [MASK]"]
    prompts += [f"the {word} of a {other} [MASK]" for word in AUDITORY_WORDS for other in ("cat", "meow", "sound")]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    labels = torch.isin(batch["input_ids"], auditory).long()
    labels[batch["attention_mask"] == 0] = -100
    optimizer = torch.optim.AdamW(model.detector.parameters(), lr=0.02)
    model.eval()
    for _ in range(150):
        optimizer.zero_grad()
        model(**batch, span_labels=labels).loss.backward()
        optimizer.step()
    model.zero_grad()


def untrained_audiobert(**values) -> AudioBertForMaskedLM:
    """The same with its adapters as they start: no change at all."""
    model = hearing_audiobert(**values)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    return model


def original_bert(model: AudioBertForMaskedLM) -> BertForMaskedLM:
    """The BERT that the model started from: the same weights, in a class that knows of no adapter."""
    bert = BertForMaskedLM(model.config.text_config).eval()
    weights = model.text_model.state_dict()
    bert.load_state_dict({name.replace(".base_layer.", "."): w for name, w in weights.items() if "lora_" not in name})
    return bert
