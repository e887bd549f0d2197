"""
Speed, as ratios of two things measured in turn in one run: `python tests/benchmarks/speed.py [--json FILE]`.

Everything is at BERT-base size with random weights, so no checkpoint is needed. Each ratio is the median over rounds,
in each of which both sides run once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    ClapTextConfig,
    ClapTextModelWithProjection,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from audiobert import AudioBertConfig, AudioBertForMaskedLM, AudioBertKnowledgeBase  # noqa: E402
from audiobert.modeling.knowledge_audiobert import (
    EncoderReference,
    KnowledgeBaseConfig,
    QueryEncoder,
    inner_product_index,
)

from audio_fixtures import tiny_tokenizer as clap_tokenizer  # noqa: E402
from text_fixtures import tiny_tokenizer as bert_tokenizer  # noqa: E402

PROMPT = "meow is the sound a [MASK] makes"
RECORDINGS = 2000
WIDTH = 768
CLAP_WIDTH = 512


def knowledge_base() -> AudioBertKnowledgeBase:
    """Random recordings behind a text tower of the size of laion/clap-htsat-fused."""
    vectors = torch.nn.functional.normalize(torch.randn(RECORDINGS, CLAP_WIDTH), dim=-1).numpy()
    names = [str(i) for i in range(RECORDINGS)]
    columns = {name: names for name in ("id", "label", "source", "license")}
    return AudioBertKnowledgeBase(
        KnowledgeBaseConfig(EncoderReference("clap"), EncoderReference("ast"), CLAP_WIDTH, WIDTH, RECORDINGS),
        inner_product_index(vectors),
        torch.randn(RECORDINGS, WIDTH).half(),
        pyarrow.table({**columns, "seconds": np.ones(RECORDINGS)}),
        QueryEncoder(ClapTextModelWithProjection(ClapTextConfig()), clap_tokenizer()),
    )


def set_detector(model: AudioBertForMaskedLM, finds_spans: bool) -> None:
    """Every word an auditory span, or none: random weights decide nothing."""
    with torch.no_grad():
        model.detector.classifier.bias.copy_(torch.tensor([-50.0, 50.0] if finds_spans else [50.0, -50.0]))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of both and the median of the rounds' ratios, after one uncounted round."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return {
        "ours_seconds": statistics.median(a for a, _ in pairs),
        "theirs_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "rounds": rounds,
    }


def inference(prompts: int) -> dict[str, dict[str, float]]:
    model = AudioBertForMaskedLM(AudioBertConfig()).eval()
    model.set_knowledge_base(knowledge_base(), bert_tokenizer())
    bert = BertForMaskedLM(BertConfig()).eval()
    detector = BertForTokenClassification(BertConfig()).eval()
    ast = ASTModel(ASTConfig()).eval()
    clap = model.knowledge_base.query_encoder
    features = torch.randn(prompts, 1024, 128)
    batch = dict(bert_tokenizer()([PROMPT] * prompts, return_tensors="pt"))

    def papers_arrangement() -> None:
        """A BERT detects, CLAP's text tower queries, AST runs on the recordings found, and BERT answers."""
        detector(**batch)
        for _ in range(prompts):
            model.knowledge_base.index.search(clap("meow sound"), 1)
        ast(features)
        bert(**batch)

    rounds = 20 if prompts == 1 else 7
    set_detector(model, finds_spans=False)
    plain = ratio(lambda: model(**batch), lambda: bert(**batch), rounds)
    set_detector(model, finds_spans=True)
    warm = ratio(lambda: model(**batch), lambda: bert(**batch), rounds)
    paper = ratio(lambda: model(**batch), papers_arrangement, 3)

    def answer(recordings: int, temperature: float | None) -> None:
        model.config.retrieval_top_k, model.config.retrieval_temperature = recordings, temperature
        model(**batch)

    eight = ratio(lambda: answer(8, 0.05), lambda: answer(1, None), rounds)
    return {
        f"plain prompts / BERT, {prompts}": {**plain, "aim": 1.05},
        f"auditory prompts, warm / BERT, {prompts}": {**warm, "aim": 3.0},
        f"auditory prompts / the paper's arrangement, {prompts}": {**paper, "aim": 0.2},
        f"auditory prompts, eight recordings a span / one, {prompts}": {**eight, "aim": 1.05},
    }


def training(batch_size: int = 4) -> dict[str, dict[str, float]]:
    """Seconds of a training step with cached embeddings and with AST run and trained; the ratio is of samples/s."""
    model = AudioBertForMaskedLM(AudioBertConfig()).train()
    batch = dict(bert_tokenizer()([PROMPT] * batch_size, return_tensors="pt"))
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, 6] = 7
    inputs = {**batch, "labels": labels, "audio_positions": torch.ones(batch_size, 1, dtype=torch.long)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(**audio: torch.Tensor) -> None:
        model(**inputs, **audio).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    embeds, values = torch.randn(batch_size, 1, WIDTH), torch.randn(batch_size, 1, 1024, 128)
    result = ratio(lambda: step(audio_values=values), lambda: step(audio_embeds=embeds), 3)
    return {"training samples/s, cached / AST each step": {**result, "aim": 20.0}}


def imports() -> dict[str, dict[str, float]]:
    def fresh(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

    theirs = "from transformers import AutoModelForMaskedLM, BertForMaskedLM"
    return {
        "import audiobert / import transformers' BERT": {
            **ratio(fresh("import audiobert"), fresh(theirs), 5),
            "aim": 1.2,
        }
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results = imports()
    with torch.no_grad():
        for prompts in (1, 32):
            results.update(inference(prompts))
    results.update(training())

    table = Table("measured", "ratio", "aim", "first, s", "second, s", title=f"{torch.get_num_threads()} threads")
    for name, row in results.items():
        sign = ">=" if name.startswith("training") else "<="
        table.add_row(
            name,
            f"{row['ratio']:.3f}",
            f"{sign} {row['aim']}",
            f"{row['ours_seconds']:.3f}",
            f"{row['theirs_seconds']:.3f}",
        )
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": torch.get_num_threads(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
