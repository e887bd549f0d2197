"""The parts of a knowledge base in memory: how they are made, and that they fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .knowledge_files_audiobert import (
    EMBEDDINGS_FILE,
    INDEX_FILE,
    LABEL_VECTORS_FILE,
    METADATA_FILE,
    REBUILD,
    KnowledgeBaseConfig,
    read_tensors,
    write_tensors,
)
from .labels_audiobert import LabelVectors
from .query_audiobert import QueryEncoder
from .recordings_audiobert import Recording

STATISTICS = ("audio_mean", "audio_deviation")
# How far from 1 the length of a unit vector may be.
ROUNDING = 1e-3


def inner_product_index(vectors: np.ndarray) -> Any:
    """Returns a FAISS index over fp32 vectors (count, width), which have to be L2-normalised for cosine similarity."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def read_embeddings(folder: Path) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """The audio embeddings of a knowledge base, mapped into memory, and their mean and deviation if it names them."""
    tensors = read_tensors(folder / EMBEDDINGS_FILE, "audio_embeddings")
    if not tensors.keys() >= set(STATISTICS):
        return tensors["audio_embeddings"], None
    mean, deviation = (tensors[name].clone() for name in STATISTICS)
    return tensors["audio_embeddings"], (mean, deviation)


def write_embeddings(
    folder: Path, embeddings: torch.Tensor, statistics: tuple[torch.Tensor, torch.Tensor] | None
) -> None:
    named = dict(zip(STATISTICS, statistics or (), strict=False))
    write_tensors({"audio_embeddings": embeddings, **named}, folder / EMBEDDINGS_FILE)


def statistics_of(embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of fp16 embeddings, fp32: sums of them are exact in fp64, and so the same on every machine."""
    values = embeddings.numpy().astype(np.float64)
    return torch.from_numpy(values.mean(axis=0)).float(), torch.from_numpy(values.std(axis=0)).float()


def check_optional_parts(
    config: KnowledgeBaseConfig,
    audio_statistics: tuple[torch.Tensor, torch.Tensor] | None,
    label_vectors: LabelVectors | None,
) -> None:
    for name, tensor in zip(STATISTICS, audio_statistics or (), strict=False):
        if tensor.shape != (config.audio_hidden_size,) or tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError(
                f"`{name}` has to be a finite fp32 tensor of shape ({config.audio_hidden_size},), got {tensor.dtype} "
                f"of shape {tuple(tensor.shape)}. {REBUILD}"
            )
    if label_vectors is not None and label_vectors.vectors.shape[1] != config.clap_width:
        raise ValueError(
            f"width of {LABEL_VECTORS_FILE} is {label_vectors.vectors.shape[1]}, the knowledge base's config says "
            f"{config.clap_width}. {REBUILD}"
        )


def check_parts(
    config: KnowledgeBaseConfig, index: Any, embeddings: torch.Tensor, metadata: Any, query_encoder: QueryEncoder
) -> None:
    import faiss

    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"{INDEX_FILE} is not an inner-product index. {REBUILD}")
    expected_and_found = (
        (f"width of CLAP's text tower ({config.clap.name})", config.clap_width, query_encoder.width),
        (f"width of {INDEX_FILE}", config.clap_width, index.d),
        (f"number of vectors in {INDEX_FILE}", config.count, index.ntotal),
        (f"number of rows in {METADATA_FILE}", config.count, metadata.num_rows),
        (f"shape of {EMBEDDINGS_FILE}", (config.count, config.audio_hidden_size), tuple(embeddings.shape)),
        (f"dtype of {EMBEDDINGS_FILE}", torch.float16, embeddings.dtype),
    )
    for what, expected, found in expected_and_found:
        if expected != found:
            raise ValueError(f"{what} is {found}, the knowledge base's config says {expected}. {REBUILD}")


def checked_additions(
    config: KnowledgeBaseConfig, vectors: np.ndarray, embeddings: torch.Tensor, recordings: Sequence[Recording]
) -> tuple[np.ndarray, torch.Tensor]:
    """The CLAP and AST embeddings of recordings to be added, as they are stored: fp32 and fp16.

    Raises:
        ValueError: there are none, a shape does not fit, a number is not finite, or a vector is no unit vector.
    """
    if not recordings:
        raise ValueError("there is no recording to add.")
    vectors = np.asarray(vectors, dtype=np.float32)
    embeddings = embeddings.detach().to("cpu", torch.float16)
    expected_and_found = (
        ("vectors", (len(recordings), config.clap_width), vectors.shape),
        ("embeddings", (len(recordings), config.audio_hidden_size), tuple(embeddings.shape)),
    )
    for what, expected, found in expected_and_found:
        if expected != found:
            raise ValueError(f"`{what}` has to be of shape {expected}, got {found}.")
    finite = np.isfinite(vectors).all(axis=1) & embeddings.isfinite().all(dim=1).numpy()
    if not finite.all():
        bad = [recording.id for recording, good in zip(recordings, finite, strict=True) if not good]
        raise ValueError(f"the vectors or embeddings of {bad[:5]} are not finite, or too large for fp16.")
    if (np.abs(np.linalg.norm(vectors, axis=1) - 1) > ROUNDING).any():
        raise ValueError("`vectors` have to be unit vectors: normalise CLAP's audio embeddings.")
    return vectors, embeddings


__all__ = ["inner_product_index", "statistics_of"]
