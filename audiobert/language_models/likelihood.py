"""How probable a causal language model finds sentences that differ in one place, which share their beginning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..data.auditorybench import MASK
from .causal import refuse_other_models, refuse_too_long, text_ids
from .modes import in_evaluation_mode
from .numbers import refuse_no_numbers

_IGNORED = -100
# The argument and the output that hold keys and values of attention, as they are called from transformers 5.24 on, and
# as they were before.
_CACHE_NAMES = ("cache", "past_key_values")


@dataclass(frozen=True)
class Blank:
    """A sentence with `[MASK]`, the answers to compare there, and the text that stands before and after it."""

    sentence: str
    answers: Sequence[str]
    head: str = ""
    tail: str = ""

    @property
    def beginning(self) -> str:
        """What is the same for all answers, without the space before the answer, which tokenizers join to it."""
        return (self.head + self.sentence[: self.sentence.index(MASK)]).rstrip()

    @property
    def texts(self) -> list[str]:
        return [f"{self.head}{filled_sentence(self.sentence, answer)}{self.tail}" for answer in self.answers]


@dataclass(frozen=True)
class _Text:
    """A text, what is read of it, and the place there of the first token that counts."""

    written: str
    ids: list[int]
    start: int


@dataclass(frozen=True)
class _Shared:
    """What the model remembers of the beginning of several texts, and the argument by which it takes that."""

    name: str
    cache: DynamicCache


@dataclass(frozen=True)
class Likelihood:
    """
    Of a text with one of the answers.

    Attributes:
        total: the natural logarithm of its probability, less that of the beginning, which all answers share.
        tokens: how many tokens that is the sum of: those of the answer and all that follow.
    """

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """`total` per token."""
        return self.total / self.tokens


def filled_sentence(sentence: str, answer: str) -> str:
    """The sentence with the answer at each `[MASK]`, its first letter a capital where it begins the sentence."""
    if sentence.startswith(MASK):
        sentence = answer[:1].upper() + answer[1:] + sentence[len(MASK) :]
    return sentence.replace(MASK, answer)


@torch.no_grad()
def likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blanks: Sequence[Blank],
    *,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[Likelihood]]:
    """
    The likelihoods of the answers to each blank, in their order.

    Every text begins with the tokenizer's token for the beginning of a text, or, where it has none (Qwen), with the one
    for the end of a text, as between documents in training; so the first word has a probability too. A token for the
    end that the tokenizer puts behind a text is left out. Padding is on the right and needs no token of the tokenizer.

    More answers than go into a batch share the computation of what stands before them, if the model keeps keys and
    values of attention, with a sliding window or not; otherwise texts of like length share a batch.

    Args:
        model: a causal language model, on any device, in any mode.
        tokenizer: the model's.
        blanks: the places to fill.
        batch_size: texts per batch.
        advance: called with the number of blanks that are done.

    Raises:
        ValueError: the model is no causal language model, a text is longer than its context, the tokenizer has neither
            of the two tokens or makes no token of an answer, or a logit is not a number.
    """
    refuse_other_models(model)
    _refuse_unwritable(tokenizer, blanks)
    results: list[list[Likelihood]] = [[] for _ in blanks]
    loose: list[_Text] = []
    owners: list[int] = []
    with in_evaluation_mode(model):
        for number, blank in enumerate(blanks):
            texts = _encoded(model, tokenizer, blank)
            start = texts[0].start if texts else 0
            shared = _shared_cache(model, texts[0].ids[: start - 1]) if len(texts) > batch_size and start > 1 else None
            if shared is None:
                loose += texts
                owners += [number] * len(texts)
            else:
                # The last shared token goes with each text: its output tells the probability of the next.
                ends = [_Text(text.written, text.ids[start - 1 :], 1) for text in texts]
                results[number] = _scored(model, ends, batch_size, shared)
                advance(1)
        for number, likelihood in zip(owners, _scored(model, loose, batch_size), strict=True):
            results[number].append(likelihood)
        advance(len(set(owners)))
    return results


def _refuse_unwritable(tokenizer: PreTrainedTokenizerBase, blanks: Sequence[Blank]) -> None:
    answers = sorted({answer for blank in blanks for answer in blank.answers})
    # The tokenizer takes no empty batch.
    pieces = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    for answer, ids in zip(answers, pieces, strict=True):
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(f"The tokenizer cannot write the answer {answer!r}: it lacks some of its characters.")


def _encoded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, blank: Blank) -> list[_Text]:
    """The texts with each answer; what counts begins behind the tokens that all share with the beginning."""
    texts = blank.texts
    beginning, *rows = text_ids(tokenizer, [blank.beginning, *texts])
    longest = max(range(len(rows)), key=lambda index: len(rows[index]))
    refuse_too_long(model, len(rows[longest]), texts[longest])
    start = 0
    while start < len(beginning) and all(start < len(row) - 1 and row[start] == beginning[start] for row in rows):
        start += 1
    return [_Text(text, ids, start) for text, ids in zip(texts, rows, strict=True)]


def _cache_name(model: PreTrainedModel) -> str | None:
    """Which of `_CACHE_NAMES` the model takes; None if it takes neither."""
    taken = signature(model.forward).parameters
    return next((name for name in _CACHE_NAMES if name in taken), None)


def _shared_cache(model: PreTrainedModel, ids: list[int]) -> _Shared | None:
    """What the model remembers of the tokens, None if that cannot be copied for several texts (recurrent models)."""
    name = _cache_name(model)
    if name is None:
        return None
    output = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True)
    cache = getattr(output, name, None)
    if not isinstance(cache, DynamicCache):
        return None
    # Not their subclasses, which keep other states besides.
    copies = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    return _Shared(name, cache) if copies else None


def _scored(
    model: PreTrainedModel, texts: list[_Text], batch_size: int, shared: _Shared | None = None
) -> list[Likelihood]:
    scored: dict[int, Likelihood] = {}
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index].ids))
    for first in range(0, len(texts), batch_size):
        chosen = by_length[first : first + batch_size]
        scored.update(zip(chosen, _scored_batch(model, [texts[index] for index in chosen], shared), strict=True))
    return [scored[index] for index in range(len(texts))]


def _scored_batch(model: PreTrainedModel, texts: list[_Text], shared: _Shared | None) -> list[Likelihood]:
    known = 0 if shared is None else shared.cache.get_seq_length()
    width = max(len(text.ids) for text in texts)
    # What stands in the padding is never looked at, as it lies behind all that counts.
    input_ids = torch.zeros(len(texts), width, dtype=torch.long)
    labels = torch.full((len(texts), width), _IGNORED)
    attention_mask = torch.zeros(len(texts), known + width, dtype=torch.long)
    for row, text in enumerate(texts):
        input_ids[row, : len(text.ids)] = torch.tensor(text.ids)
        labels[row, text.start : len(text.ids)] = torch.tensor(text.ids[text.start :])
        attention_mask[row, : known + len(text.ids)] = 1
    before = {}
    if shared is not None:
        before[shared.name] = copy.deepcopy(shared.cache)
        before[shared.name].batch_repeat_interleave(len(texts))
    output = model(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        use_cache=shared is not None,
        **before,
    )

    # Only what counts in single precision: the vocabulary is large.
    counted = labels[:, 1:] != _IGNORED
    logits = output.logits[:, :-1][counted.to(output.logits.device)].float()
    owners = counted.nonzero()[:, 0]
    refuse_no_numbers(model, logits, lambda place: texts[int(owners[place])].written)
    losses = torch.zeros(counted.shape)
    losses[counted] = cross_entropy(logits, labels[:, 1:][counted].to(logits.device), reduction="none").cpu()
    totals = (-losses.double().sum(1)).tolist()
    return [Likelihood(total, tokens) for total, tokens in zip(totals, counted.sum(1).tolist(), strict=True)]
