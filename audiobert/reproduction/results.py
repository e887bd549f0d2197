"""What the runs of a reproduction have found, together: all that its report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..benchmark.dataset.statistics import Statistics
from ..benchmark.people.human_evaluation import HumanEvaluation
from ..evaluation.predictions import RowPrediction
from ..evaluation.preservation import FalseAlarms, Preservation

# The models of Table III, with the controls that stand beside every result with audio.
MAJORITY = "majority answer"
LINEAR = "linear text-only"
BERT = "BERT"
AUDIOBERT = "AudioBERT"
NO_AUDIO = "no audio"
RANDOM = "random recording"
OTHER_SPAN = "another span's recording"
LABEL_TEXT = "label as text"
ORACLE = "oracle retrieval"
# Trained as AudioBERT is, in everything but what they hear.
TRAINED_CONTROLS = (NO_AUDIO, RANDOM, OTHER_SPAN, LABEL_TEXT, ORACLE)


@dataclass(frozen=True)
class Answers:
    """What one trained model, or one that needs no training, answers to dev, test and wiki."""

    model: str
    """One of the names above, or a checkpoint's name."""
    seed: int | None
    """None for what has no seed."""
    rows: list[RowPrediction]
    similarities: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """By (split, row): the mean similarity of the recordings heard in the row; of rows in which one was."""


@dataclass(frozen=True)
class DetectorScores:
    """One detector on one task of one split; shares from 0 to 1."""

    trained_on: str
    """animal, pitch or both."""
    seed: int
    split: str
    task: str
    """animal, pitch, or combined."""
    rows: int
    token_f1: float
    """Of the span class, over rows all of whose spans are in their sentence."""
    exact_f1: float


@dataclass(frozen=True)
class DetectorAlarms:
    """One detector on plain English."""

    trained_on: str
    seed: int
    alarms: FalseAlarms


@dataclass(frozen=True)
class Results:
    """
    Attributes:
        configuration: what the results depend on, as `configuration.json` has it.
        statistics: Table I.
        detectors, alarms: Table II.
        answers: Table III and its controls.
        preservation: by seed of AudioBERT.
        human: Table IV; None if no sheets were filled in.
        train: rows of split train, which strata are told apart by.
    """

    configuration: Mapping[str, Any]
    statistics: Statistics | None = None
    detectors: Sequence[DetectorScores] = ()
    alarms: Sequence[DetectorAlarms] = ()
    answers: Sequence[Answers] = ()
    preservation: Mapping[int, Preservation] = field(default_factory=dict)
    human: HumanEvaluation | None = None
    train: Sequence[Mapping[str, Any]] = ()
