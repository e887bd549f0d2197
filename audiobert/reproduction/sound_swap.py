"""The sound swap in a reproduction: as whom each model answers its questions, and under which name it is told of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datasets import Dataset

from ..evaluation.sound_swap.answering import (
    BLIND_CLAP,
    END_TO_END,
    LISTENERS,
    answer_questions,
)
from ..evaluation.sound_swap.answering import (
    OTHER_SPAN as ANOTHER_SPANS,
)
from ..evaluation.sound_swap.answering import (
    RANDOM as RANDOM_RECORDINGS,
)
from ..evaluation.sound_swap.answers import SwapAnswer
from ..evaluation.sound_swap.figures import SoundSwapReport, sound_swap_report
from ..evaluation.sound_swap.questions import SoundSwap
from ..evaluation.sound_swap.without_hearing import linear_answers, majority_answers
from ..hearing import tokenizer_of
from ..modeling import AudioBertForMaskedLM
from .presets import AUDIOBERT, BLIND, LINEAR, MAJORITY, NO_AUDIO, OTHER_SPAN, RANDOM

SWAP_FILE = "sound_swap.jsonl"

TRAINED_WITHOUT_AUDIO = "trained without audio"
TRAINED_ON_RANDOM = "trained on random recordings"
TRAINED_ON_BLIND = "trained on blind CLAP"
# The controls of Table III that are asked: what each is told of as, and the listener that it was trained as. (That
# without audio is asked the sentences, whoever listens.) What an oracle or labels as text are, no question says.
_TRAINED = {
    NO_AUDIO: (TRAINED_WITHOUT_AUDIO, END_TO_END),
    RANDOM: (TRAINED_ON_RANDOM, RANDOM_RECORDINGS),
    OTHER_SPAN: ("trained on another span's", ANOTHER_SPANS),
    BLIND: (TRAINED_ON_BLIND, BLIND_CLAP),
}
_ORDER = (*LISTENERS, *(name for name, _ in _TRAINED.values()), LINEAR, MAJORITY)

Answered = Mapping[str, Sequence[SwapAnswer]]
"""By the name in the table, what is answered to all questions."""


def text_only_answers(what: str, swap: SoundSwap, train: Dataset) -> dict[str, list[SwapAnswer]]:
    """What a control without a language model answers."""
    return {what: majority_answers(swap) if what == MAJORITY else linear_answers(swap, train)}


def trained_answers(what: str, model: AudioBertForMaskedLM, swap: SoundSwap, seed: int) -> dict[str, list[SwapAnswer]]:
    """What a model answers that was trained as AudioBERT or as one of its controls; nothing where that is not asked."""
    if what == AUDIOBERT:
        return answer_questions(model, tokenizer_of(model), swap, seed=seed)
    if what not in _TRAINED:
        return {}
    name, listener = _TRAINED[what]
    (answers,) = answer_questions(model, tokenizer_of(model), swap, listeners=(listener,), seed=seed).values()
    return {name: answers}


def swap_figures(runs: Iterable[Answered]) -> SoundSwapReport | None:
    """The figures over all seeds, AudioBERT first; None if nobody was asked."""
    by_name: dict[str, list[Sequence[SwapAnswer]]] = {}
    for answered in runs:
        for name, answers in answered.items():
            by_name.setdefault(name, []).append(answers)
    if not by_name:
        return None
    return sound_swap_report({name: by_name[name] for name in sorted(by_name, key=_ORDER.index)})
