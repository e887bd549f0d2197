"""Where the auditory spans of a sentence are: from texts to characters to tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

Range = tuple[int, int]  # start and end, end exclusive


def find_spans(sentence: str, spans: Sequence[str], mask: str) -> list[Range | None]:
    """
    The characters of `sentence` that each span is, by its exact text without regard to case.

    White space around a span does not count. Where a span occurs more than once, it is its first occurrence as whole
    words, or else its first occurrence. No occurrence overlaps a mask or that of another span: the longest span
    chooses first, spans of equal length in their order. So "Bass" is not found inside of "octobass" where both are
    spans, and the same span given twice is two occurrences.

    Args:
        sentence: any text.
        spans: texts, possibly empty or no part of the sentence.
        mask: the mask token in `sentence`.

    Returns:
        For each span its `(start, end)`, or None if it is empty or nowhere in the sentence.
    """
    taken = [match.span() for match in re.finditer(re.escape(mask), sentence)]
    found: list[Range | None] = [None] * len(spans)
    for index in sorted(range(len(spans)), key=lambda index: -len(spans[index].strip())):
        free = [range_ for range_ in _occurrences(sentence, spans[index].strip()) if not _overlaps(range_, taken)]
        if free:
            whole = [range_ for range_ in free if _is_whole_words(sentence, *range_)]
            chosen = (whole or free)[0]
            found[index] = chosen
            taken.append(chosen)
    return found


def align_spans(
    sentence: str, spans: Sequence[str], offsets: Sequence[Range], mask: str = "[MASK]"
) -> list[Range | None]:
    """
    The tokens of `sentence` that each span is, special tokens counted.

    A token that a span covers in part belongs to it ("hum" in "humming" is the token "humming"); a span that
    truncation cut keeps the tokens that are left. No token belongs to two spans.

    Args:
        sentence: the text as it was given to the tokenizer.
        spans: as in `find_spans`.
        offsets: the tokenizer's `offset_mapping` of the sentence; `(0, 0)` for special tokens.
        mask: the mask token in `sentence`.

    Returns:
        For each span the token indices `(start, end)`, end exclusive, or None if it could not be aligned.
    """
    aligned: list[Range | None] = []
    taken: list[Range] = []
    for characters in find_spans(sentence, spans, mask):
        tokens = None if characters is None else _tokens_of(characters, offsets)
        if tokens is None or _overlaps(tokens, taken):
            aligned.append(None)
        else:
            aligned.append(tokens)
            taken.append(tokens)
    return aligned


def _occurrences(text: str, span: str) -> Iterator[Range]:
    # Folding the case can change the length ("ß" to "ss"), so each folded character keeps its place in the text.
    folded, places = [], []
    for place, character in enumerate(text):
        for part in character.casefold():
            folded.append(part)
            places.append(place)
    places.append(len(text))
    haystack, needle = "".join(folded), span.casefold()
    start = haystack.find(needle) if needle else -1
    while start >= 0:
        end = start + len(needle)
        # No match begins or ends in the middle of a character ("s" is not in "ß").
        if (start == 0 or places[start - 1] != places[start]) and places[end - 1] != places[end]:
            yield places[start], places[end]
        start = haystack.find(needle, start + 1)


def _is_whole_words(text: str, start: int, end: int) -> bool:
    cut_before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    cut_after = end < len(text) and text[end - 1].isalnum() and text[end].isalnum()
    return not (cut_before or cut_after)


def _tokens_of(characters: Range, offsets: Sequence[Range]) -> Range | None:
    inside = [i for i, token in enumerate(offsets) if token[0] < token[1] and _overlaps(token, [characters])]
    return (inside[0], inside[-1] + 1) if inside else None


def _overlaps(range_: Range, others: Sequence[Range]) -> bool:
    return any(range_[0] < end and start < range_[1] for start, end in others)
