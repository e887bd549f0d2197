"""What a reproduction trains and evaluates, and with which values: the paper's, or those that two cores can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

# Stands for the checkpoint that comes with the package.
BUNDLED = "bundled"

# The models of Table III, with the controls that stand beside every result with audio.
MAJORITY = "majority answer"
LINEAR = "linear text-only"
BERT = "BERT"
AUDIOBERT = "AudioBERT"
NO_AUDIO = "no audio"
RANDOM = "random recording"
OTHER_SPAN = "another span's recording"
# In the place of the sound what CLAP makes of the query: is it the recording that helps, or the text tower?
BLIND = "blind CLAP"
LABEL_AS_TEXT = "label as text"
ORACLE = "oracle retrieval"
# Trained as AudioBERT is, in everything but what they hear.
TRAINED_CONTROLS = (NO_AUDIO, RANDOM, OTHER_SPAN, BLIND, LABEL_AS_TEXT, ORACLE)

# What the detectors of Table II are trained on, and the tasks of each.
GROUPS = {"animal": ("animal",), "pitch": ("pitch",), "both": ("animal", "pitch")}


@dataclass(frozen=True)
class Recipe:
    """The values of one training; all else is the recipe's own (`audiobert.training`)."""

    epochs: float
    batch_size: int
    """Rows per step, over all devices together."""
    learning_rate: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Baseline:
    """A model of Table III that is evaluated as it is."""

    name: str
    checkpoint: str
    kind: Literal["masked", "causal"]


@dataclass(frozen=True)
class Preset:
    """
    Attributes:
        name: paper or mini.
        berts: checkpoints that AudioBERT is built on; controls and Table II are of the last one, of the others only
            AudioBERT and the same without audio. Either BERTs, or AudioBERTs whose parts are used.
        ast: the audio encoder that goes with a BERT; with an AudioBERT its own is used.
        knowledge_base: likewise; to be built with `audiobert build-knowledge-base` where None.
        baselines: other models of Table III.
        detector, adapter: the trainings of the span detector, and of LoRA with the map from audio to text.
        audio: whether the audio encoder is trained, or its embeddings cached.
        variants: whether a variant of each train row is trained on too (`audiobert.data.variants`).
        silence: whether the detector also learns from plain text, in which nothing is to be heard.
        config: fields of `AudioBertConfig` that are neither its defaults nor those of the AudioBERT that is begun with.
        listen: share of the rows that the adapter is trained on which are made of the knowledge base, under invented
            names (`audiobert.listening`); what is held out of them comes with the main BERT, as `held_out.json`.
        detector_listen: likewise of the detector of both tasks.
        vary_recordings: whether a random part of a span's recordings is heard each time.
        audio_dropout: share of the benchmark's rows in which nothing is heard.
        sound_swap: whether the models answer the questions of `audiobert.evaluation.sound_swap` too, which come with
            the main BERT, in its folder `sound_swap`.
    """

    name: str
    berts: tuple[str, ...]
    ast: str | None
    knowledge_base: str | None
    baselines: tuple[Baseline, ...]
    detector: Recipe
    adapter: Recipe
    audio: Literal["cached", "trained"]
    variants: bool
    silence: bool
    config: Mapping[str, Any] = field(default_factory=dict)
    listen: float = 0.0
    detector_listen: float = 0.0
    vary_recordings: bool = False
    audio_dropout: float = 0.0
    sound_swap: bool = False


@dataclass(frozen=True)
class Cut:
    """
    How little a try does of everything, to see in minutes whether all works; its figures mean nothing.

    Attributes:
        max_steps: of each training.
        rows: of each task in each split, to train on and to evaluate, and questions of each part of the sound swap: the
            first of a shuffle that is always the same.
        passages: of plain English, to learn silence from and to measure on, drawn likewise.
        perplexity_passages: those of them whose every token is predicted.
    """

    max_steps: int
    rows: int = 32
    passages: int = 16
    perplexity_passages: int = 2


PAPER = Preset(
    name="paper",
    berts=("google-bert/bert-base-uncased", "google-bert/bert-large-uncased"),
    ast="MIT/ast-finetuned-audioset-10-10-0.4593",
    knowledge_base=None,
    baselines=(
        Baseline("BERT-base", "google-bert/bert-base-uncased", "masked"),
        Baseline("BERT-large", "google-bert/bert-large-uncased", "masked"),
        Baseline("RoBERTa-base", "FacebookAI/roberta-base", "masked"),
        Baseline("RoBERTa-large", "FacebookAI/roberta-large", "masked"),
        Baseline("Gemma2-2B", "google/gemma-2-2b", "causal"),
        Baseline("LLaMA3.1-8B", "meta-llama/Llama-3.1-8B", "causal"),
    ),
    # The paper's detector is a BERT-base of its own, at 1e-5; ours is a head on a BERT that stays as it is.
    detector=Recipe(epochs=5, batch_size=16, learning_rate=1e-3),
    adapter=Recipe(epochs=20, batch_size=32, learning_rate=3e-4),
    audio="trained",
    variants=False,
    silence=False,
)
MINI = Preset(
    name="mini",
    berts=(BUNDLED,),
    ast=None,
    knowledge_base=None,
    baselines=(),
    detector=Recipe(epochs=4, batch_size=48, learning_rate=1.5e-3, weight_decay=0.01),
    adapter=Recipe(epochs=5, batch_size=32, learning_rate=5e-4, weight_decay=0.01),
    audio="cached",
    variants=True,
    silence=True,
    config={
        "detector_hidden_size": 128,
        "detector_num_layers": 2,
        "standardize_audio": True,
        "retrieval_top_k": 4,
        "retrieval_temperature": 0.05,
        "retrieval_min_similarity": 0.5,
    },
    listen=0.5,
    detector_listen=0.25,
    vary_recordings=True,
    audio_dropout=0.1,
    sound_swap=True,
)
PRESETS = {preset.name: preset for preset in (PAPER, MINI)}


def with_local_copies(
    preset: Preset, berts: Sequence[str] = (), ast: str | None = None, knowledge_base: str | None = None
) -> Preset:
    """
    The preset with other checkpoints in the places of its own.

    Args:
        preset: as it is published.
        berts: in the place of all of its BERTs; where there are as many as it has, baselines of the same BERTs take
            them too.
        ast, knowledge_base: a folder or a Hub id.

    Raises:
        ValueError: there is no knowledge base, or an option would do nothing.
    """
    baselines = preset.baselines
    if len(berts) == len(preset.berts):
        copies = dict(zip(preset.berts, berts, strict=True))
        baselines = tuple(replace(each, checkpoint=copies.get(each.checkpoint, each.checkpoint)) for each in baselines)
    chosen = replace(
        preset,
        berts=tuple(berts) or preset.berts,
        ast=ast or preset.ast,
        knowledge_base=knowledge_base or preset.knowledge_base,
        baselines=baselines,
    )
    if ast is not None and chosen.berts == (BUNDLED,):
        raise ValueError("--ast means nothing without --bert: the bundled checkpoint has an audio encoder of its own.")
    if chosen.knowledge_base is None and preset.ast is not None:
        raise ValueError(
            f"Preset {preset.name} needs --knowledge-base: build one with `audiobert build-knowledge-base`."
        )
    return chosen
