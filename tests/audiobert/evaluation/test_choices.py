"""Four-choice accuracy: by masked, causal and served models; rows whose letter contradicts the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from audiobert.evaluation.choices import (
    LETTERS,
    ChoiceRow,
    choice_accuracy,
    choice_predictions,
    choose_causal,
    choose_masked,
    choose_served,
    load_choices,
)
from audiobert.language_models.causal import load_causal, text_ids
from audiobert.language_models.likelihood import filled_sentence
from audiobert.llm.client import ChatModel
from audiobert.llm.reply_log import ReplyLog

from causal_fixtures import FAMILIES, PREFERENCE, make_causal, rig
from llm_server import MODEL, LlmServer
from text_fixtures import tiny_bert, tiny_tokenizer, write_csv

HEADER = ["animal", "span", "sentence", *LETTERS, "Answer"]
ROWS = [
    ["cat", "meow", "Meow is the sound a [MASK] makes.", "dog", "cat", "duckling", "owl", "B"],
    ["duckling", "NA", "The sound of a hum is [MASK].", "owl", "cat", "duckling", "dog", "C"],
    ["owl", "rain", "[MASK] makes a rain sound.", "owl", "cat", "bass", "dog", "A"],
    ["dog", "bark", "A bark is the sound a [MASK] makes.", "cat", "owl", "bass", "dog", "A"],
]


@pytest.fixture
def rows(tmp_path: Path) -> list[ChoiceRow]:
    return load_choices(write_csv(tmp_path / "choices.csv", HEADER, ROWS))


def rigged_bert(rows: list[ChoiceRow], answer_of, pieces: slice = slice(None)) -> PreTrainedModel:
    """Prefers, at masks of a sentence, the pieces of an answer (or some of them) in their places."""
    tokenizer = tiny_tokenizer(["owl"])
    bert = tiny_bert(len(tokenizer))
    wanted = {
        tuple(tokenizer(row.sentence.replace("[MASK]", ""), add_special_tokens=False)["input_ids"]): tokenizer(
            answer_of(row), add_special_tokens=False
        )["input_ids"]
        for row in rows
    }

    def forward(input_ids, attention_mask, **kwargs):
        output = type(bert).forward(bert, input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        output.logits = torch.zeros_like(output.logits)
        for row, ids in enumerate(input_ids):
            key = tuple(token for token in ids.tolist() if token >= 5)
            masks = (ids == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            for place, token in list(zip(masks, wanted[key], strict=False))[pieces]:
                output.logits[row, place, token] = PREFERENCE
        return output

    bert.forward = forward
    return bert


def right(row: ChoiceRow) -> str:
    return row.answer


def wrong(row: ChoiceRow) -> str:
    return next(option for option in row.options if option != row.answer)


def test_a_masked_model_that_knows_scores_100_and_one_that_is_wrong_0(rows: list[ChoiceRow]) -> None:
    tokenizer = tiny_tokenizer(["owl"])
    assert len(tokenizer.tokenize("duckling")) == 2
    for batch_size in (1, 3, 32):
        chosen = choose_masked(rigged_bert(rows, right), tokenizer, rows, batch_size=batch_size)
        assert choice_accuracy(rows, chosen).accuracy == 1.0
        chosen = choose_masked(rigged_bert(rows, wrong), tokenizer, rows, batch_size=batch_size)
        assert choice_accuracy(rows, chosen).accuracy == 0.0


def test_a_masked_model_that_knows_the_second_piece_only_does_not_choose_as_one_that_knows(tmp_path: Path) -> None:
    """A whole word that fits beats an option of which only the end does."""
    tokenizer = tiny_tokenizer(["owl"])
    row = ChoiceRow("The hum is [MASK].", "duckling", "hum", ("duckling", "cat", "dog", "owl"), "A")
    model = rigged_bert([row], right, slice(1, None))
    know_second = model.forward

    def forward(input_ids, **kwargs):
        output = know_second(input_ids=input_ids, **kwargs)
        first = (input_ids == tokenizer.mask_token_id).int().argmax(1)
        output.logits[range(len(input_ids)), first, tokenizer.convert_tokens_to_ids("cat")] = PREFERENCE
        return output

    model.forward = forward
    assert choose_masked(model, tokenizer, [row]) == ["B"]


def test_a_masked_option_that_is_not_in_the_vocabulary_is_not_chosen() -> None:
    """Though the model prefers the token for unknown words to all others."""
    tokenizer = tiny_tokenizer(["owl"])
    row = ChoiceRow("The hum is [MASK].", "cat", "hum", ("猫", "cat", "犬", "鳥"), "B")
    assert tokenizer.tokenize("猫") == ["[UNK]"]

    assert choose_masked(rigged_bert([row], lambda _: "猫"), tokenizer, [row]) == ["B"]


def test_a_masked_sentence_beyond_the_context_is_refused() -> None:
    tokenizer = tiny_tokenizer(["owl"])
    row = ChoiceRow("The " + "rain " * 80 + "is [MASK].", "cat", "rain", ("dog", "cat", "bass", "owl"), "B")

    with pytest.raises(ValueError, match="64 tokens.*shorten"):
        choose_masked(tiny_bert(len(tokenizer)), tokenizer, [row])


def test_a_causal_model_is_refused_as_masked_one(tmp_path: Path, rows: list[ChoiceRow]) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))

    with pytest.raises(ValueError, match="causal"):
        choose_masked(model, tokenizer, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_model_that_knows_scores_100_and_one_that_is_wrong_0(
    tmp_path: Path, rows: list[ChoiceRow], family: str
) -> None:
    for answer_of, accuracy in ((right, 1.0), (wrong, 0.0)):
        model, tokenizer = load_causal(make_causal(tmp_path, family))
        known = text_ids(tokenizer, [filled_sentence(row.sentence, answer_of(row)) for row in rows])
        rig(model, known, known[0][0])
        for normalised in (False, True):
            for batch_size in (2, 8):
                chosen = choose_causal(model, tokenizer, rows, batch_size=batch_size, normalised=normalised)
                assert choice_accuracy(rows, chosen).accuracy == accuracy


def test_length_counts_unless_it_is_normalised_away(tmp_path: Path) -> None:
    """Without any preference each token costs the same: the total is best for the shortest, the mean for none."""
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))
    ids = text_ids(tokenizer, ["The"])
    rig(model, ids, ids[0][0])
    row = ChoiceRow("The hum is [MASK].", "cat", "hum", ("duckling", "cat", "gosling", "barn owl"), "B")

    assert choose_causal(model, tokenizer, [row]) == ["B"]
    assert choose_causal(model, tokenizer, [row], normalised=True) == [""]


def test_a_served_model_is_asked_for_the_letter(tmp_path: Path, rows: list[ChoiceRow]) -> None:
    replies = {rows[0].sentence: "B", rows[1].sentence: "(C)", rows[2].sentence: "b.", rows[3].sentence: "Answer: D"}
    with (
        LlmServer(lambda prompt: next(reply for sentence, reply in replies.items() if sentence in prompt)) as server,
        ChatModel(server.url, MODEL, ReplyLog(tmp_path)) as chat,
    ):
        chosen = choose_served(chat, rows)

    assert chosen == ["B", "", "B", "D"]
    assert "A: dog\nB: cat\nC: duckling\nD: owl" in next(text for text in server.prompts if rows[0].sentence in text)
    result = choice_accuracy(rows, chosen)
    assert (result.correct, result.unanswered) == (2, 1)


def test_a_served_model_that_chooses_nothing_at_all_is_refused(tmp_path: Path, rows: list[ChoiceRow]) -> None:
    with (
        LlmServer(lambda prompt: "I would say B.") as server,
        ChatModel(server.url, MODEL, ReplyLog(tmp_path)) as chat,
        pytest.raises(ValueError, match=f"None of the 4 replies of {MODEL} .*'I would say B.'"),
    ):
        choose_served(chat, rows)


def test_rows_whose_letter_contradicts_the_answer_are_reported(rows: list[ChoiceRow]) -> None:
    by_answer, by_letter = (choice_accuracy(rows, chosen) for chosen in (list("BCAD"), list("BCAA")))

    assert by_answer.contradictions == by_letter.contradictions == (3,)
    assert (by_answer.correct, by_answer.correct_by_letter) == (4, 3)
    assert (by_letter.correct, by_letter.correct_by_letter) == (3, 4)
    assert "In 1 of 4 rows the letter contradicts the answer (rows 3)" in by_answer.to_markdown()
    assert json.loads(by_answer.to_json())["accuracy_by_letter"] == 0.75
    assert by_answer.to_table().row_count == 1


def test_choices_are_answers_as_any_others(rows: list[ChoiceRow]) -> None:
    predictions = choice_predictions(rows, ["B", "", "B", "D"])

    assert [row.predicted for row in predictions] == ["cat", "", "cat", "dog"]
    assert [row.correct for row in predictions] == [True, False, False, True]
    assert predictions[1].spans == ("NA",) and predictions[3].row == 3


def test_no_rows_have_no_accuracy() -> None:
    result = choice_accuracy([], [])

    assert result.accuracy is None and "| - |" in result.to_markdown()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (2, "A cat makes it.", r"line 2: the sentence .* has no \[MASK\]"),
        (7, "E", "line 2: the answer's letter must be one of A, B, C, D, got 'E'"),
        (3, " ", "line 2: the four options must be there and differ"),
        (3, "owl", "line 2: the four options must be there and differ"),
        (0, "bass", "line 2: the answer 'bass' is none of the options"),
    ],
)
def test_broken_rows_are_refused(tmp_path: Path, column: int, value: str, message: str) -> None:
    row = [value if number == column else cell for number, cell in enumerate(ROWS[0])]

    with pytest.raises(ValueError, match=message):
        load_choices(write_csv(tmp_path / "choices.csv", HEADER, [row]))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column D, Answer"):
        load_choices(write_csv(tmp_path / "short.csv", HEADER[:-2], [row[:-2] for row in ROWS]))
    with pytest.raises(ValueError, match="line 2: the row has more or fewer fields"):
        load_choices(write_csv(tmp_path / "ragged.csv", HEADER, [ROWS[0][:-1]]))
    with pytest.raises(FileNotFoundError):
        load_choices(tmp_path / "missing.csv")


@pytest.mark.real_data
def test_the_published_file_has_twelve_contradictions() -> None:
    if "AUDITORYBENCH_DIR" not in os.environ:
        pytest.skip("AUDITORYBENCH_DIR does not name AuditoryBench's CSV files")
    rows = load_choices(Path(os.environ["AUDITORYBENCH_DIR"]) / "animal_train_with_choices.csv")

    result = choice_accuracy(rows, [row.letter for row in rows])
    assert (result.rows, result.correct_by_letter, len(result.contradictions)) == (4211, 4211, 12)
    assert result.correct == 4199
