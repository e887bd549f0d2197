"""A server on loopback that speaks OpenAI's chat API with scripted replies, and misbehaves when it is told to.

By hand: `python tests/llm_server.py --port 8000` answers the package's templates as `llm_script.scripted_reply` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODEL = "scripted"


@dataclass(frozen=True)
class Fault:
    """What the server does instead of answering: an error status, or one of the worse things."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    cut: bool = False  # the connection is closed in the middle of the right answer
    drop: bool = False  # it is closed without any
    hang: bool = False  # it stays open, silent, until the client goes or `release` is called


def too_many(retry_after: str | None = None) -> Fault:
    return Fault(
        429, {} if retry_after is None else {"Retry-After": retry_after}, '{"error": {"message": "slow down"}}'
    )


SERVER_ERROR = Fault(500, body="Internal Server Error")
HALF_REPLY = Fault(cut=True)
DROPPED = Fault(drop=True)
HANG = Fault(hang=True)
GARBAGE = Fault(body="<html>it works!</html>")


@dataclass(frozen=True)
class Request:
    """A chat request as it came: its number from 0, the prompt, the whole body, headers in lower case, and when."""

    number: int
    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]
    time: float


class LlmServer:
    """Runs in a thread while the context lasts.

    Args:
        reply: the content of the answer to a prompt.
        fault: what goes wrong with a request; None where nothing does.
        model: the only one it has.
        delay: seconds that each answer takes.
        api_key: what clients have to send; anything goes if None.
        port: 0 for any that is free.

    Attributes:
        url: the address for clients, with `/v1`.
        requests: every chat request that came in, in order.
        answered: prompts of the answers that were sent in full.
        most_at_once: the most requests that were open at the same time.
    """

    def __init__(
        self,
        reply: Callable[[str], str],
        *,
        fault: Callable[[Request], Fault | None] = lambda _: None,
        model: str = MODEL,
        delay: float = 0.0,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        self.reply, self.fault, self.model, self.delay = reply, fault, model, delay
        self.api_key, self.port = api_key, port
        self.requests: list[Request] = []
        self.answered: list[str] = []
        self.open = self.most_at_once = 0
        self.loop = asyncio.new_event_loop()
        self.released = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]

    def __enter__(self) -> LlmServer:
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result()
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def release(self) -> None:
        """Lets those that hang have their answer."""
        self.loop.call_soon_threadsafe(self.released.set)

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        self.server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, with as many requests as the client likes."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.open += 1
                self.most_at_once = max(self.most_at_once, self.open)
                try:
                    await self._answer(first.split()[1], headers, body, writer)
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            await send(writer, 401, {"error": {"message": "invalid key"}})
        elif path == "/v1/models":
            await send(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif path == "/v1/chat/completions":
            request = json.loads(body)
            prompt = request["messages"][-1]["content"]
            record = Request(len(self.requests), prompt, request, headers, time.monotonic())
            self.requests.append(record)
            await self._chat(record, writer)
        else:
            await send(writer, 404, {"error": {"message": f"no route {path}"}})

    async def _chat(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.body["model"] != self.model:
            await send(writer, 404, {"error": {"message": f"The model {request.body['model']} does not exist."}})
            return
        await asyncio.sleep(self.delay)
        fault = self.fault(request)
        if fault is not None and fault.hang:
            await self.released.wait()
        elif fault is not None and fault.drop:
            raise ConnectionAbortedError
        elif fault is not None and not fault.cut:
            await send(writer, fault.status, fault.body or "", fault.headers)
            return
        answer = completion(self.model, self.reply(request.prompt))
        if fault is not None and fault.cut:
            await send(writer, 200, answer, cut=True)
            raise ConnectionAbortedError
        await send(writer, 200, answer)
        self.answered.append(request.prompt)


def completion(model: str, content: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


async def send(
    writer: asyncio.StreamWriter,
    status: int,
    content: str | dict[str, Any],
    headers: dict[str, str] | None = None,
    cut: bool = False,
) -> None:
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    lines = [f"{name}: {value}" for name, value in {"Content-Length": len(body), **(headers or {})}.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Scripted", "Content-Type: application/json", *lines, "", ""]).encode()
    writer.write(head + (body[: len(body) // 2] if cut else body))
    await writer.drain()


def main() -> None:
    from llm_script import scripted_reply

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--model", default=MODEL, help="the name that clients have to use")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each answer takes")
    arguments = parser.parse_args()
    with LlmServer(scripted_reply, model=arguments.model, delay=arguments.delay, port=arguments.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
