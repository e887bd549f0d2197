"""Asking an LLM: what a misbehaving server, a crash and a full disk may cost, and what they may never cost."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from audiobert.llm import client as llm
from audiobert.llm import reply_log
from audiobert.llm.client import ChatModel, NoReply, RequestRefused, Sampling, ServerError
from audiobert.llm.reply_log import ReplyLog

from llm_server import DROPPED, GARBAGE, HALF_REPLY, HANG, MODEL, SERVER_ERROR, Fault, LlmServer, Request, too_many

SAMPLING = Sampling(max_tokens=32)
BUSY = 40
# Seconds that a process may take to end, on a busy machine too.
TIMEOUT = 60
# Of the requests with these numbers, and of no others.
Faults = dict[int, Fault]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT", 0.002)


def shout(prompt: str) -> str:
    return f"{prompt.upper()}!"


def numbered(faults: Faults) -> Callable[[Request], Fault | None]:
    return lambda request: faults.get(request.number)


def ask(chat: ChatModel, prompts: list[str], sampling: Sampling = SAMPLING) -> list[str]:
    """The replies; the name of the error in the place of one that there is not."""

    async def work(row: dict) -> str:
        try:
            return await chat.reply(row["prompt"], sampling)
        except (NoReply, RequestRefused) as error:
            return type(error).__name__

    return list(chat.map(work, ({"prompt": prompt} for prompt in prompts)))


def ask_one(chat: ChatModel, prompt: str = "bark") -> str:
    """The reply, its refusal raised."""

    async def work(row: dict) -> str:
        return await chat.reply(row["prompt"], SAMPLING)

    return next(chat.map(work, [{"prompt": prompt}]))


def open_chat(server: LlmServer, folder: Path, **settings: Any) -> ChatModel:
    return ChatModel(server.url, MODEL, ReplyLog(folder), **settings)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- what is sent


def test_the_request_is_what_was_asked_for(tmp_path: Path) -> None:
    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        assert ask(chat, ["wuff 犬"], Sampling(7, 0.1, 0.5, 3, ("\n",))) == ["WUFF 犬!"]
        assert server.requests[0].body == {
            "model": MODEL,
            "messages": [{"role": "user", "content": "wuff 犬"}],
            "max_tokens": 7,
            "temperature": 0.1,
            "top_p": 0.5,
            "seed": 3,
            "stop": ["\n"],
            "stream": False,
        }


def test_the_token_of_the_hub_stays_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with LlmServer(shout) as server:
        with open_chat(server, tmp_path) as chat:
            chat.check()
            ask(chat, ["bark"])
        assert all("hf_secret" not in value for value in server.requests[0].headers.values())
        with open_chat(server, tmp_path, api_key="mine") as chat:
            ask(chat, ["meow"])
        assert server.requests[1].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_as_users_write_it(tmp_path: Path, ending: str) -> None:
    with LlmServer(shout) as server:
        with ChatModel(f"http://127.0.0.1:{server.port}{ending}", MODEL, ReplyLog(tmp_path)) as chat:
            chat.check()
            assert ask(chat, ["bark"]) == ["BARK!"]


def test_a_proxy_is_not_asked_the_way_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        chat.check()
        assert ask(chat, ["bark"]) == ["BARK!"]


@pytest.mark.parametrize("concurrency", [1, 5, 128])
def test_as_many_requests_at_once_as_allowed(tmp_path: Path, concurrency: int) -> None:
    def fault(_: Request) -> Fault:
        """Nobody is answered before as many wait as may."""
        if server.open == concurrency:
            server.release()
        return HANG

    prompts = [str(number) for number in range(3 * concurrency)]
    with LlmServer(shout, fault=fault) as server, open_chat(server, tmp_path, concurrency=concurrency) as chat:
        assert ask(chat, prompts) == [shout(prompt) for prompt in prompts]
        assert server.most_at_once == concurrency


# -- the server misbehaves


@pytest.mark.parametrize(
    "fault",
    [
        too_many(),
        SERVER_ERROR,
        Fault(503, body='{"error": "loading"}'),
        HALF_REPLY,
        DROPPED,
        HANG,
        GARBAGE,
        Fault(body=""),
        Fault(body="[]"),
        Fault(body='{"choices": []}'),
        Fault(body='{"choices": [{"message": null}]}'),
        Fault(body='{"choices": [{"message": {"role": "assistant", "content": 7}}]}'),
        Fault(body='{"error": {"message": "out of memory"}}'),
        Fault(headers={"Content-Encoding": "gzip"}, body="no gzip"),
    ],
    ids=str,
)
def test_what_goes_wrong_twice_is_asked_a_third_time(tmp_path: Path, fault: Fault) -> None:
    with LlmServer(shout, fault=numbered({0: fault, 1: fault})) as server:
        with open_chat(server, tmp_path, timeout=0.2, retries=2) as chat:
            assert ask(chat, ["bark"]) == ["BARK!"]
            assert server.prompts == ["bark"] * 3
    assert [row["reply"] for row in rows_of(tmp_path / "replies.jsonl")] == ["BARK!"]


@pytest.mark.parametrize("as_date", [False, True])
def test_a_pause_that_the_server_asks_for_holds_for_all(tmp_path: Path, as_date: bool) -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
    with LlmServer(shout, fault=numbered({1: too_many(date if as_date else "0.5")}), delay=0.01) as server:
        with open_chat(server, tmp_path, concurrency=2) as chat:
            assert ask(chat, list("abcdef")) == [f"{letter}!" for letter in "ABCDEF"]
        times = sorted(request.time for request in server.requests)
        gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        assert max(gaps) > (0.9 if as_date else 0.4)
        # Two requests were under way when it was asked for; all others came after it.
        assert gaps.index(max(gaps)) <= 2


def test_a_pause_of_hours_ends_the_run(tmp_path: Path) -> None:
    with LlmServer(shout, fault=numbered({0: too_many("7200")})) as server, open_chat(server, tmp_path) as chat:
        with pytest.raises(ServerError, match="asks for a pause of 7200 s"):
            ask(chat, ["bark"])


def test_a_server_with_a_rate_limit_answers_all_in_the_end(tmp_path: Path) -> None:
    """However often one request is told to come back: no record is lost as long as others get through."""

    def fault(request: Request) -> Fault | None:
        return too_many() if request.prompt == "unlucky" and request.number < BUSY else None

    prompts = ["unlucky", *(str(number) for number in range(BUSY))]
    with LlmServer(shout, fault=fault, delay=0.005) as server:
        with open_chat(server, tmp_path, concurrency=2, retries=1) as chat:
            assert ask(chat, prompts) == [shout(prompt) for prompt in prompts]
        assert server.prompts.count("unlucky") > 3


@pytest.mark.parametrize("fault", [SERVER_ERROR, HALF_REPLY, DROPPED, HANG, GARBAGE], ids=str)
def test_a_request_that_never_works_is_refused_and_the_others_are_not(tmp_path: Path, fault: Fault) -> None:
    prompts = ["a", "poison", "b", "c"]
    with LlmServer(shout, fault=lambda request: fault if request.prompt == "poison" else None) as server:
        with open_chat(server, tmp_path, timeout=0.2, retries=1) as chat:
            assert ask(chat, prompts) == ["A!", "NoReply", "B!", "C!"]
        # It is not in the log, so that a rerun asks again, and it alone.
        server.fault = numbered({})
        with open_chat(server, tmp_path) as chat:
            assert ask(chat, prompts) == ["A!", "POISON!", "B!", "C!"]
            assert (chat.answered, chat.reused) == (1, 3)


def test_requests_that_the_server_will_not_answer(tmp_path: Path) -> None:
    too_long = Fault(400, body='{"error": {"message": "This prompt\\n is too long"}}')
    with LlmServer(shout, fault=lambda request: too_long if "long" in request.prompt else None) as server:
        with open_chat(server, tmp_path, concurrency=1) as chat:
            assert ask(chat, ["long 1", "long 2", "short"]) == ["RequestRefused"] * 2 + ["SHORT!"]
            with pytest.raises(RequestRefused, match="400: This prompt is too long"):
                ask_one(chat, "long 3")
        assert Counter(server.prompts)["long 1"] == 1


def test_a_server_that_refuses_the_only_request_is_not_taken_for_one_that_answers_nobody(tmp_path: Path) -> None:
    """Any server can say yes, the scripted one too: else tests fail where one request is alone by chance."""
    refused = Fault(400, body="not this one")
    with LlmServer({"bark": "BARK!"}.__getitem__, fault=lambda r: refused if r.prompt == "meow" else None) as server:
        with open_chat(server, tmp_path) as chat:
            assert ask(chat, ["meow"]) == ["RequestRefused"]
            assert ask(chat, ["bark"]) == ["BARK!"]


@pytest.mark.parametrize("fault", [SERVER_ERROR, DROPPED, Fault(400, body="seed is no parameter")], ids=str)
def test_a_server_that_answers_nobody_ends_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """Not a refusal for each of a million records, and one error alone."""
    with LlmServer(shout, fault=lambda request: fault if request.number >= 10 else None) as server:
        with open_chat(server, tmp_path, concurrency=4, retries=1) as chat:
            with pytest.raises(ServerError, match=r"answers no request any more: .* no reply is lost"):
                ask(chat, [str(number) for number in range(1000)])
        assert len(server.requests) < 60
        server.fault = numbered({})
        with open_chat(server, tmp_path) as chat:
            ask(chat, [str(number) for number in range(20)])
            assert chat.reused == 10
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_server_that_went_away_ends_the_run(tmp_path: Path) -> None:
    with LlmServer(shout) as server:
        chat = open_chat(server, tmp_path, retries=1)
        assert ask(chat, ["bark"]) == ["BARK!"]
    with chat, pytest.raises(ServerError, match=r"cannot be reached \(.*\). Start the server"):
        ask(chat, [str(number) for number in range(1000)])


def test_replies_that_are_no_clean_text(tmp_path: Path) -> None:
    def fault(request: Request) -> Fault:
        content = {"thought only": None, "half a pair": "\ud83d barks"}[request.prompt]
        return Fault(body=json.dumps({"choices": [{"message": {"content": content}}]}))

    with LlmServer(shout, fault=fault) as server, open_chat(server, tmp_path) as chat:
        assert ask(chat, ["thought only", "half a pair"]) == ["", "? barks"]
    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        assert ask(chat, ["\udc15 meows"]) == ["? MEOWS!"]
    assert len(rows_of(tmp_path / "replies.jsonl")) == 3


# -- before the first request


def test_an_unreachable_server_is_told_at_once(tmp_path: Path) -> None:
    with ChatModel("http://127.0.0.1:9/v1", MODEL, ReplyLog(tmp_path)) as chat:
        with pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1 cannot be reached \(.*\). Start the server"):
            chat.check()


def test_a_server_need_not_be_there_where_the_log_answers_all(tmp_path: Path) -> None:
    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        ask(chat, ["bark"])
    with open_chat(server, tmp_path) as chat:
        assert ask(chat, ["bark"]) == ["BARK!"]
        # Told at once: not one of the six repetitions, which take a minute, is waited for.
        with pytest.raises(ServerError, match=r"cannot be reached \(.*\). Start the server"):
            ask(chat, ["meow"])
    with llm.open_chat(server.url, MODEL, None, tmp_path) as chat:
        assert ask(chat, ["bark"]) == ["BARK!"]


def test_a_wrong_model_is_told_with_the_right_ones(tmp_path: Path) -> None:
    with LlmServer(shout, model="Qwen/Qwen2-72B") as server:
        with ChatModel(server.url, "qwen", ReplyLog(tmp_path)) as chat:
            with pytest.raises(ServerError, match="has no model 'qwen'; it has Qwen/Qwen2-72B"):
                chat.check()
            with pytest.raises(ServerError, match="has no model 'qwen'; it has Qwen/Qwen2-72B"):
                ask(chat, ["bark"])
        assert server.requests == []
        with ChatModel(server.url, "Qwen/Qwen2-72B", ReplyLog(tmp_path)) as chat:
            chat.check()
            server.model = "another"
            with pytest.raises(ServerError, match="404 to requests for the model 'Qwen/Qwen2-72B': The model Qwen"):
                ask(chat, ["bark"])


@pytest.mark.parametrize(("served", "asked"), [("llama3:latest", "llama3"), ("org/llama", "org/llama:cheapest")])
def test_a_tag_or_provider_behind_the_name_is_the_servers_affair(tmp_path: Path, served: str, asked: str) -> None:
    with LlmServer(shout, model=served) as server, ChatModel(server.url, asked, ReplyLog(tmp_path)) as chat:
        chat.check()


def test_a_wrong_key(tmp_path: Path) -> None:
    with LlmServer(shout, api_key="right") as server:
        with open_chat(server, tmp_path, api_key="wrong") as chat:
            with pytest.raises(ServerError, match="does not accept the API key: invalid key"):
                chat.check()
        with open_chat(server, tmp_path, api_key="right") as chat:
            chat.check()
            assert ask(chat, ["bark"]) == ["BARK!"]
            server.api_key = "changed"
            with pytest.raises(ServerError, match="answers 401"):
                ask(chat, ["meow"])


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("localhost:8000", {}, "like http://localhost:8000/v1, got 'localhost:8000'"),
        ("http://", {}, "like http://localhost"),
        ("http://localhost", {"concurrency": 0}, "`concurrency` has to be at least 1"),
        ("http://localhost", {"timeout": 0}, "`timeout` more than 0"),
        ("http://localhost", {"retries": -1}, "`retries` at least 0"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, url: str, settings: dict, message: str) -> None:
    with ReplyLog(tmp_path) as log, pytest.raises(ValueError, match=message):
        ChatModel(url, MODEL, log, **settings)


# -- rows in, results out


def test_results_come_in_order_and_rows_are_taken_as_they_are_needed(tmp_path: Path) -> None:
    taken = 0

    def rows() -> Iterator[dict]:
        nonlocal taken
        for number in range(300):
            taken += 1
            yield {"prompt": str(number)}

    # Every seventh is asked twice, so that those after it are ready before it.
    with LlmServer(shout, fault=lambda request: DROPPED if request.number % 7 == 0 else None) as server:
        with open_chat(server, tmp_path, concurrency=3) as chat:
            results = chat.map(lambda row: chat.reply(row["prompt"], SAMPLING), rows())
            assert [next(results) for _ in range(100)] == [f"{number}!" for number in range(100)]
            assert taken <= 100 + 3 * llm.ROWS_PER_REQUEST
            assert list(results) == [f"{number}!" for number in range(100, 300)]


def test_a_slow_row_holds_up_nobody_else(tmp_path: Path) -> None:
    def reply(prompt: str) -> str:
        if prompt == "h":
            server.release()
        return shout(prompt)

    with LlmServer(reply, fault=lambda request: HANG if request.prompt == "slow" else None) as server:
        with open_chat(server, tmp_path, concurrency=2) as chat:
            assert ask(chat, ["slow", *"abcdefgh"]) == ["SLOW!", *(f"{letter}!" for letter in "ABCDEFGH")]


def test_a_caller_that_stops_early_stops_the_requests(tmp_path: Path) -> None:
    with LlmServer(shout, delay=0.01) as server:
        with open_chat(server, tmp_path, concurrency=2) as chat:
            results = chat.map(
                lambda row: chat.reply(row["prompt"], SAMPLING), ({"prompt": str(i)} for i in range(500))
            )
            assert next(results) == "0!"
            results.close()
        assert len(server.requests) < 100


def test_an_error_in_a_row_reaches_the_caller(tmp_path: Path) -> None:
    async def work(row: dict) -> str:
        if row["prompt"] == "7":
            raise KeyError("no such column")
        return await chat.reply(row["prompt"], SAMPLING)

    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        with pytest.raises(KeyError, match="no such column"):
            list(chat.map(work, ({"prompt": str(number)} for number in range(50))))
        assert ask(chat, ["still there"]) == ["STILL THERE!"]


def test_equal_requests_at_once_are_sent_once(tmp_path: Path) -> None:
    with LlmServer(shout, delay=0.05) as server, open_chat(server, tmp_path) as chat:
        assert ask(chat, ["bark", "meow"] * 20) == ["BARK!", "MEOW!"] * 20
        assert sorted(server.prompts) == ["bark", "meow"]
        assert (chat.answered, chat.reused) == (2, 38)


# -- the log


def test_a_rerun_sends_nothing(tmp_path: Path) -> None:
    prompts = [f"sound {number}" for number in range(20)]
    with LlmServer(shout) as server:
        for _ in range(2):
            with open_chat(server, tmp_path) as chat:
                assert ask(chat, prompts) == [shout(prompt) for prompt in prompts]
        assert len(server.requests) == len(prompts)
        with open_chat(server, tmp_path) as chat:
            ask(chat, prompts[:1], Sampling(max_tokens=32, seed=1))
            ask(chat, prompts[:1], Sampling(max_tokens=31))
        assert len(server.requests) == len(prompts) + 2


def test_the_log_can_be_audited(tmp_path: Path) -> None:
    with LlmServer(shout) as server, open_chat(server, tmp_path) as chat:
        ask(chat, ['"犬"\nbarks'])
    text = (tmp_path / "replies.jsonl").read_text(encoding="utf-8")
    assert "犬" in text and text.count("\n") == 1
    (row,) = rows_of(tmp_path / "replies.jsonl")
    assert row.pop("created").endswith("Z")
    messages = [{"role": "user", "content": row["prompt"]}]
    assert row.pop("key") == reply_log.request_key(row["model"], row["sampling"], messages)
    assert row == {
        "model": MODEL,
        "sampling": {"max_tokens": 32, "temperature": 0.6, "top_p": 0.9, "seed": 42, "stop": []},
        "prompt": '"犬"\nbarks',
        "reply": '"犬"\nBARKS!',
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_line_that_was_cut_off_is_asked_for_again(tmp_path: Path, left: int) -> None:
    path = tmp_path / "replies.jsonl"
    with LlmServer(shout) as server:
        with open_chat(server, tmp_path, concurrency=1) as chat:
            ask(chat, list("abc"))
        *whole, last = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(whole) + last[:left])
        with open_chat(server, tmp_path) as chat:
            assert ask(chat, list("abcd")) == ["A!", "B!", "C!", "D!"]
            assert chat.reused == 2
    assert sorted(row["reply"] for row in rows_of(path)) == ["A!", "B!", "C!", "D!"]


@pytest.mark.parametrize("line", ["barks\n", "[]\n", '{"key": "zz", "reply": ""}\n', '{"key": "ab"}\n', "\0\0\n"])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "replies.jsonl").write_text('{"key": "ab", "reply": "x"}\n' + line + '{"key": "cd", "reply": "y"}\n')
    with pytest.raises(ValueError, match="replies.jsonl, line 2 is no row of a reply log"):
        ReplyLog(tmp_path)


def test_the_logs_of_several_processes_lie_in_one_folder(tmp_path: Path) -> None:
    with LlmServer(shout) as server:
        first = ChatModel(server.url, MODEL, ReplyLog(tmp_path, "shard-1"))
        second = ChatModel(server.url, MODEL, ReplyLog(tmp_path, "shard-2"))
        with first, second:
            ask(first, list("abc"))
            ask(second, list("def"))
        # One of them died while it wrote, or is just writing: another process leaves its file alone.
        with open(tmp_path / "shard-2.jsonl", "a") as file:
            file.write('{"key": "00')
        before = (tmp_path / "shard-2.jsonl").read_bytes()
        with ChatModel(server.url, MODEL, ReplyLog(tmp_path, "all")) as chat:
            assert ask(chat, list("abcdefg")) == [f"{letter}!" for letter in "ABCDEFG"]
            assert (chat.answered, chat.reused) == (1, 6)
        assert (tmp_path / "shard-2.jsonl").read_bytes() == before
        assert [row["reply"] for row in rows_of(tmp_path / "all.jsonl")] == ["G!"]


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks on this system")
def test_two_runs_do_not_write_one_log(tmp_path: Path) -> None:
    with ReplyLog(tmp_path):
        with pytest.raises(OSError, match="Another run writes .*replies.jsonl"):
            ReplyLog(tmp_path)
    ReplyLog(tmp_path).close()


class FullDisk:
    """A file on a disk that has room for `room` more bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    prompts = [str(number) for number in range(30)]
    with LlmServer(shout) as server:
        chat = open_chat(server, tmp_path, concurrency=2)
        chat.log._out = FullDisk(chat.log._out, room=1000)
        with chat, pytest.raises(OSError, match="replies before it are kept: make room") as caught:
            ask(chat, prompts)
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "replies.jsonl")
        kept = rows_of(tmp_path / "replies.jsonl")
        assert 0 < len(kept) < 10
        with open_chat(server, tmp_path) as chat:
            assert ask(chat, prompts) == [shout(prompt) for prompt in prompts]
            assert chat.reused == len(kept)


