from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audiobert.data.alignment import align_spans, find_spans

from text_fixtures import tiny_tokenizer

MASK = "[MASK]"


def found(sentence: str, *spans: str) -> list[str | None]:
    return [None if range_ is None else sentence[slice(*range_)] for range_ in find_spans(sentence, spans, MASK)]


@pytest.mark.parametrize(
    ("sentence", "span", "start"),
    [
        ("Meow is the sound a [MASK] makes.", "meow", 0),
        ("meow is the sound a [MASK] makes.", " MEOW\n", 0),
        ("The [MASK] buzzing is called a buzz.", "buzz", 31),  # whole words first
        ("The [MASK] hums and hums.", "hum", 11),  # else the first occurrence
        ("A bark, a bark of a [MASK].", "bark", 2),
        ("A [MASK] with a mask.", "mask", 16),  # not in the mask itself
        ("STRASSE of [MASK]", "straße", 0),  # lower-casing that changes the length
        ("İstanbul traffic [MASK]", "TRAFFIC", 9),
        ("ﬁre [MASK]", "FIRE", 0),
        ("a [MASK] says ΟΔΟΣ", "οδος", 14),
    ],
)
def test_a_span_is_found(sentence, span, start):
    (range_,) = find_spans(sentence, [span], MASK)
    assert range_[0] == start
    assert sentence[slice(*range_)].casefold() == span.strip().casefold()


@pytest.mark.parametrize("span", ["", "  ", "bark", MASK, "[mask]", "a [MASK]", "mas", "s", "eow is the sound aa"])
def test_a_span_that_is_not_there_is_none(span):
    assert found("Meow ß: a [MASK].", span) == [None]


def test_two_spans_take_occurrences_of_their_own():
    assert find_spans("Rain is [MASK] than rain.", ["rain", "rain"], MASK) == [(0, 4), (20, 24)]
    assert find_spans("Rain is [MASK].", ["rain", "rain"], MASK) == [(0, 4), None]
    # One inside of the other, in either order.
    sentence = "The octobass is [MASK] than the Bass, or a bass drum."
    assert found(sentence, "bass", "octobass") == ["Bass", "octobass"]
    assert found(sentence, "octobass", "bass") == ["octobass", "Bass"]
    assert find_spans(sentence, ["bass", "bass drum"], MASK) == [(32, 36), (43, 52)]
    assert found("Octobass is [MASK].", "bass", "octobass") == [None, "Octobass"]


tokenizer = tiny_tokenizer()


def aligned(sentence: str, *spans: str, **limit) -> list[list[str] | None]:
    encoded = tokenizer(sentence, return_offsets_mapping=True, **limit)
    tokens = encoded.tokens()
    return [r if r is None else tokens[slice(*r)] for r in align_spans(sentence, spans, encoded["offset_mapping"])]


def test_characters_become_tokens():
    assert aligned("Meow of a cat is [MASK].", "meow of a", "cat") == [["meow", "of", "a"], ["cat"]]
    assert aligned("The DUCKLING [MASK].", "duckling") == [["duck", "##ling"]]
    # A part of a token is that token, and two spans never share one.
    assert aligned("The ducklings [MASK].", "duck", "lings") == [["duck"], ["##ling", "##s"]]
    assert aligned("A [MASK] cat", "ca", "t") == [["cat"], None]
    assert aligned("Café\u0000 o\u0301 [MASK]", "café", "\u0000") == [["c", "##a", "##f", "##e"], None]


def test_truncation_keeps_what_is_left():
    sentence = "A [MASK] has the sound of a cat."
    assert aligned(sentence, "sound of a cat", truncation=True, max_length=8) == [["sound", "of"]]
    assert aligned(sentence, "sound of a cat", truncation=True, max_length=6) == [None]


# Few characters, so that spans repeat, nest and overlap; some change their length with their case.
snippets = st.text("aAbB sSßİi.[]", max_size=12)
sentences = st.lists(st.one_of(snippets, st.just(MASK)), max_size=5).map("".join)


def occurrences(sentence: str, span: str) -> set[tuple[int, int]]:
    masks = [i for i in range(len(sentence)) if sentence.startswith(MASK, i)]
    return {
        (start, end)
        for start in range(len(sentence))
        for end in range(start + 1, len(sentence) + 1)
        if sentence[start:end].casefold() == span.strip().casefold()
        and not any(start < mask + len(MASK) and mask < end for mask in masks)
    }


@given(sentences, snippets)
def test_one_span_against_brute_force(sentence, span):
    (range_,) = find_spans(sentence, [span], MASK)
    possible = occurrences(sentence, span)
    if range_ is None:
        assert not possible
        return
    assert range_ in possible
    whole = {
        (start, end)
        for start, end in possible
        if not (sentence[start].isalnum() and sentence[:start][-1:].isalnum())
        and not (sentence[end - 1].isalnum() and sentence[end : end + 1].isalnum())
    }
    assert range_[0] == min(start for start, _ in whole or possible)


@given(sentences, snippets, snippets)
def test_two_spans_never_overlap_and_their_order_does_not_matter(sentence, first, second):
    ranges = find_spans(sentence, [first, second], MASK)
    for range_, span in zip(ranges, (first, second), strict=True):
        assert range_ is None or range_ in occurrences(sentence, span)
    if None not in ranges:
        (a, b), (c, d) = ranges
        assert b <= c or d <= a
    if len(first.strip()) != len(second.strip()):
        assert find_spans(sentence, [second, first], MASK) == ranges[::-1]


@given(st.text(), st.text(), st.text())
def test_any_text_is_found_where_it_was_put(before, span, after):
    sentence = f"{before} [MASK] {span}{after}"
    assume(sentence.count(MASK) == 1 and span.strip())
    (range_,) = find_spans(sentence, [span], MASK)
    assert sentence[slice(*range_)].casefold() == span.strip().casefold()


@given(sentences | st.text(), snippets, snippets)
def test_tokens_cover_their_characters_and_no_mask(sentence, first, second):
    spans = [first, second]
    encoded = tokenizer(sentence, return_offsets_mapping=True)
    offsets, ids = encoded["offset_mapping"], encoded["input_ids"]
    characters = find_spans(sentence, spans, MASK)
    ranges = align_spans(sentence, spans, offsets)
    used: set[int] = set()
    for range_, place in zip(ranges, characters, strict=True):
        if range_ is None:
            continue
        tokens = range(*range_)
        assert 0 < range_[0] < range_[1] < len(ids)  # never the token that begins or ends the sequence
        assert not used & set(tokens)
        used |= set(tokens)
        assert tokenizer.mask_token_id not in ids[slice(*range_)]
        inside = {i for i, (start, end) in enumerate(offsets) if start < place[1] and place[0] < end and start < end}
        assert set(tokens) == inside
