"""Answers of a served model: strict reading, refusals, and no request that is paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import DatasetDict

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.served import predict_served, unanswered
from audiobert.llm import client as llm
from audiobert.llm.client import ChatModel, ServerError
from audiobert.llm.reply_log import ReplyLog

from llm_server import MODEL, SERVER_ERROR, Fault, LlmServer, Request
from text_fixtures import write_auditorybench

ROWS_PER_SPLIT = 5


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT", 0.002)


@pytest.fixture
def data(tmp_path: Path) -> DatasetDict:
    folder = tmp_path / "data"
    folder.mkdir()
    return load_auditorybench(write_auditorybench(folder))


def asking(server: LlmServer, folder: Path) -> ChatModel:
    return ChatModel(server.url, MODEL, ReplyLog(folder / "replies"), retries=1)


def knows(data: DatasetDict) -> dict[str, str]:
    return {row["sentence"]: row["answer"] for row in data["test"]}


def answering(answers: dict[str, str]):
    return lambda prompt: next(answer for sentence, answer in answers.items() if sentence in prompt)


@pytest.fixture
def knowing(data: DatasetDict) -> Iterator[LlmServer]:
    with LlmServer(answering(knows(data))) as server:
        yield server


def test_a_model_that_knows_scores_100_and_is_asked_once(knowing: LlmServer, data: DatasetDict, tmp_path: Path) -> None:
    for _ in range(2):
        with asking(knowing, tmp_path) as chat:
            rows = predict_served(chat, data)
        assert all(row.correct for row in rows)
        assert [(row.split, row.row, row.answer) for row in rows] == [
            (split, number, answer)
            for split in ("dev", "test", "wiki")
            for number, answer in enumerate(data[split]["answer"])
        ]
    # The three splits have the same rows.
    assert len(knowing.requests) == ROWS_PER_SPLIT
    assert {request.body["temperature"] for request in knowing.requests} == {0.0}


def test_a_model_that_is_wrong_scores_0(data: DatasetDict, tmp_path: Path) -> None:
    other = {"higher": "lower", "lower": "higher"}
    wrong = {sentence: other.get(answer, "platypus") for sentence, answer in knows(data).items()}

    with LlmServer(answering(wrong)) as server, asking(server, tmp_path) as chat:
        rows = predict_served(chat, data)

    assert not any(row.correct for row in rows)
    assert unanswered(rows) == {split: {"animal": 0, "pitch": 0} for split in ("dev", "test", "wiki")}


def test_the_end_of_the_right_word_is_not_right(data: DatasetDict, tmp_path: Path) -> None:
    ends = {sentence: answer[len(answer) // 2 :] for sentence, answer in knows(data).items()}

    with LlmServer(answering(ends)) as server, asking(server, tmp_path) as chat:
        assert not any(row.correct for row in predict_served(chat, data))


def test_form_is_forgiven_and_talk_is_counted(data: DatasetDict, tmp_path: Path) -> None:
    texts = ["**Cats**", "I think it is a dog, since dogs bark.", "Answer: Duckling.", "Higher.", "0"]
    replies = dict(zip(knows(data), texts, strict=True))

    with LlmServer(answering(replies)) as server, asking(server, tmp_path) as chat:
        rows = predict_served(chat, data, splits=["test"])

    assert [row.predicted for row in rows] == ["cats", "", "duckling", "higher", ""]
    assert [row.correct for row in rows] == [True, False, True, True, False]
    assert unanswered(rows) == {"test": {"animal": 1, "pitch": 1}}


def test_a_model_that_answers_nothing_at_all_is_no_model_that_scores_0(data: DatasetDict, tmp_path: Path) -> None:
    with LlmServer(lambda prompt: "<think> Let me see.") as server, asking(server, tmp_path) as chat:
        with pytest.raises(ValueError, match=f"None of the 5 replies of {MODEL} .*'<think> Let.*Meow is the sound"):
            predict_served(chat, data, splits=["test"])
        assert predict_served(chat, DatasetDict({"test": data["test"].select([])}), splits=["test"]) == []


def test_a_refused_request_is_no_answer(data: DatasetDict, tmp_path: Path) -> None:
    def refuse(request: Request) -> Fault | None:
        return Fault(400, body="not this one") if "bark is [MASK]" in request.prompt else None

    with LlmServer(answering(knows(data)), fault=refuse) as server, asking(server, tmp_path) as chat:
        rows = predict_served(chat, data, splits=["test"])

    assert [row.correct for row in rows] == [True, False, True, True, True]
    assert unanswered(rows)["test"] == {"animal": 1, "pitch": 0}


def test_a_row_without_reply_is_no_wrong_answer(data: DatasetDict, tmp_path: Path) -> None:
    broken = True

    def fail(request: Request) -> Fault | None:
        return SERVER_ERROR if broken and "bark is [MASK]" in request.prompt else None

    with LlmServer(answering(knows(data)), fault=fail) as server:
        with asking(server, tmp_path) as chat, pytest.raises(OSError, match="no reply to 1 of 5 prompts"):
            predict_served(chat, data, splits=["test"])
        broken, before = False, len(server.requests)
        with asking(server, tmp_path) as chat:
            rows = predict_served(chat, data, splits=["test"])

    assert all(row.correct for row in rows)
    assert len(server.requests) == before + 1


def test_a_server_that_is_not_there_is_an_error(data: DatasetDict, tmp_path: Path) -> None:
    with LlmServer(str) as server:
        url = server.url
    with ChatModel(url, MODEL, ReplyLog(tmp_path), retries=0) as chat, pytest.raises(ServerError):
        predict_served(chat, data)


def test_prompts_of_ones_own(knowing: LlmServer, data: DatasetDict, tmp_path: Path) -> None:
    animal, pitch, empty = tmp_path / "animal.txt", tmp_path / "pitch.txt", tmp_path / "empty.txt"
    animal.write_text("Animal! {{sentence}}")
    pitch.write_text("Pitch! {{sentence}}")
    empty.write_text("?")

    with asking(knowing, tmp_path) as chat:
        predict_served(chat, data, splits=["test"], animal_prompt=animal, pitch_prompt=pitch)
        with pytest.raises(ValueError, match="lacks {{sentence}}"):
            predict_served(chat, data, pitch_prompt=empty)

    assert sorted(knowing.prompts) == sorted(
        f"{row['task'].capitalize()}! {row['sentence']}" for row in data["test"].to_list()
    )
