"""What rows of AuditoryBench share with each other, by which they are drawn for an interval."""

from __future__ import annotations

from collections.abc import Iterable

from ..benchmark.dataset.splitting import normalise_sentence
from .predictions import RowPrediction

# What intervals are over, wherever they are shown.
OVER_CLUSTERS = (
    "95 % intervals by bootstrap over instruments (pitch: both sounds of a pair) and over onomatopoeia (animals), "
    "not over rows; a row without spans stands for itself."
)


def clusters_of(rows: Iterable[RowPrediction]) -> list[tuple[tuple[str, str], ...]]:
    """
    What each row shares with others of its task, as `bootstrap_interval` takes it: the texts of its spans. These are
    both instruments of a pair, the onomatopoeia of an animal, and of other tasks whatever is auditory. Texts are the
    same if their words are, whatever their case and punctuation (`normalise_sentence`).

    Returns:
        For each row (task, text) of its distinct spans; nothing for a row without a span that holds a word, which is a
        cluster of its own.
    """
    shared = []
    for row in rows:
        texts = dict.fromkeys(map(normalise_sentence, row.spans))
        shared.append(tuple((row.task, text) for text in texts if text))
    return shared
