"""What a run will take, about: minutes by the kind of the run for the tiny preset, counted for the paper's.

The estimate counts floating-point operations, two for each multiplication and addition (Kaplan et al., 2020): per token
2 N forward and twice that backward, where N are the parameters. Half of the backward pass is spared where weights stay
as they are. Attention adds 4 s h per layer and token forward, with s tokens in a row and width h; that counts in AST
alone, which reads 1,214 tokens per recording. Memory is that of the weights, of gradients and AdamW's two moments for
what is trained, and of what the forward pass keeps for the backward one: per token, layer and unit of width 8 numbers
and 2 for each unit of the inner layer. That is what torch keeps of an AST in fp32, measured on its saved tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from .presets import Preset, Recipe

# An NVIDIA A100's peak by the bytes of a number (its data sheet: fp32, which is what the recipes compute in, and bf16),
# and the share of it that is reached, an assumption.
GPU = "NVIDIA A100"
FLOPS_PER_SECOND = {4: 19.5e12 * 0.6, 2: 312e12 * 0.4}
# Decoding a recording for AST takes this on one core (measured), and the GPU waits for it: the recipe has no loaders.
SECONDS_PER_RECORDING = 0.014
FP32 = 4
GIB = 2**30

# AuditoryBench's rows that are trained on and evaluated, their spans in train, and word pieces per row (about 1.4 per
# word, and two special tokens).
TRAIN_ROWS = {"animal": 4211, "pitch": 8312}
TRAIN_SPANS = {"animal": 4211, "pitch": 16620}
EVALUATION_ROWS = {"animal": 2001, "pitch": 7190}
TOKENS = {"animal": 15, "pitch": 26}
# Ranking reads the end of the sentence, about half, with each of about 600 animals.
RANKED_ANIMALS = 600
SPANS_OF_A_ROW = 2
# Pseudo-perplexity: 100 passages of about 85 tokens, each token masked once, in three modes.
PERPLEXITY_TOKENS = 3 * 100 * 85 * 85


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        hours: on two cores for the tiny preset, else on one GPU.
        gpu_gib: the most GPU memory, in GiB; None for a run that needs no GPU.
    """

    hours: float
    gpu_gib: float | None = None


@dataclass(frozen=True)
class Shape:
    """What a transformer's cost depends on; parameters include those of the head that scores the vocabulary."""

    parameters: int
    layers: int
    width: int
    inner: int
    vocabulary: int = 0
    bytes_per_weight: int = FP32

    def kept_bytes(self, tokens: int) -> int:
        """What the forward pass keeps for the backward one, in fp32."""
        return tokens * self.layers * (8 * self.width + 2 * self.inner) * FP32


AST = Shape(86_187_264, 12, 768, 3072)
AST_TOKENS = 1214
SHAPES = {
    "google-bert/bert-base-uncased": Shape(109_514_298, 12, 768, 3072, 30522),
    "google-bert/bert-large-uncased": Shape(335_174_458, 24, 1024, 4096, 30522),
    "FacebookAI/roberta-base": Shape(124_697_433, 12, 768, 3072, 50265),
    "FacebookAI/roberta-large": Shape(355_412_057, 24, 1024, 4096, 50265),
    "google/gemma-2-2b": Shape(2_614_341_888, 26, 2304, 9216, 256000),
    "meta-llama/Llama-3.1-8B": Shape(8_030_261_248, 32, 4096, 14336, 128256, bytes_per_weight=2),
}

# Of the tiny preset, minutes by the kind of the run: measured on one core of two that were both at work.
TINY_MINUTES = {"control": 0.2, "bert": 0.5, "detector": 2.3, "audiobert": 5.2, "preservation": 2.5}


def evaluation_cost(shape: Shape, kind: str) -> Cost:
    """Of answering dev, test and wiki with a masked or a causal model."""
    tokens = _tokens(EVALUATION_ROWS)
    if kind == "causal":
        ends = EVALUATION_ROWS["animal"] * RANKED_ANIMALS * TOKENS["animal"] / 2
        tokens = 2 * EVALUATION_ROWS["pitch"] * TOKENS["pitch"] + ends
    scores = 64 * max(TOKENS.values()) * shape.vocabulary * FP32
    weights = shape.parameters * shape.bytes_per_weight
    return _cost(2 * shape.parameters * tokens, weights + scores, bytes_per_number=shape.bytes_per_weight)


def detector_cost(bert: Shape, recipe: Recipe, tasks: tuple[str, ...]) -> Cost:
    """BERT only runs forward; the head on it is small beside it."""
    tokens = recipe.epochs * _tokens({task: TRAIN_ROWS[task] for task in tasks}) + _tokens(EVALUATION_ROWS)
    scores = recipe.batch_size * max(TOKENS.values()) * bert.vocabulary * FP32
    return _cost(2 * bert.parameters * tokens, (bert.parameters + AST.parameters) * FP32 + 2 * scores)


def adapter_cost(bert: Shape, preset: Preset, with_audio: bool) -> Cost:
    """Of training an AudioBERT on one GPU and evaluating it; embedding the knowledge base anew adds little."""
    recipe = preset.adapter
    lora = 3 * bert.layers * 2 * bert.width * 64
    train_tokens = recipe.epochs * _tokens(TRAIN_ROWS)
    operations = (4 * bert.parameters + 6 * lora) * train_tokens + 4 * bert.parameters * _tokens(EVALUATION_ROWS)
    batch_tokens = recipe.batch_size * max(TOKENS.values())
    # Scores of the vocabulary, their softmax and its gradient.
    memory = (bert.parameters + AST.parameters + 4 * lora) * FP32 + bert.kept_bytes(batch_tokens)
    memory += 3 * batch_tokens * bert.vocabulary * FP32
    recordings = 0.0
    if with_audio and preset.audio == "trained":
        recordings = recipe.epochs * sum(TRAIN_SPANS.values())
        per_token = 6 * AST.parameters + 3 * 4 * AST.layers * AST_TOKENS * AST.width
        operations += recordings * AST_TOKENS * per_token
        # Gradients and both moments; a batch may hold nothing but rows of pitch.
        memory += 3 * AST.parameters * FP32 + AST.kept_bytes(AST_TOKENS * recipe.batch_size * SPANS_OF_A_ROW)
    return _cost(operations, memory, recordings * SECONDS_PER_RECORDING)


def preservation_cost(bert: Shape) -> Cost:
    """Of plain English through BERT and AudioBERT."""
    return _cost(2 * bert.parameters * PERPLEXITY_TOKENS, (bert.parameters + AST.parameters) * FP32)


def _tokens(rows: dict[str, int]) -> int:
    return sum(count * TOKENS[task] for task, count in rows.items())


def _cost(operations: float, memory: float, seconds: float = 0.0, bytes_per_number: int = FP32) -> Cost:
    return Cost((operations / FLOPS_PER_SECOND[bytes_per_number] + seconds) / 3600, memory / GIB)
