"""
Speed of `audiobert add-recordings` of one recording to a knowledge base of 2,842, against loading the model twice:
`python tests/benchmarks/growing.py [--json FILE]`.

The model is as large as a bundled one (six layers of width 384, a vocabulary of 30,000 words; an AST of four layers
and a text tower of three), with random weights, and its recordings are random: nothing is needed. Both sides run in
turn in one process, after one round that does not count.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import torch
from rich.console import Console
from rich.table import Table
from transformers import ASTConfig, ASTFeatureExtractor, BertConfig, ClapTextConfig, ClapTextModelWithProjection
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from audiobert import AudioBertConfig, AudioBertForMaskedLM, AudioBertKnowledgeBase  # noqa: E402
from audiobert.modeling.knowledge_audiobert import (
    AudioEncoder,
    EncoderReference,
    KnowledgeBaseConfig,
    QueryEncoder,
    inner_product_index,
)
from audiobert.sounds.growing import grow_checkpoint

from audio_fixtures import save_tiny_clap, write_recordings  # noqa: E402
from text_fixtures import tiny_tokenizer  # noqa: E402

RECORDINGS = 2842
LABELS = 400
WORDS = 30_000
CLAP_WORDS = 10_000
AIM = 1.0


def knowledge_base(clap: Path, width: int, measured: bool) -> AudioBertKnowledgeBase:
    """Random recordings that are found by name too, with CLAP whole; with pitch and brightness if `measured`."""
    carried = AudioEncoder.from_pretrained(clap)
    tokenizer = tiny_tokenizer([f"sound{i}" for i in range(CLAP_WORDS)])
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        projection_dim=carried.width,
        pad_token_id=tokenizer.pad_token_id,
    )
    query_encoder = QueryEncoder(ClapTextModelWithProjection(text).half(), tokenizer)
    numbers = np.random.default_rng(0).uniform(100, 1000, RECORDINGS)
    columns = {name: [str(i) for i in range(RECORDINGS)] for name in ("id", "source", "license")}
    columns["label"] = [f"label {i % LABELS}" for i in range(RECORDINGS)]
    names = ("seconds", "pitch_hz", "voiced_seconds", "brightness_hz") if measured else ("seconds",)
    plain = AudioBertKnowledgeBase(
        KnowledgeBaseConfig(EncoderReference("clap"), EncoderReference("ast"), carried.width, width, RECORDINGS),
        inner_product_index(torch.nn.functional.normalize(torch.randn(RECORDINGS, carried.width), dim=-1).numpy()),
        torch.randn(RECORDINGS, width).half(),
        pyarrow.table({**columns, **dict.fromkeys(names, numbers)}),
        query_encoder,
        carried=carried,
    )
    return plain.with_retrieval("both")


def make_model(folder: Path, clap: Path, measured: bool) -> Path:
    tokenizer = tiny_tokenizer([f"word{i}" for i in range(WORDS)])
    config = AudioBertConfig(
        text_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        ),
        audio_config=ASTConfig(
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=384,
            num_mel_bins=64,
            frequency_stride=16,
            time_stride=16,
        ),
    )
    model = AudioBertForMaskedLM(config).half().eval()
    model.feature_extractor = ASTFeatureExtractor(num_mel_bins=64)
    model.set_knowledge_base(knowledge_base(clap, 192, measured), tokenizer)
    model.save_pretrained(folder)
    return folder


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(place: Path, model: Path, rounds: int) -> dict[str, float]:
    audio = write_recordings(place / f"audio-{model.name}", [{"file_name": "new.wav", "label": "blick"}])
    out = place / f"grown-{model.name}"

    def grow() -> None:
        shutil.rmtree(out, ignore_errors=True)
        grow_checkpoint(model, audio, out)

    def load_twice() -> None:
        for _ in range(2):
            AudioBertForMaskedLM.from_pretrained(model)

    grow(), load_twice()
    pairs = [(seconds(grow), seconds(load_twice)) for _ in range(rounds)]
    return {
        "ours_seconds": statistics.median(a for a, _ in pairs),
        "theirs_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "rounds": rounds,
        "aim": AIM,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        clap = save_tiny_clap(place / "clap")
        for measured in (False, True):
            model = make_model(place / ("measured" if measured else "plain"), clap, measured)
            what = "add-recordings of one, measured" if measured else "add-recordings of one"
            results[f"{what} / loading the model twice"] = measure(place, model, arguments.rounds)

    table = Table("measured", "ratio", "aim", "adding, s", "loading twice, s", title=f"{RECORDINGS:,} recordings")
    for what, row in results.items():
        cells = (
            f"{row['ratio']:.3f}",
            f"<= {row['aim']}",
            f"{row['ours_seconds']:.3f}",
            f"{row['theirs_seconds']:.3f}",
        )
        table.add_row(what, *cells)
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": torch.get_num_threads(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
