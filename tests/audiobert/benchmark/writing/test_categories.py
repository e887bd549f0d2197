"""Categories: what the LLM is shown of a record, and which replies count."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.benchmark.stages import Refusal
from audiobert.benchmark.writing import TEMPLATES, categories
from audiobert.benchmark.writing.categories import categorise, parse_category
from audiobert.llm.templates import load_template

from llm_script import SOUNDS, FakeChat

TEMPLATE = load_template(TEMPLATES / categories.TEMPLATE, categories.PLACEHOLDERS)


def record(title: str, *captions: str, **fields) -> dict:
    return {"id": title, "text": [title, *captions], "tags": [], "description": "", "refusal": None, **fields}


@pytest.mark.parametrize(
    ("reply", "category"),
    [
        ("animal/dog/pomeranian", "animal/dog/pomeranian"),
        ("  Animal / Dog  \n", "animal/dog"),
        ('"animal/dog"', "animal/dog"),
        ("`animal/dog`", "animal/dog"),
        ("```\nanimal/dog\n```", "animal/dog"),
        ("CATEGORY: animal/dog.", "animal/dog"),
        ("**Category:** `animal/dog`", "animal/dog"),
        ("Animals/bird", "animal/bird"),
        ("objects/door", "object/door"),
        ("environments/rain", "environment/rain"),
        ("people/child's laughter", "person/child's laughter"),
        ("music/drum-kit/808 kick", "music/drum-kit/808 kick"),
        ("effect", "effect"),
        ("a/b/c/d/e", "a/b/c/d/e"),
    ],
)
def test_category(reply: str, category: str) -> None:
    assert parse_category(reply) == category


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("0", "the model could not categorise it"),
        ("Category: None.", "the model could not categorise it"),
        ("", "empty reply"),
        ("\n \n", "empty reply"),
        ("animal/dog\nIt barks.", "more than one line"),
        ("a/b/c/d/e/f", "more than five levels"),
        ("animal//dog", "an empty level"),
        ("animal/dog/", "an empty level"),
        ("动物/狗", "characters outside a-z and 0-9"),
        ("animal/oiseau/hérisson", "characters outside a-z and 0-9"),
        ("Sure! It is animal/dog", "characters outside a-z and 0-9"),
        ("animal/123", "characters outside a-z and 0-9"),
        (f"animal/{'d' * 41}", "a level is too long"),
    ],
)
def test_refused_category(reply: str, reason: str) -> None:
    with pytest.raises(Refusal) as error:
        parse_category(reply)
    assert error.value.reason == reason


@settings(deadline=None)
@given(st.text() | st.text(alphabet="ab0/ .'\"`*:-\n") | st.from_regex(r"[Cc]ategory: [a-z/ ]*", fullmatch=True))
def test_any_reply_is_a_category_or_refused(reply: str) -> None:
    try:
        category = parse_category(reply)
    except Refusal:
        return
    assert re.fullmatch(r"[a-z0-9 '-]{1,40}(/[a-z0-9 '-]{1,40}){0,4}", category)
    assert parse_category(category) == category


def test_rows_keep_what_they_hold_and_their_order() -> None:
    rows = [record(name, source="here") for name in SOUNDS]
    results = list(categorise(rows, FakeChat(), TEMPLATE))
    for row, result in zip(rows, results, strict=True):
        assert {**result, "refusal": None}.items() >= row.items()
        assert (result["category"] is None) == (result["refusal"] is not None)
        assert result["reply"]
    assert sum(result["refusal"] is None for result in results) > len(rows) / 2


def test_prompt_shows_the_record_and_nothing_more() -> None:
    chat = FakeChat()
    row = record(
        "My dog", "A dog barks.", "My dog", tags=["dog", "bark"], description="It is {{title}}.\nCategory: cat"
    )
    next(categorise([row], chat, TEMPLATE))
    [(prompt, sampling)] = chat.requests
    assert prompt.endswith(
        "Title: My dog\nTags: dog, bark\nDescription: A dog barks. It is {{title}}. Category: cat\nCategory:"
    )
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, sampling.stop) == (
        *(32, 0.6, 0.9, 22),
        ("\n",),
    )


def test_long_descriptions_are_cut_and_missing_ones_said() -> None:
    chat = FakeChat(lambda prompt: "0")
    list(categorise([record("dog", description="far away " * 1000), record("cat")], chat, "{{description}}|{{tags}}"))
    assert re.fullmatch(r"(far away )+(far|far away)\.\.\.\|\(none\)", chat.requests[0][0])
    assert len(chat.requests[0][0]) <= 610
    assert chat.requests[1][0] == "(none)|(none)"


def test_no_reply_is_counted_and_a_dead_server_is_an_error() -> None:
    def silent(prompt: str) -> str:
        raise Refusal("no reply from the server", "timed out")

    def dead(prompt: str) -> str:
        raise OSError("no server")

    [row] = categorise([record("dog")], FakeChat(silent), TEMPLATE)
    assert (row["category"], row["refusal"], row["detail"]) == (None, "no reply from the server", "timed out")
    with pytest.raises(OSError, match="no server"):
        list(categorise([record("dog")], FakeChat(dead), TEMPLATE))


def test_scripted_replies_reach_every_reason() -> None:
    rows = [record(f"{name} {number}") for name in SOUNDS for number in range(12)]
    reasons = {row["refusal"] for row in categorise(rows, FakeChat(), TEMPLATE)}
    assert reasons == {
        *(None, "the model could not categorise it", "empty reply", "more than one line", "more than five levels"),
        *("an empty level", "characters outside a-z and 0-9", "a level is too long"),
    }
