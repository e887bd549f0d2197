"""Pitch comparisons: how pairs are drawn, which replies count, and that the second request is blind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.benchmark.stages import Refusal
from audiobert.benchmark.writing import TEMPLATES
from audiobert.benchmark.writing import pairs as comparisons
from audiobert.benchmark.writing.pairs import (
    PITCH_ROOTS,
    compare,
    make_pairs,
    parse_direction,
    parse_pitch_prompt,
    refuse_contradictions,
)
from audiobert.llm.templates import load_template

from llm_script import SOUNDS, FakeChat

TEMPLATE = load_template(TEMPLATES / comparisons.TEMPLATE, comparisons.PLACEHOLDERS)
BLIND_TEMPLATE = load_template(TEMPLATES / comparisons.BLIND_TEMPLATE, comparisons.BLIND_PLACEHOLDERS)
SIREN = "The wail of a siren typically has a [MASK] pitch than the idling of an engine."
SPANS = ("wail of a siren", "idling of an engine")


def recording(number: int, hz: float, category: str = "object/door") -> dict:
    return {
        "id": f"{number}.wav",
        "text": [f"Title {number}"],
        "tags": [f"tag {number}"],
        "description": f"Text {number}",
        "category": category,
        "pitch_hz": hz,
    }


def kept(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["refusal"] is None]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([100.0, 105.0, 110.0, 111.0, 300.0, 4000.0]), st.sampled_from(PITCH_ROOTS))),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_pairs_are_disjoint_far_apart_and_drawn_by_the_seed_alone(
    sounds: list[tuple[float, str]], seed: int, order: random.Random
) -> None:
    recordings = [recording(number, hz, root) for number, (hz, root) in enumerate(sounds)]
    rows = list(make_pairs(iter(recordings), seed=seed))
    ids = [identity for row in rows for identity in row["recordings"]]
    assert sorted(ids) == sorted(recording["id"] for recording in recordings)
    by_id = {recording["id"]: recording for recording in recordings}
    for row in kept(rows):
        first, second = (by_id[identity] for identity in row["recordings"])
        assert (row["pitch_1"], row["pitch_2"]) == (first["pitch_hz"], second["pitch_hz"])
        assert max(row["pitch_1"], row["pitch_2"]) > min(row["pitch_1"], row["pitch_2"]) * 1.1
        assert first["category"] == second["category"] == row["root"]
        assert (row["first"]["title"], row["second"]["title"]) == (*first["text"], *second["text"])
    order.shuffle(recordings)
    assert list(make_pairs(recordings, seed=seed)) == rows


def test_equal_pitches_are_drawn_again_until_all_have_a_partner() -> None:
    # Half of the recordings have the same pitch: each of them needs one of the other half.
    recordings = [recording(number, 200.0 if number % 2 else 300.0 + 100 * number) for number in range(200)]
    for seed in range(20):
        rows = list(make_pairs(recordings, seed=seed))
        assert [row["refusal"] for row in rows] == [None] * 100
        firsts = sum(row["pitch_1"] < row["pitch_2"] for row in rows)
        assert 20 < firsts < 80


def test_recordings_that_cannot_have_a_partner_are_counted() -> None:
    rows = list(make_pairs([recording(number, 200.0 + number) for number in range(7)], seed=0))
    assert [(row["refusal"], len(row["recordings"])) for row in rows] == [("left without a partner", 1)] * 7


def test_the_difference_has_to_exceed_the_threshold() -> None:
    def pairs(hz: float, **options) -> int:
        return len(kept(list(make_pairs([recording(1, 1000.0), recording(2, hz)], seed=0, **options))))

    assert (pairs(1099.0), pairs(1101.0), pairs(901.0), pairs(910.0)) == (0, 1, 1, 0)
    assert pairs(1101.0, threshold=0.2) == 0


def test_the_seed_changes_the_draw() -> None:
    recordings = [recording(number, 100.0 * 2**number) for number in range(10)]
    draws = {str([row["recordings"] for row in make_pairs(recordings, seed=seed)]) for seed in range(5)}
    assert len(draws) == 5


def test_no_more_pairs_than_asked_for_in_each_main_category() -> None:
    recordings = [recording(n, 100.0 * (1 + n), ("music/x", "object/y")[n % 2]) for n in range(20)]
    rows = list(make_pairs(recordings, seed=0, max_pairs=2))
    assert [row["root"] for row in kept(rows)] == ["music", "music", "object", "object"]
    assert sum(len(row["recordings"]) for row in rows) == 20
    assert {row["refusal"] for row in rows} == {None, "more pairs than asked for"}


@pytest.mark.parametrize("hz", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_pitch_is_an_error(hz: float) -> None:
    with pytest.raises(ValueError, match="1.wav.*positive and finite"):
        list(make_pairs([recording(1, hz)], seed=0))


def test_double_recording_is_an_error() -> None:
    with pytest.raises(ValueError, match="1.wav.*twice"):
        list(make_pairs([recording(1, 100.0), recording(2, 100.0), recording(1, 300.0)], seed=0))


def reply_of(sentence: str = SIREN, answer: str = "higher", first: str = SPANS[0], second: str = SPANS[1]) -> str:
    return f"Prompt: {sentence}\nAnswer: {answer}\nSpan 1: {first}\nSpan 2: {second}"


@pytest.mark.parametrize(
    "reply",
    [
        reply_of(),
        reply_of(answer="Higher.", first="Wail of a siren", second='"idling of an engine"'),
        reply_of().upper().replace("[MASK]", "[mask]").replace(SIREN.upper().replace("[MASK]", "[mask]"), SIREN),
        reply_of().replace("Span 1", "**Span1**").replace("Span 2", "span_2"),
    ],
)
def test_harmless_form_is_forgiven(reply: str) -> None:
    assert parse_pitch_prompt(reply) == (SIREN, "higher", SPANS)


REFUSED = [
    ("0", "the model could not write a prompt"),
    ("", "empty reply"),
    (f"Sure!\n{reply_of()}", "text beside the form asked for"),
    (f"Prompt: {SIREN}\nAnswer: higher\nSpan 1: {SPANS[0]}", "a line of the form is missing"),
    (f"{reply_of()}\nSpan 2: engine", "a line of the form stands there twice"),
    (reply_of(SIREN.replace("[MASK]", "different")), "not exactly one [MASK]"),
    (reply_of(SIREN.replace("[MASK]", "[MASK]er")), "the [MASK] is part of a word"),
    (reply_of("警笛声的音调比发动机的怠速声[MASK]。"), "the prompt is not English"),
    (reply_of(answer="the same"), "the answer is not higher or lower"),
    (reply_of(f"{SIREN} It is Higher."), "higher or lower stands in the prompt"),
    (reply_of(first=""), "a span is empty"),
    (reply_of(second="typically has a [MASK] pitch"), "a span holds the [MASK]"),
    (reply_of(second="roar of a lion"), "a span is not in the prompt"),
    (reply_of(first=SPANS[1], second=SPANS[0]), "the [MASK] does not stand between the spans"),
    (reply_of(second="siren"), "the [MASK] does not stand between the spans"),
    (
        reply_of("Compared with the wail of a siren, the idling of an engine has a [MASK] pitch."),
        "the [MASK] does not stand between the spans",
    ),
    (reply_of("The Hum has a [MASK] pitch than the hum.", first="hum", second="hum"), "both spans are the same"),
]


@pytest.mark.parametrize(("reply", "reason"), REFUSED)
def test_refused_prompt(reply: str, reason: str) -> None:
    with pytest.raises(Refusal) as error:
        parse_pitch_prompt(reply)
    assert error.value.reason == reason


PARTS = st.sampled_from([SIREN, *SPANS, "higher", "lower", "a [MASK] pitch", "the siren", "", "0", '"', "\ud800"])


@settings(deadline=None)
@given(st.text() | st.builds(reply_of, *[PARTS | st.text()] * 4))
def test_any_reply_is_a_prompt_or_refused(reply: str) -> None:
    try:
        sentence, answer, (first, second) = parse_pitch_prompt(reply)
    except Refusal:
        return
    before, after = sentence.split("[MASK]")
    assert answer in ("higher", "lower") and first in before and second in after
    assert first.lower() != second.lower()


@settings(deadline=None)
@given(st.text() | st.sampled_from(["higher", "Lower.", "Answer: higher", "`lower`", "0", "higher\nlower"]))
def test_any_blind_reply_is_a_direction_or_refused(reply: str) -> None:
    try:
        assert parse_direction(reply) in ("higher", "lower")
    except Refusal:
        assert reply.strip(" .`").lower() not in ("higher", "lower")


def pair(hz_1: float = 900.0, hz_2: float = 80.0) -> dict:
    sides = [dict.fromkeys(("title", "tags", "description", "category"), f"{name} as told") for name in ("one", "two")]
    return {
        "recordings": ["a", "b"],
        "root": "object",
        "first": sides[0],
        "second": sides[1],
        "pitch_1": hz_1,
        "pitch_2": hz_2,
        "refusal": None,
    }


def compared(row: dict, reply: str, blind_reply: str = "higher") -> tuple[dict, FakeChat]:
    chat = FakeChat(lambda prompt: blind_reply if SIREN in prompt else reply)
    [result] = compare([row], chat, TEMPLATE, BLIND_TEMPLATE)
    return result, chat


def test_both_requests_agree_with_what_was_measured() -> None:
    row, chat = compared(pair(), reply_of(), "Answer: Higher.")
    assert row == {
        "recordings": ["a", "b"],
        "task": "pitch",
        "root": "object",
        "pitch_1": 900.0,
        "pitch_2": 80.0,
        "sentence": SIREN,
        "answer": "higher",
        "spans": list(SPANS),
        "reply": reply_of(),
        "blind_reply": "Answer: Higher.",
        "refusal": None,
        "detail": "",
    }
    (writing, sampling), (blind, _) = chat.requests
    assert "First title: one as told" in writing and "Second category: two as told" in writing
    assert "900" not in writing + blind and "80.0" not in writing + blind
    assert "as told" not in blind
    assert blind.endswith(f"Sentence: {SIREN}\nFirst sound: {SPANS[0]}\nSecond sound: {SPANS[1]}\nAnswer:")
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (100, 0.6, 0.9, 42)


@pytest.mark.parametrize(
    ("row", "reply", "blind_reply", "reason"),
    [
        (pair(80.0, 900.0), reply_of(), "lower", "the answer is not the direction measured"),
        (pair(), reply_of(answer="lower"), "higher", "the answer is not the direction measured"),
        (pair(), "0", "higher", "the model could not write a prompt"),
        (pair(), reply_of(), "lower", "the blind answer is not the direction measured"),
        (pair(), reply_of(), "0", "the model could not answer blind"),
        (pair(), reply_of(), "It depends.", "the blind answer is not higher or lower"),
        (pair(), reply_of(), "higher\nlower", "the blind answer is not higher or lower"),
    ],
)
def test_what_does_not_agree_is_refused(row: dict, reply: str, blind_reply: str, reason: str) -> None:
    result, chat = compared(row, reply, blind_reply)
    assert result["refusal"] == reason
    # The second request costs as much as the first: it is made only where the first was good.
    assert len(chat.requests) == (2 if "blind" in reason else 1)
    assert result["blind_reply"] == (blind_reply if "blind" in reason else None)


def test_prompts_that_recordings_answer_both_ways_are_refused() -> None:
    rows = [
        {"sentence": "Rain has a [MASK] pitch than wind.", "answer": "higher", "refusal": None},
        {"sentence": "rain has a [MASK] pitch than wind", "answer": "lower", "refusal": None},
        {"sentence": "Wind has a [MASK] pitch than rain.", "answer": "lower", "refusal": None},
    ]
    refused = "other recordings of the same prompt say the opposite"
    assert [row["refusal"] for row in refuse_contradictions(rows)] == [refused, refused, None]


def test_scripted_replies_reach_every_reason() -> None:
    sounds = [(f"{name} {n}", sound) for name, sound in SOUNDS.items() for n in range(50)]
    sounds = [(title, sound) for title, sound in sounds if sound.category.split("/")[0] in PITCH_ROOTS]
    recordings = [
        {"id": title, "text": [title], "tags": [], "description": "", "category": sound.category, "pitch_hz": sound.hz}
        for title, sound in sounds
    ]
    pairs = kept(list(make_pairs(recordings, seed=0)))
    rows = list(compare(pairs, FakeChat(), TEMPLATE, BLIND_TEMPLATE))
    assert {row["refusal"] for row in rows} == {
        *(None, "the answer is not the direction measured", "the blind answer is not the direction measured"),
        *("the model could not answer blind", "the blind answer is not higher or lower"),
        *(reason for _, reason in REFUSED),
    }
    assert len(kept(rows)) > len(rows) / 2
