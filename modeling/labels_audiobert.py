"""Recordings found by name: one CLAP text vector for each distinct label of a knowledge base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .knowledge_files_audiobert import LABEL_VECTORS_FILE, REBUILD, read_tensors, write_tensors


def spoken(label: str) -> str:
    """A label as it is said: data sets write words with underscores between them."""
    return " ".join(label.replace("_", " ").split())


def cosines_of(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosine of each of some unit vectors, fp32 (count, width), to a query, (width,): fp64 of shape (count,).

    Not by a product of matrices, in which the cosines of equal vectors may differ in the last bit: what is equally near
    stays in its order.
    """
    return np.asarray((vectors * query).sum(axis=1, dtype=np.float64))


class LabelVectors:
    """The vectors of the distinct labels of recordings, in the order in which the labels first come.

    Args:
        labels: the label of each recording, in the order of the rows. Labels that are said alike are one.
        vectors: fp32 (distinct labels, clap_width), unit vectors.

    Raises:
        ValueError: there are not as many vectors as distinct labels, or one is not finite.
    """

    def __init__(self, labels: Sequence[str], vectors: np.ndarray) -> None:
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            rows.setdefault(spoken(label), []).append(row)
        if vectors.ndim != 2 or len(vectors) != len(rows):
            raise ValueError(
                f"{LABEL_VECTORS_FILE} is of shape {vectors.shape}, the recordings have {len(rows)} labels. {REBUILD}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"{LABEL_VECTORS_FILE} holds numbers that are not finite. {REBUILD}")
        self.labels = tuple(rows)
        self.rows = tuple(tuple(members) for members in rows.values())
        self.vectors = vectors

    @classmethod
    def made_by(
        cls, encode: Callable[[str], np.ndarray], labels: Sequence[str], known: LabelVectors | None = None
    ) -> LabelVectors:
        """The vectors of labels, those of `known` taken over; `encode` gives fp32 (1, clap_width) for a text."""
        there = {} if known is None else dict(zip(known.labels, known.vectors, strict=True))
        distinct = dict.fromkeys(spoken(label) for label in labels)
        vectors = [there[label] if label in there else encode(label)[0] for label in distinct]
        return cls(labels, np.stack(vectors).astype(np.float32))

    @classmethod
    def load(cls, folder: Path, metadata: Any) -> LabelVectors:
        """Reads those of a knowledge base; `metadata` is its table of recordings."""
        vectors = read_tensors(folder / LABEL_VECTORS_FILE, "label_vectors")["label_vectors"]
        return cls(metadata.column("label").to_pylist(), vectors.float().numpy().copy())

    def save(self, folder: Path) -> None:
        write_tensors({"label_vectors": torch.from_numpy(self.vectors)}, folder / LABEL_VECTORS_FILE)

    def nearest(self, query: np.ndarray) -> tuple[float, tuple[int, ...]]:
        """The cosine of the label nearest to `query`, fp32 (clap_width,), and the rows with that label.

        Of labels that are equally near it is the one that comes first.
        """
        cosines = cosines_of(self.vectors, query)
        best = int(cosines.argmax())
        return float(cosines[best]), self.rows[best]


__all__ = ["LabelVectors", "cosines_of", "spoken"]
