"""How the answer of a sentence is masked, for the tokenizer of any family of masked language models."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .alignment import Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What stands for the answer in a sentence of the data, whatever the tokenizer's own mask token is.
MASK = "[MASK]"

# Tokenizers that know no limit of their model state one beyond this.
_NO_LIMIT = 10**6


def check_mask_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ValueError: if the tokenizer has no mask token, or gives no offsets.
    """
    if tokenizer.mask_token is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no mask token, so this is no masked language model. A causal language "
            "model is scored by `audiobert.evaluation.causal.predict_causal`."
        )
    if not tokenizer.is_fast:
        raise ValueError(f"The tokenizer must be a fast one, which knows where tokens are; got {type(tokenizer)}.")


@dataclass(frozen=True)
class MaskedSentence:
    """
    A sentence whose answer is masked.

    Attributes:
        inputs: what the model takes, by name: an int per token.
        pieces: the answer's token ids by the indices of their masks; empty if truncation cut one of them.
        offsets: for each token its characters in the sentence as it was given, `[MASK]` included; `(0, 0)` for special
            tokens.
    """

    inputs: dict[str, list[int]]
    pieces: dict[int, int]
    offsets: list[Range]


def mask_answers(
    sentences: Sequence[str], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> list[MaskedSentence]:
    """
    Tokenizes each sentence with its answer in the place of `[MASK]`, then masks the answer's tokens.

    So the masks are as many as the tokens that the answer has in this place of this sentence, a leading space counted
    as the tokenizer does ("Ġcat", "▁cat", or a "▁" of its own), and all other tokens are those of the finished text.
    Where the answer is a part of a word ("[MASK]s"), or one token holds the answer and more, the pieces are those of
    the answer as a word of its own, and the masks are written into the text.

    Args:
        sentences: texts with `[MASK]`; the answer stands at each, if there are several.
        answers: as many texts.
        tokenizer: a fast tokenizer with a mask token.
        max_length: tokens at which a sentence is cut, if the tokenizer's `model_max_length` is not less.

    Raises:
        ValueError: for a tokenizer that is not fast or has no mask token, or an answer of which it makes no token.
    """
    check_mask_token(tokenizer)
    limit = min(max_length or _NO_LIMIT, tokenizer.model_max_length)
    limit = {"truncation": True, "max_length": limit} if limit < _NO_LIMIT else {}
    written = [
        _with_masks(sentence, answer, tokenizer) if _is_part_of_word(sentence) else _with_answer(sentence, answer)
        for sentence, answer in zip(sentences, answers, strict=True)
    ]
    masked = _encode(written, tokenizer, limit)
    if joined := [index for index, value in enumerate(masked) if value is None]:
        rewritten = [_with_masks(sentences[index], answers[index], tokenizer) for index in joined]
        for index, value in zip(joined, _encode(rewritten, tokenizer, limit), strict=True):
            masked[index] = value
    # No token holds more than masks that are written into the text.
    return [value for value in masked if value is not None]


@dataclass(frozen=True)
class _Written:
    """A sentence with something in the place of `[MASK]`, at `places`: `pieces` masks, or (None) the answer itself."""

    text: str
    places: list[Range]
    answer: str
    pieces: list[int] | None


def _is_part_of_word(sentence: str) -> bool:
    mask = re.escape(MASK)
    return re.search(rf"\w{mask}|{mask}\w", sentence) is not None


def _with_answer(sentence: str, answer: str) -> _Written:
    return _Written(*_replaced(sentence, answer), answer, None)


def _with_masks(sentence: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> _Written:
    space = " " if f" {MASK}" in sentence else ""
    pieces = tokenizer(space + answer, add_special_tokens=False)["input_ids"]
    return _Written(*_replaced(sentence, tokenizer.mask_token * len(pieces)), answer, pieces)


def _replaced(sentence: str, text: str) -> tuple[str, list[Range]]:
    first, *rest = sentence.split(MASK)
    places = []
    for part in rest:
        places.append((len(first), len(first) + len(text)))
        first += text + part
    return first, places


def _encode(
    written: Sequence[_Written], tokenizer: PreTrainedTokenizerBase, limit: dict[str, Any]
) -> list[MaskedSentence | None]:
    # The tokenizer takes no empty batch.
    encoded: Any = tokenizer([sentence.text for sentence in written], **limit) if written else {}
    return [
        _masked(
            sentence,
            encoded.encodings[row],
            {name: list(encoded[name][row]) for name in tokenizer.model_input_names},
            tokenizer.mask_token_id,
        )
        for row, sentence in enumerate(written)
    ]


def _masked(sentence: _Written, encoding: Any, inputs: dict[str, list[int]], mask: int) -> MaskedSentence | None:
    """None if a token holds the answer and more."""
    answers = [_tokens_at(place, encoding, sentence.text) for place in sentence.places]
    lost = [_tokens_at(place, rest, sentence.text) for place in sentence.places for rest in encoding.overflowing]
    if sentence.places and (sentence.pieces == [] or not any(answers + lost)):
        raise ValueError(f"The tokenizer makes no word piece of the answer {sentence.answer!r}.")
    if sentence.pieces is None and any(
        _holds_more(encoding.offsets[token], place, sentence.text)
        for place, tokens in zip(sentence.places, answers, strict=True)
        for token in tokens
    ):
        return None
    pieces: dict[int, int] = {}
    offsets = _offsets_in_sentence(encoding.offsets, sentence.places)
    for number, tokens in enumerate(answers):
        if sentence.pieces is not None:
            tokens = [token for token in tokens if encoding.ids[token] == mask]
            pieces.update(zip(tokens, sentence.pieces, strict=False))
        else:
            pieces.update((token, encoding.ids[token]) for token in tokens)
        for token in tokens:
            inputs["input_ids"][token] = mask
            start = sentence.places[number][0] - number * _growth(sentence.places)
            offsets[token] = (start, start + len(MASK))
    # An answer of which a part was cut off can neither be learnt nor be right.
    return MaskedSentence(inputs, {} if any(lost) else pieces, offsets)


def _tokens_at(place: Range, encoding: Any, text: str) -> list[int]:
    """The tokens of these characters, with one before them that is only their leading space (a lone "Ġ" or "▁")."""
    start, end = place
    found = []
    for token, (first, last) in enumerate(encoding.offsets):
        inside = first < end and last > start
        leads = last == start and not text[first:last].strip()
        if (inside or leads) and not encoding.special_tokens_mask[token]:
            found.append(token)
    return found


def _holds_more(token: Range, place: Range, text: str) -> bool:
    return bool(text[token[0] : place[0]].strip() or text[place[1] : token[1]].strip())


def _growth(places: Sequence[Range]) -> int:
    """By how much a place is longer than the `[MASK]` that it took."""
    return places[0][1] - places[0][0] - len(MASK) if places else 0


def _offsets_in_sentence(offsets: Sequence[Range], places: Sequence[Range]) -> list[Range]:
    growth, ends = _growth(places), [end for _, end in places]

    def before(character: int) -> int:
        return character - growth * bisect_right(ends, character)

    return [(before(first), before(last)) if last else (first, last) for first, last in offsets]
