"""Answers of causal language models: rigged to know, to be wrong, and to know the second piece only; per family."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.causal import predict_causal
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.prompting import load_prompt
from audiobert.language_models.causal import load_causal, text_ids
from audiobert.language_models.likelihood import filled_sentence

from causal_fixtures import FAMILIES, make_causal, rig
from text_fixtures import write_auditorybench

METHODS = ("rank", "rank-normalised", "generate")
ANIMALS = [
    ["duckling", "quack", "Quack is the sound a [MASK] makes."],
    ["Barn Owl", "hoot", "[MASK] make a hoot sound."],
    ["gosling", "hiss", "The hiss is that of a [MASK]."],
]
PITCHES = [
    ["The rain has a [MASK] pitch than the hum.", "higher", "rain", "hum"],
    ["The bark has a [MASK] pitch than the meow.", "lower", "bark", "meow"],
]
OTHER = {"duckling": "gosling", "barn owl": "duckling", "gosling": "duckling", "higher": "lower", "lower": "higher"}
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetDict:
    return load_auditorybench(write_auditorybench(tmp_path_factory.mktemp("data"), ANIMALS, PITCHES))


@pytest.fixture(params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Loaded:
    return load_causal(make_causal(tmp_path, request.param))


def wrong(answer: str) -> str:
    return OTHER[answer]


def known_texts(tokenizer: PreTrainedTokenizerBase, data: DatasetDict, answer_of=str) -> list[list[int]]:
    """Every row's sentence with an answer to it, and the completion prompt with the answer behind it."""
    completion = load_prompt(None, "animal_completion.txt")
    texts = []
    for row in data["test"]:
        answer = answer_of(row["answer"].lower())
        texts.append(filled_sentence(row["sentence"], answer))
        texts.append(completion.replace("{{sentence}}", row["sentence"]) + f" {answer}\n\nSentence")
    return text_ids(tokenizer, texts)


def second_piece_texts(tokenizer: PreTrainedTokenizerBase, data: DatasetDict) -> list[list[int]]:
    """First another answer, whose beginning is preferred; but once the right one has begun, that is gone on with."""
    return [*known_texts(tokenizer, data, wrong), *known_texts(tokenizer, data)]


