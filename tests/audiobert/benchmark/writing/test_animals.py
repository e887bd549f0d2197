"""Prompts on animal sounds: which replies count, the stop list, and merging."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.benchmark.stages import Refusal
from audiobert.benchmark.writing import TEMPLATES, animals
from audiobert.benchmark.writing.animals import animal_prompts, load_stop_list, merge_duplicates, parse_animal_prompt
from audiobert.llm.templates import load_template

from llm_script import SOUNDS, FakeChat

TEMPLATE = load_template(TEMPLATES / animals.TEMPLATE, animals.PLACEHOLDERS)
STOP_LIST = load_stop_list()
WOOF = "Woof is the sound a [MASK] makes."


def reply_of(sentence: str = WOOF, answer: str = "dog", span: str = "Woof") -> str:
    return f"Prompt: {sentence}\nAnswer: {answer}\nSpan: {span}"


def refusal_of(reply: str) -> str:
    with pytest.raises(Refusal) as error:
        parse_animal_prompt(reply, STOP_LIST)
    return error.value.reason


@pytest.mark.parametrize(
    "reply",
    [
        reply_of(),
        reply_of(answer="A Dog.", span="woof."),
        reply_of(f'"{WOOF}"', "`dog`", "“Woof”"),
        f"```\n{reply_of()}\n```\n",
        "PROMPT: Woof is the sound a [mask]  makes.  \nanswer: dog\n\n**Span:** Woof",
        f"- Answer: dog\n- Prompt: {WOOF}\n- Span: 'Woof'",
    ],
)
def test_harmless_form_is_forgiven(reply: str) -> None:
    assert parse_animal_prompt(reply, STOP_LIST) == (WOOF, "dog", "Woof")


def test_quotes_within_a_sentence_stay() -> None:
    sentence = '"Woof" is what a [MASK] says, and the cat says "meow"'
    assert parse_animal_prompt(reply_of(sentence), STOP_LIST) == (sentence, "dog", "Woof")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("0", "the model could not write a prompt"),
        ("Prompt: 0\nAnswer: 0\nSpan: 0", "the model could not write a prompt"),
        (" \n", "empty reply"),
        (f"{reply_of()}\nI hope this helps!", "text beside the form asked for"),
        (f"{reply_of()}\nNote: dogs bark", "text beside the form asked for"),
        (f"{reply_of()}\nAnswer: cat", "a line of the form stands there twice"),
        (f"Prompt: {WOOF}\nAnswer: dog", "a line of the form is missing"),
        (reply_of("Woof is the sound it makes."), "not exactly one [MASK]"),
        (reply_of("Woof is what a [MASK] says to a [Mask]."), "not exactly one [MASK]"),
        (reply_of("当你听到“Woof”时，那是一只[MASK]。"), "the prompt is not English"),
        (reply_of("Le [MASK] fait Woof dans la cour."), "the prompt is not English"),
        (reply_of("Woof is the sound \x00 a [MASK] makes."), "the prompt is not English"),
        (reply_of("Woof is the sound [MASK]s make."), "the [MASK] is part of a word"),
        (reply_of(answer=""), "the answer is empty"),
        (reply_of(answer="狗"), "the answer is not in English letters"),
        (reply_of(answer="dog, cat"), "the answer is not in English letters"),
        (reply_of(answer="a very small furry dog"), "the answer has more than three words"),
        (reply_of(span=""), "a span is empty"),
        (reply_of(span="sound a [MASK] makes"), "a span holds the [MASK]"),
        (reply_of(span="whirr"), "a span is not in the prompt"),
        (reply_of(span="oof"), "a span is not in the prompt"),
        (reply_of(span="mask"), "a span is not in the prompt"),
    ],
)
def test_refused_prompt(reply: str, reason: str) -> None:
    assert refusal_of(reply) == reason


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        *(("dog", "Dog"), ("dog", "dogs"), ("dogs", "dog"), ("dog", "dog's"), ("dog", "dog-like")),
        *(("fox", "foxes"), ("butterfly", "butterflies"), ("geese", "goose"), ("mouse", "mice"), ("barn owl", "owls")),
    ],
)
def test_answer_in_the_prompt_is_refused(answer: str, word: str) -> None:
    assert refusal_of(reply_of(f"Woof is the sound a [MASK] makes, as any {word} can.", answer)) == (
        "the answer stands in the prompt"
    )


@pytest.mark.parametrize(
    ("answer", "word"), [("cat", "category"), ("bees", "be"), ("bird of prey", "of"), ("ass", "as"), ("hen", "when")]
)
def test_words_that_only_look_like_the_answer_are_allowed(answer: str, word: str) -> None:
    reply = reply_of(f"Woof is the sound a [MASK] makes {word} it.", answer)
    assert parse_animal_prompt(reply, STOP_LIST).answer == answer


@pytest.mark.parametrize(
    "answer", ["zombie", "Vampires", "animal", "sea monster", "wild animals", "a creature", "T-Rex"]
)
def test_inappropriate_answers_are_refused(answer: str) -> None:
    assert refusal_of(reply_of(answer=answer)) == "an inappropriate answer"


def test_stop_list_is_the_users_choice(tmp_path: Path) -> None:
    assert parse_animal_prompt(reply_of(answer="vampire bat"), STOP_LIST).answer == "vampire bat"
    own = tmp_path / "own.txt"
    own.write_text("# mine\nDog  # no dogs\n\nsea lion\n", encoding="utf-8")
    assert load_stop_list(own) == {"dog", "sea lion"}
    with pytest.raises(Refusal, match="inappropriate"):
        parse_animal_prompt(reply_of(), load_stop_list(own))
    assert parse_animal_prompt(reply_of(answer="zombie"), load_stop_list(own)).answer == "zombie"


def test_bad_stop_list_is_an_error(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    with pytest.raises(FileNotFoundError, match="own.txt"):
        load_stop_list(own)
    own.write_text("dog\ncat; cow\n", encoding="utf-8")
    with pytest.raises(ValueError, match="own.txt, line 2.*cat; cow"):
        load_stop_list(own)
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        load_stop_list(own)


LINES = st.sampled_from(
    [
        WOOF,
        "A [MASK] says woof.",
        "[mask] [MASK]",
        "dog",
        "the cats",
        "Woof",
        "woof.",
        "",
        "0",
        '"',
        "``",
        "狗",
        "\ud800",
    ]
)


@settings(deadline=None)
@given(st.text() | st.builds(reply_of, LINES | st.text(), LINES | st.text(), LINES | st.text()))
def test_any_reply_is_a_prompt_or_refused(reply: str) -> None:
    try:
        sentence, answer, span = parse_animal_prompt(reply, STOP_LIST)
    except Refusal:
        return
    assert sentence.count("[MASK]") == 1
    assert span in sentence and span and "[MASK]" not in span
    assert answer == answer.lower() and 1 <= len(answer.split()) <= 3
    assert answer not in sentence.lower().split()
    assert parse_animal_prompt(reply_of(sentence, answer, span), STOP_LIST) == (sentence, answer, span)
    f"{sentence}{answer}{span}".encode()


def test_rows_for_every_record() -> None:
    chat = FakeChat()
    names = [name for name, sound in SOUNDS.items() if sound.answer]
    records = [
        {"id": f"{name}.flac", "text": [name], "tags": [], "description": "", "category": SOUNDS[name].category}
        for name in names
    ]
    rows = list(animal_prompts(records, chat, TEMPLATE, STOP_LIST))
    assert [row["recordings"] for row in rows] == [[f"{name}.flac"] for name in names]
    kept = [row for row in rows if row["refusal"] is None]
    assert len(kept) > len(rows) / 2
    assert all(row["task"] == "animal" and len(row["spans"]) == 1 and row["reply"] for row in kept)
    assert all(row["sentence"] is row["spans"] is row["answer"] is None for row in rows if row not in kept)
    prompt, sampling = chat.requests[0]
    assert prompt.endswith("Title: dog\nTags: (none)\nDescription: (none)\nCategory: animal/mammal/dog")
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (100, 0.6, 0.9, 42)


def test_scripted_replies_reach_every_reason() -> None:
    records = [
        {"id": "1", "text": [f"{name} {number}"], "tags": [], "description": "", "category": sound.category}
        for name, sound in SOUNDS.items()
        if sound.answer
        for number in range(60)
    ]
    reasons = {row["refusal"] for row in animal_prompts(records, FakeChat(), TEMPLATE, STOP_LIST)}
    assert reasons == {
        *(None, "the model could not write a prompt", "empty reply", "text beside the form asked for"),
        *("a line of the form stands there twice", "a line of the form is missing", "not exactly one [MASK]"),
        *("the prompt is not English", "the [MASK] is part of a word", "the answer stands in the prompt"),
        *("the answer is empty", "the answer is not in English letters", "the answer has more than three words"),
        *("an inappropriate answer", "a span is empty", "a span holds the [MASK]", "a span is not in the prompt"),
    }


def test_merging_unites_the_recordings_of_equal_questions() -> None:
    rows = [
        {"sentence": WOOF, "answer": "dog", "spans": ["Woof"], "recordings": ["a"]},
        {"sentence": "Meow is the sound a [MASK] makes.", "answer": "cat", "spans": ["Meow"], "recordings": ["b"]},
        {
            "sentence": "“WOOF” is  the sound a [MASK] makes",
            "answer": "dog",
            "spans": ["WOOF"],
            "recordings": ["c", "a"],
        },
        {"sentence": WOOF, "answer": "seal", "spans": ["Woof"], "recordings": ["d"]},
    ]
    merged, count = merge_duplicates(iter(rows))
    assert count == 1
    assert merged == [{**rows[0], "recordings": ["a", "c"]}, rows[1], rows[3]]
    assert rows[0]["recordings"] == ["a"]
    assert merge_duplicates([]) == ([], 0)
