"""What the runs of a reproduction have found, and what that says: every accuracy, interval and test, computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..benchmark.dataset.statistics import Statistics
from ..benchmark.people.human_evaluation import HumanEvaluation
from ..evaluation.comparison import Accuracy, AccuracyReport, Comparison, accuracy_report, compare
from ..evaluation.predictions import COMBINED, RowPrediction
from ..evaluation.preservation import FalseAlarms, Preservation
from ..evaluation.sound_swap.figures import SoundSwapReport
from ..evaluation.strata import StrataReport, stratify
from .presets import AUDIOBERT, BERT, LINEAR, MAJORITY, NO_AUDIO, TRAINED_CONTROLS
from .sound_swap import Answered, swap_figures

# Of a p value after Holm's correction.
SIGNIFICANT = 0.05
_ORDER = (MAJORITY, LINEAR, BERT)


# --- what the runs have left -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedAccuracy:
    """The accuracy of one trained model on one task of one split, from 0 to 1."""

    model: str
    seed: int | None
    split: str
    task: str
    accuracy: float


@dataclass(frozen=True)
class Answers:
    """What one trained model, or one that needs no training, answers to dev, test and wiki."""

    model: str
    """A name of Table III (`presets`), or a checkpoint's name."""
    seed: int | None
    """None for what has no seed."""
    rows: list[RowPrediction]
    similarities: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """By (split, row): the mean similarity of the recordings heard in the row; of rows in which one was."""

    @property
    def accuracies(self) -> list[SeedAccuracy]:
        """On each task of each split."""
        right: dict[tuple[str, str], list[bool]] = {}
        for row in self.rows:
            right.setdefault((row.split, row.task), []).append(row.correct)
        return [
            SeedAccuracy(self.model, self.seed, split, task, sum(outcomes) / len(outcomes))
            for (split, task), outcomes in right.items()
        ]


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
        swap: of each run what it answers to the sound swap.
    """

    configuration: Mapping[str, Any]
    statistics: Statistics | None = None
    detectors: Sequence[DetectorScores] = ()
    alarms: Sequence[DetectorAlarms] = ()
    answers: Sequence[Answers] = ()
    preservation: Mapping[int, Preservation] = field(default_factory=dict)
    human: HumanEvaluation | None = None
    train: Sequence[Mapping[str, Any]] = ()
    swap: Sequence[Answered] = ()


# --- what it says ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverSeeds:
    """One figure, measured with several training seeds."""

    seeds: int
    mean: float
    sd: float | None
    """The sample standard deviation; None for one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> OverSeeds:
        """From at least one value."""
        return cls(len(values), float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


@dataclass(frozen=True)
class DetectorFinding:
    """A detector's F1, from 0 to 1, on one task of one split (Table II)."""

    trained_on: str
    split: str
    task: str
    rows: int
    token_f1: OverSeeds
    exact_f1: OverSeeds


@dataclass(frozen=True)
class AlarmFinding:
    """What a detector finds in plain English, where there is nothing to find."""

    trained_on: str
    passages: int
    words: int
    per_1000_words: OverSeeds
    passages_with_alarm: OverSeeds
    """Share of the passages, from 0 to 1."""


@dataclass(frozen=True)
class Findings:
    """
    Attributes:
        models: Table III's, in the order they are shown: those that hear nothing, the controls, AudioBERT.
        seeds: of each model; 0 for one that has none.
        accuracies: None without answers.
        comparisons: AudioBERT with each model that stands beside it; the control without audio first.
        other_sizes: by name, each AudioBERT on another BERT, as "AudioBERT (bert-base)", with its own control without
            audio.
        strata: of AudioBERT and the control without audio; None if there is neither, or no train data.
        detectors, alarms: Table II.
        perplexities: pseudo-perplexity by mode, one of `audiobert.evaluation.preservation.MODES`.
        swap: the sound swap; None if nobody was asked.
    """

    models: tuple[str, ...]
    seeds: Mapping[str, int]
    accuracies: AccuracyReport | None
    comparisons: Mapping[str, Comparison]
    other_sizes: Mapping[str, Comparison]
    strata: StrataReport | None
    detectors: tuple[DetectorFinding, ...]
    alarms: tuple[AlarmFinding, ...]
    perplexities: Mapping[str, OverSeeds]
    swap: SoundSwapReport | None

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Split and task of every column of Table III: by task, each on every split."""
        if self.accuracies is None:
            return []
        parts = self.accuracies.accuracies.values()
        splits = dict.fromkeys(split for by_split in parts for split in by_split)
        known = {(split, task) for by_split in parts for split, by_task in by_split.items() for task in by_task}
        return [(split, task) for task in ("animal", "pitch", COMBINED) for split in splits if (split, task) in known]

    def accuracy(self, model: str, split: str, task: str) -> Accuracy | None:
        """One cell of Table III; None if the model did not answer those rows."""
        return None if self.accuracies is None else self.accuracies.accuracies[model].get(split, {}).get(task)

    def ceiling(self, split: str, task: str) -> float | None:
        """What one answer per sentence can reach at best in a column; None if no model answered its rows."""
        found = (self.accuracy(model, split, task) for model in self.models)
        return next((accuracy.ceiling for accuracy in found if accuracy is not None), None)

    def significant(self, control: str, ahead: bool) -> list[str]:
        """The columns in which AudioBERT is told apart from a control, ahead of it (or else behind)."""
        return significant_columns(self.comparisons[control], ahead)


def significant_columns(comparison: Comparison, ahead: bool) -> list[str]:
    """
    Those, as "animal dev", in which the paired bootstrap over what rows share, after Holm, tells that the audio is
    ahead (or else behind). McNemar's test does not count: it takes rows that share an instrument for independent.
    """
    return [
        f"{column.task} {column.split}"
        for column in comparison.columns
        if column.bootstrap_p_holm <= SIGNIFICANT and (column.difference > 0) == ahead
    ]


def find(results: Results) -> Findings:
    """
    Computes what the report tells.

    Raises:
        ValueError: a model has two results of one seed, or models answered different rows, with their names.
    """
    runs = _runs(results.answers)
    models = _in_order(runs)
    seeds = {model: sum(a.model == model and a.seed is not None for a in results.answers) for model in models}
    heard = {model: runs[model] for model in (AUDIOBERT, NO_AUDIO) if model in runs}
    return Findings(
        models=models,
        seeds=seeds,
        accuracies=accuracy_report({model: runs[model] for model in models}) if runs else None,
        comparisons=_comparisons(runs, models),
        other_sizes=_other_sizes(runs),
        strata=stratify(heard, results.train, _similarities(results.answers)) if heard and results.train else None,
        detectors=_detectors(results.detectors),
        alarms=_alarms(results.alarms),
        perplexities=_perplexities(results.preservation),
        swap=swap_figures(results.swap),
    )


def _runs(answers: Iterable[Answers]) -> dict[str, list[list[RowPrediction]]]:
    by_seed: dict[str, dict[int | None, list[RowPrediction]]] = {}
    for given in answers:
        seeds = by_seed.setdefault(given.model, {})
        if given.seed in seeds:
            raise ValueError(f"There are two results of {given.model} with seed {given.seed}: give each seed once.")
        seeds[given.seed] = given.rows
    return {model: list(seeds.values()) for model, seeds in by_seed.items()}


def _in_order(models: Iterable[str]) -> tuple[str, ...]:
    # Checkpoints under names of their own stand with BERT: they hear nothing either.
    kinds = (*_ORDER, "", *TRAINED_CONTROLS, AUDIOBERT)

    def place(model: str) -> tuple[int, bool]:
        kind, size = _kind_and_size(model)
        return kinds.index(kind if kind in kinds else ""), not size

    return tuple(sorted(models, key=place))


def _kind_and_size(model: str) -> tuple[str, str]:
    """ "AudioBERT (bert-base)" is an AudioBERT on another BERT than that of "AudioBERT"; size "" for the rest."""
    kind, _, size = model.partition(" (")
    return (kind, size.removesuffix(")")) if kind in (BERT, AUDIOBERT, *TRAINED_CONTROLS) else (model, "")


def _comparisons(runs: Mapping[str, list[list[RowPrediction]]], models: Sequence[str]) -> dict[str, Comparison]:
    # The one that says whether audio helped comes first.
    controls = sorted((model for model in models if not _kind_and_size(model)[1]), key=lambda model: model != NO_AUDIO)
    if AUDIOBERT not in runs:
        return {}
    return {control: _compared(runs, AUDIOBERT, control) for control in controls if control != AUDIOBERT}


def _other_sizes(runs: Mapping[str, list[list[RowPrediction]]]) -> dict[str, Comparison]:
    found = {}
    for model in runs:
        kind, size = _kind_and_size(model)
        if kind == AUDIOBERT and size and f"{NO_AUDIO} ({size})" in runs:
            found[model] = _compared(runs, model, f"{NO_AUDIO} ({size})")
    return found


def _compared(runs: Mapping[str, list[list[RowPrediction]]], model: str, control: str) -> Comparison:
    try:
        return compare(runs[model], runs[control])
    except ValueError as error:
        raise ValueError(f"{model} cannot be compared with {control}. {error}") from error


def _similarities(answers: Iterable[Answers]) -> dict[tuple[str, int], float] | None:
    """Of each row in which AudioBERT heard something, the mean over the seeds that did."""
    heard: dict[tuple[str, int], list[float]] = {}
    for given in answers:
        if given.model == AUDIOBERT:
            for row, similarity in given.similarities.items():
                heard.setdefault(row, []).append(similarity)
    return {row: float(np.mean(values)) for row, values in heard.items()} or None


def _detectors(scores: Iterable[DetectorScores]) -> tuple[DetectorFinding, ...]:
    groups: dict[tuple[str, str, str], list[DetectorScores]] = {}
    for score in scores:
        groups.setdefault((score.trained_on, score.split, score.task), []).append(score)
    return tuple(
        DetectorFinding(
            *key,
            rows=group[0].rows,
            token_f1=OverSeeds.of([score.token_f1 for score in group]),
            exact_f1=OverSeeds.of([score.exact_f1 for score in group]),
        )
        for key, group in groups.items()
    )


def _alarms(alarms: Iterable[DetectorAlarms]) -> tuple[AlarmFinding, ...]:
    groups: dict[str, list[DetectorAlarms]] = {}
    for alarm in alarms:
        groups.setdefault(alarm.trained_on, []).append(alarm)
    return tuple(
        AlarmFinding(
            trained_on,
            passages=group[0].alarms.passages,
            words=group[0].alarms.words,
            per_1000_words=OverSeeds.of([one.alarms.per_1000_words for one in group]),
            passages_with_alarm=OverSeeds.of([one.alarms.passages_with_alarm / one.alarms.passages for one in group]),
        )
        for trained_on, group in groups.items()
    )


def _perplexities(preservation: Mapping[int, Preservation]) -> dict[str, OverSeeds]:
    by_mode: dict[str, list[float]] = {}
    for measured in preservation.values():
        for mode, perplexity in measured.pseudo_perplexity.items():
            by_mode.setdefault(mode, []).append(perplexity.value)
    return {mode: OverSeeds.of(values) for mode, values in by_mode.items()}
