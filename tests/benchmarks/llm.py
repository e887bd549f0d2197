"""
Asking an LLM: `python tests/benchmarks/llm.py`. The server is a scripted one on loopback, in a process of its own.

Requests per second, beside `huggingface_hub`'s client in a plain loop that keeps no log and no order; the share of what
a server that takes half a second for each reply can do; and the memory that 1,000 and 10,000 records take.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

# The plain loop's client calls no server at all in this mode.
os.environ["HF_HUB_OFFLINE"] = "0"
sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from huggingface_hub import AsyncInferenceClient  # noqa: E402

from audiobert.llm.client import ChatModel, Sampling  # noqa: E402
from audiobert.llm.reply_log import ReplyLog  # noqa: E402

from llm_server import MODEL, LlmServer  # noqa: E402

SAMPLING = Sampling(max_tokens=32)
# About as long as an instruction with examples and the text of one recording.
INSTRUCTION = "Name what makes the sound, from broad to narrow. " * 40
SLOW_REPLY = 0.5

Figures = dict[str, float]


def serve(connection: Connection, delay: float) -> None:
    with LlmServer(lambda prompt: "animal/dog", delay=delay) as server:
        connection.send(server.url)
        connection.recv()


def prompts(count: int) -> Iterator[str]:
    return (f"{INSTRUCTION}\nTitle: recording {number}" for number in range(count))


def ours(url: str, concurrency: int, count: int) -> Figures:
    with (
        tempfile.TemporaryDirectory() as folder,
        ChatModel(url, MODEL, ReplyLog(folder), concurrency=concurrency) as chat,
    ):

        async def work(row: dict) -> dict:
            return {"reply": await chat.reply(row["prompt"], SAMPLING)}

        chat.check()
        memory, processor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        start = time.perf_counter()
        for _ in chat.map(work, ({"prompt": prompt} for prompt in prompts(count))):
            pass
        seconds = time.perf_counter() - start
        return {
            "requests/s": count / seconds,
            "ms of processor": (time.process_time() - processor) / count * 1e3,
            "MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
        }


def plain_loop(url: str, concurrency: int, count: int) -> Figures:
    async def run() -> float:
        slots = asyncio.Semaphore(concurrency)
        async with AsyncInferenceClient(base_url=url, api_key="none") as client:

            async def ask(prompt: str) -> None:
                messages = [{"role": "user", "content": prompt}]
                async with slots:
                    await client.chat_completion(messages, model=MODEL, max_tokens=32, temperature=0.6, top_p=0.9)

            start = time.perf_counter()
            await asyncio.gather(*map(ask, prompts(count)))
            return count / (time.perf_counter() - start)

    return {"requests/s": asyncio.run(run())}


def measured(run: Callable[..., dict[str, float]], concurrency: int, count: int, delay: float = 0.0) -> Figures:
    """Client and server each in a fresh process: neither's memory nor its interpreter lock is the other's."""
    context = get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there, delay))
    server.start()
    try:
        with context.Pool(1) as pool:
            return pool.apply(run, (here.recv(), concurrency, count))
    finally:
        here.send("stop")
        server.join()


def main() -> None:
    speed = Table("at once", "requests/s", "plain loop", "ratio", "ms of processor", f"share of ideal, {SLOW_REPLY} s")
    for concurrency in (1, 16, 128):
        count = 1000 if concurrency == 1 else 3000
        mine, theirs = measured(ours, concurrency, count), measured(plain_loop, concurrency, count)
        slow = measured(ours, concurrency, 12 * concurrency, delay=SLOW_REPLY)
        speed.add_row(
            str(concurrency),
            f"{mine['requests/s']:.0f}",
            f"{theirs['requests/s']:.0f}",
            f"{mine['requests/s'] / theirs['requests/s']:.2f}",
            f"{mine['ms of processor']:.2f}",
            f"{slow['requests/s'] * SLOW_REPLY / concurrency:.0%}",
        )
    memory = Table("records", "peak memory grows by, MiB")
    for count in (1000, 10_000):
        memory.add_row(f"{count:,}", f"{measured(ours, 16, count)['MiB']:.1f}")
    Console(width=120).print(speed, memory)


if __name__ == "__main__":
    main()