def accuracy(rows: list[RowPrediction], task: str) -> float:
    of_task = [row.correct for row in rows if row.task == task]
    return 100 * sum(of_task) / len(of_task)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_knows_the_answers_scores_100(loaded: Loaded, data: DatasetDict, method: str) -> None:
    model, tokenizer = loaded
    texts = known_texts(tokenizer, data)
    rig(model, texts, texts[0][0])

    for batch_size in (2, 64):
        rows = predict_causal(
            model, tokenizer, data, splits=["test"], method=method, batch_size=batch_size, progress=False
        )
        assert accuracy(rows, "animal") == accuracy(rows, "pitch") == 100
        assert [row.predicted for row in rows] == [row.answer.lower() for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_wrong_scores_0(loaded: Loaded, data: DatasetDict, method: str) -> None:
    model, tokenizer = loaded
    texts = known_texts(tokenizer, data, wrong)
    rig(model, texts, texts[0][0])

    rows = predict_causal(model, tokenizer, data, splits=["test"], method=method, batch_size=2, progress=False)

    assert accuracy(rows, "animal") == accuracy(rows, "pitch") == 0
    assert [row.predicted for row in rows] == [OTHER[row.answer.lower()] for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_the_second_piece_alone_is_not_right(loaded: Loaded, data: DatasetDict, method: str) -> None:
    model, tokenizer = loaded
    animals = data.filter(lambda row: row["task"] == "animal")
    for answer in ("duckling", "barn owl", "gosling"):
        assert len(tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]) > 1
    texts = second_piece_texts(tokenizer, animals)
    rig(model, texts, texts[0][0])

    rows = predict_causal(model, tokenizer, animals, splits=["test"], method=method, batch_size=2, progress=False)

    assert accuracy(rows, "animal") == 0


def test_rows_come_in_the_order_of_the_data(loaded: Loaded, data: DatasetDict) -> None:
    rows = predict_causal(*loaded, data, progress=False)

    assert [row.split for row in rows] == ["dev"] * 5 + ["test"] * 5 + ["wiki"] * 5
    assert [row.row for row in rows] == [*range(5)] * 3
    for split in ("dev", "test", "wiki"):
        of_split = [row for row in rows if row.split == split]
        assert [(row.sentence, row.answer, list(row.spans), row.task) for row in of_split] == [
            (row["sentence"], row["answer"], row["spans"], row["task"]) for row in data[split]
        ]


def test_batches_do_not_change_answers(loaded: Loaded, data: DatasetDict) -> None:
    for method in METHODS:
        answers = [
            predict_causal(*loaded, data["dev"], method=method, batch_size=size, progress=False) for size in (1, 2, 50)
        ]
        assert answers[0] == answers[1] == answers[2]


def test_length_counts_unless_it_is_normalised_away(loaded: Loaded, data: DatasetDict) -> None:
    """Without any preference each token costs the same: the total is best for the shortest, the mean for none."""
    model, tokenizer = loaded
    ids = text_ids(tokenizer, ["The"])
    rig(model, ids, ids[0][0])
    animals = data["test"].filter(lambda row: row["task"] == "animal").select([0])
    tokens = {answer: len(tokenizer(f" {answer}")["input_ids"]) for answer in ("duckling", "barn owl", "gosling")}
    shortest = [answer for answer in tokens if tokens[answer] == min(tokens.values())]

    with_train = DatasetDict(train=data["train"], test=animals)
    total, mean = (
        predict_causal(model, tokenizer, with_train, method=method, progress=False)
        for method in ("rank", "rank-normalised")
    )

    assert [row.predicted for row in total] == (shortest if len(shortest) == 1 else [""])
    assert [row.predicted for row in mean] == [""]
    assert not mean[0].correct


def test_a_prompt_of_ones_own(tmp_path: Path, loaded: Loaded, data: DatasetDict) -> None:
    own, twice, empty = tmp_path / "own.txt", tmp_path / "twice.txt", tmp_path / "empty.txt"
    own.write_text("Q: {{sentence}} It is a\n")
    twice.write_text("{{sentence}} {{sentence}}")
    empty.write_text("Which animal?")
    model, tokenizer = loaded
    texts = [f"Q: {filled_sentence(row['sentence'], row['answer'].lower())} It is a" for row in data["test"]]
    texts += [f"Q: {row['sentence']} It is a {row['answer'].lower()}\n" for row in data["test"]]
    known = text_ids(tokenizer, texts)
    rig(model, known, known[0][0])

    for method in METHODS:
        rows = predict_causal(model, tokenizer, data["test"], method=method, prompt=own, progress=False)
        assert accuracy(rows, "animal") == 100
        with pytest.raises(ValueError, match="lacks {{sentence}}"):
            predict_causal(model, tokenizer, data["test"], method=method, prompt=empty)
    with pytest.raises(ValueError, match="{{sentence}} once"):
        predict_causal(model, tokenizer, data["test"], prompt=twice, progress=False)


def test_a_split_without_rows_gives_none(loaded: Loaded, data: DatasetDict) -> None:
    empty = DatasetDict({**data, "dev": data["dev"].select([])})

    for method in METHODS:
        rows = predict_causal(*loaded, empty, splits=["dev", "wiki"], method=method, progress=False)
        assert {row.split for row in rows} == {"wiki"}


def test_settings_that_do_not_exist_are_refused(tmp_path: Path, data: DatasetDict) -> None:
    loaded = load_causal(make_causal(tmp_path, "llama"))

    with pytest.raises(ValueError, match="`method` must be"):
        predict_causal(*loaded, data, method="guess")
    with pytest.raises(ValueError, match="`batch_size` has to be"):
        predict_causal(*loaded, data, batch_size=0)
    with pytest.raises(ValueError, match="`splits` must be a list of names"):
        predict_causal(*loaded, data, splits=["validation"], progress=False)


def test_dtype_is_that_given_at_loading(tmp_path: Path, data: DatasetDict) -> None:
    make_causal(tmp_path, "gemma2")
    model, tokenizer = load_causal(tmp_path, dtype="bfloat16")

    assert str(model.dtype) == "torch.bfloat16"
    rows = predict_causal(model, tokenizer, data["test"], progress=False)
    assert {row.predicted for row in rows if row.task == "pitch"} <= {"higher", "lower", ""}
