"""Tiny causal language models of several families, and models rigged to prefer given texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

FAMILIES = ("gemma2", "llama", "qwen2", "gpt2")
CORPUS = [
    "The sound of a cat makes higher lower pitch than rain or hum.",
    "Meow is the sound a cat makes. Dogs and ducks bark. The barn owl hoots.",
]
# So much likelier is a token that a rigged model prefers.
PREFERENCE = 30.0


def make_causal(folder: Path, family: str, seed: int = 0) -> Path:
    """Saves a random model of the family with a tokenizer as the family has it; longer words have several tokens."""
    tokenizer = gemma_tokenizer() if family == "gemma2" else byte_level_tokenizer(begins=family == "llama")
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Large enough for random models to tell their inputs apart.
        "initializer_range": 0.5,
    }
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
    }
    model: PreTrainedModel
    if family == "gemma2":
        # A window that is shorter than the sentences.
        model = Gemma2ForCausalLM(Gemma2Config(**shape, **sizes, head_dim=8, sliding_window=6))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, **sizes))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, **sizes))
    else:
        model = GPT2LMHeadModel(GPT2Config(**shape, n_embd=16, n_layer=2, n_head=2, n_positions=1024))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_level_tokenizer(begins: bool, merges: int = 60) -> PreTrainedTokenizerBase:
    """Byte-level BPE without a padding token: with a token for the beginning that it adds (LLaMA 3), or with neither
    (Qwen; GPT-2)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|endoftext|>"] if begins else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + merges,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def gemma_tokenizer(merges: int = 60) -> PreTrainedTokenizerBase:
    """Gemma's: spaces are characters, unknown characters are bytes, a token for the beginning is added."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    letters = [chr(code) for code in range(33, 127)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(letters) + 1 + merges,
        special_tokens=special,
        initial_alphabet=["▁", *letters],
        show_progress=False,
    )
    trained.train_from_iterator([text.replace(" ", "▁") for text in CORPUS], trainer)
    # The merges can be had from the file alone.
    state = json.loads(trained.to_str())["model"]
    return GemmaTokenizer(vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]], add_bos_token=True)


class _Rigged:
    """Prefers, after a context that it knows, one token to all others; random models' logits play no part."""

    preferred: dict[tuple[int, ...], int]
    first: int

    def forward(
        self, input_ids: torch.Tensor, attention_mask: Any = None, past_key_values: Any = None, **kwargs: Any
    ) -> Any:
        output = super().forward(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
        )
        seen = getattr(past_key_values, "seen", input_ids[:, :0])
        contexts = torch.cat([seen.expand(len(input_ids), -1), input_ids], dim=1)
        if output.past_key_values is not None:
            output.past_key_values.seen = contexts
        logits = torch.zeros_like(output.logits)
        for row, context in enumerate(contexts.tolist()):
            for place in range(logits.shape[1]):
                known = context[: len(context) - input_ids.shape[1] + place + input_ids.shape[1] - logits.shape[1] + 1]
                # Behind the padding on the left, of whatever token it is.
                start = max((index for index, token in enumerate(known) if token == self.first), default=0)
                token = self.preferred.get(tuple(known[start:]))
                if token is not None:
                    logits[row, place, token] = PREFERENCE
        output.logits = logits
        return output


def rig(model: PreTrainedModel, texts: Iterable[Sequence[int]], first: int) -> PreTrainedModel:
    """Makes a model prefer these token ids, each to its end; the first text with a context decides what follows it."""
    preferred: dict[tuple[int, ...], int] = {}
    for ids in texts:
        for end in range(1, len(ids)):
            preferred.setdefault(tuple(ids[:end]), ids[end])
    model.__class__ = type(f"Rigged{type(model).__name__}", (_Rigged, type(model)), {})
    model.preferred, model.first = preferred, first
    return model