RUN = """
import signal, sys, types
from pathlib import Path

# The client without the seconds that the import of the model takes.
sys.modules["audiobert"] = types.ModuleType("audiobert")
sys.modules["audiobert"].__path__ = [sys.argv[3]]
from audiobert.llm.client import ChatModel, Sampling
from audiobert.llm.reply_log import ReplyLog

# As it is where a shell starts the tests in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
url, folder = sys.argv[1], Path(sys.argv[2])
with ChatModel(url, "scripted", ReplyLog(folder), concurrency=4) as chat:
    prompts = ({"prompt": f"sound {number % 50}"} for number in range(60))
    replies = list(chat.map(lambda row: chat.reply(row["prompt"], Sampling(max_tokens=32)), prompts))
(folder / "out.txt").write_text("\\n".join(replies))
"""


def run(server: LlmServer, folder: Path) -> subprocess.Popen:
    package = Path(llm.__file__).parents[1]
    command = [sys.executable, "-c", RUN, server.url, str(folder), str(package)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def finished(process: subprocess.Popen) -> bool:
    _, errors = process.communicate(timeout=TIMEOUT)
    return (process.returncode, errors) == (0, "")


@pytest.mark.processes
def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    log = tmp_path / "killed" / "replies.jsonl"
    with LlmServer(shout, fault=lambda request: HANG if request.number >= 23 else None) as server:
        process = run(server, log.parent)
        wait_until(process, lambda: len(server.requests) >= 27 and log.read_bytes().count(b"\n") >= 23)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=TIMEOUT)
        answered = set(server.answered)
        assert len(answered) == 23
        server.fault = numbered({})
        assert finished(run(server, log.parent))
        again = Counter(server.prompts)
        assert all(again[prompt] == 1 for prompt in answered)
        assert set(again) == {f"sound {number}" for number in range(50)}
    with LlmServer(shout) as server:
        assert finished(run(server, tmp_path / "whole"))
    assert (log.parent / "out.txt").read_bytes() == (tmp_path / "whole" / "out.txt").read_bytes()


def test_ctrl_c_ends_a_run_cleanly(tmp_path: Path) -> None:
    with LlmServer(shout, fault=lambda request: HANG if request.number >= 10 else None) as server:
        process = run(server, tmp_path)
        wait_until(process, lambda: len(server.requests) >= 14)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Task" not in errors and errors.count("Traceback") == 1
    assert len(rows_of(tmp_path / "replies.jsonl")) == 10
