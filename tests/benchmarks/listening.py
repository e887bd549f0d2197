"""
Listening rows made on one core, against those that a training consumes there: `python tests/benchmarks/listening.py
[--model MODEL] [--rounds N]`.

MODEL is an AudioBERT whose knowledge base has pitches. Without one, a model as large as a bundled one (six layers of
width 384) with random weights stands for it, over random recordings with made-up pitches. The training is a step of the
recipe on the rows that were made: both passes, the gradients, AdamW. Both sides run in turn in one process, after one
round that does not count.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import torch
from rich.console import Console
from rich.table import Table
from transformers import ASTConfig, BertConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from audiobert import AudioBertConfig, AudioBertForMaskedLM, AudioBertKnowledgeBase  # noqa: E402
from audiobert.data.batches import HearingCollator  # noqa: E402
from audiobert.listening.rows import ListeningRows, animal_labels  # noqa: E402

from audio_fixtures import tiny_knowledge_base  # noqa: E402
from text_fixtures import tiny_tokenizer  # noqa: E402

RECORDINGS, LABELS, WIDTH = 2000, 200, 160
ANIMALS = ("cat", "dog", "cow")
BATCH = 32
AIM = 20.0


def stand_in() -> AudioBertForMaskedLM:
    """A model as large as a bundled one, with random weights and recordings."""
    plain = tiny_knowledge_base(RECORDINGS, audio_hidden_size=WIDTH)
    labels = [f"instrument{number % LABELS}" if number % 4 else ANIMALS[number % 3] for number in range(RECORDINGS)]
    hertz = np.exp(np.random.default_rng(0).uniform(np.log(50), np.log(4000), RECORDINGS))
    metadata = plain.metadata.drop_columns("label").append_column("label", pyarrow.array(labels))
    metadata = metadata.append_column("pitch_hz", pyarrow.array(hertz))
    config = dataclasses.replace(plain.config)
    sounds = AudioBertKnowledgeBase(config, plain.index, plain.audio_embeddings, metadata, plain.query_encoder)
    tokenizer = tiny_tokenizer([*set(labels), "higher", "lower"])
    text = BertConfig(
        vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    audio = ASTConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=160)
    model = AudioBertForMaskedLM(AudioBertConfig(text, audio))
    model.set_knowledge_base(sounds, tokenizer)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id; a stand-in if omitted")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AudioBertForMaskedLM.from_pretrained(arguments.model) if arguments.model else stand_in()
    sounds = model.knowledge_base
    assert sounds is not None and model.tokenizer is not None
    made = ListeningRows(sounds, animal_labels(sounds, ANIMALS), model.tokenizer, top_k=4)
    collate = HearingCollator.of(model)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-5)
    model.train()
    making, training = [], []
    for round_ in range(arguments.rounds + 1):
        start = time.perf_counter()
        rows = made.rows(range(round_ * BATCH, (round_ + 1) * BATCH))
        middle = time.perf_counter()
        names = (*model.tokenizer.model_input_names, "labels", "audio_positions", "recordings")
        model(**collate([{name: row[name] for name in names} for row in rows])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        making.append((middle - start) / BATCH)
        training.append((time.perf_counter() - middle) / BATCH)
    made_in, trained_in = (statistics.median(times[1:]) for times in (making, training))
    table = Table("rows a second, one core", "", title="Listening rows")
    table.add_row("made", f"{1 / made_in:,.0f}")
    table.add_row("trained on", f"{1 / trained_in:,.0f}")
    table.add_row(f"ratio (aim: at least {AIM:g})", f"{trained_in / made_in:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
