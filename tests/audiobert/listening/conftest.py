"""A knowledge base with pitch: instruments of three notes each, animals cut from files, and noises without a pitch."""

from __future__ import annotations

import dataclasses

import pyarrow
import pytest
import torch

from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase, inner_product_index

from audio_fixtures import tiny_knowledge_base

INSTRUMENTS = ["tuba", "cello", "viola", "oboe", "flute", "piccolo", "bagpipes", "harp", "organ", "5-string banjo"]
ANIMALS = ["cat", "dog", "owl"]
NOISES = ["rain", "wind"]


def listenable(instruments: list[str] = INSTRUMENTS) -> AudioBertKnowledgeBase:
    """Each instrument has notes at 100, 110 and 220 Hz times a factor of its own."""
    rows = [
        (f"sounds/{label}_{note}.ogg", label, hertz * (1 + 0.3 * number))
        for number, label in enumerate(instruments)
        for note, hertz in enumerate((100.0, 110.0, 220.0))
    ]
    # Two takes of each of five files.
    rows += [
        (f"esc50/1-{100 * number + file}-{take}-{number}.wav", animal, None)
        for number, animal in enumerate(ANIMALS)
        for file in range(5)
        for take in "AB"
    ]
    rows += [(f"sounds/{noise}_{number}.ogg", noise, None) for noise in NOISES for number in range(2)]
    ids, labels, pitches = zip(*rows, strict=True)
    count = len(rows)
    metadata = pyarrow.table(
        {
            "id": list(ids),
            "label": list(labels),
            "source": ["tests"] * count,
            "license": ["CC0"] * count,
            "seconds": [1.0] * count,
            "pitch_hz": pyarrow.array(pitches, pyarrow.float64()),
        }
    )
    plain = tiny_knowledge_base(count)
    torch.manual_seed(1)
    embeddings = torch.randn(count, 12).half()
    config = dataclasses.replace(plain.config, audio_hidden_size=12)
    vectors = plain.index.reconstruct_n(0, count)
    return AudioBertKnowledgeBase(config, inner_product_index(vectors), embeddings, metadata, plain.query_encoder)


@pytest.fixture(scope="session")
def sounds() -> AudioBertKnowledgeBase:
    return listenable()
