"""Asking an LLM behind an OpenAI-compatible server: many requests at once, patiently, and never the same one twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import httpx2
from huggingface_hub import AsyncInferenceClient, ChatCompletionOutput
from huggingface_hub.errors import HfHubHTTPError

from .reply_log import ReplyLog, request_key

# Seconds before the first repetition; each further one waits twice as long, up to the limit. Both are cut at random.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
# A server that asks for a longer pause than this, in seconds, is not waited for.
LONGEST_PAUSE = 600.0
# Seconds that the first contact may take.
CHECK_TIMEOUT = 10.0
# Rows under way for each request under way, so that one slow row does not hold up the others.
ROWS_PER_REQUEST = 16
# A pool looks at each of its connections for each request, so that one large pool is slower than several small ones.
CONNECTIONS_PER_POOL = 8
# Sent where no key is given: without any, `huggingface_hub` would send the user's Hugging Face token to the server.
NO_KEY = "none"

Result = TypeVar("Result")


class NoReply(Exception):
    """The server gave no reply to this request, however often it was asked, but does to others. A rerun asks again."""


class RequestRefused(Exception):
    """The server will not answer this request, such as one that is too long; the message is the server's."""


class ServerError(OSError):
    """No request to this server can succeed: it is not there, does not know the model, or wants another key."""


@dataclass(frozen=True)
class Sampling:
    """How the LLM draws a reply; the defaults are those of the code of the paper's authors."""

    max_tokens: int
    temperature: float = 0.6
    top_p: float = 0.9
    seed: int = 42
    stop: tuple[str, ...] = ()


class ChatModel:
    """A model behind an OpenAI-compatible server.

    Requests run in a thread of their own, so that they go on while the caller is busy with the results. The first one
    that the log cannot answer is preceded by `check`; where the log answers all, the server need not be there.

    Args:
        url: the server's address as clients are given it, such as `http://localhost:8000/v1`.
        model: the model, as the server names it.
        log: keeps the replies and is asked for them first; it is closed with the model.
        concurrency: requests under way at once.
        timeout: seconds for one try, up to the last byte.
        retries: how often a request is repeated after 429, 5xx, a time-out, a lost connection or a malformed body.
        api_key: sent to the server. A Hugging Face token is sent only if it is given here.

    Attributes:
        answered: replies that the server has given to this object.
        reused: replies that came from the log.

    Raises:
        ValueError: `url` is no http address, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        log: ReplyLog,
        *,
        concurrency: int = 16,
        timeout: float = 120.0,
        retries: int = 6,
        api_key: str | None = None,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"The server's address has to be like http://localhost:8000/v1, got {url!r}.")
        if concurrency < 1 or retries < 0 or timeout <= 0:
            raise ValueError(
                "`concurrency` has to be at least 1, `retries` at least 0 and `timeout` more than 0, "
                f"got {concurrency}, {retries} and {timeout}."
            )
        base = url.rstrip("/").removesuffix("/chat/completions")
        self.url = base if urlsplit(base).path else f"{base}/v1"
        self.model, self.log, self.retries, self.timeout = model, log, retries, timeout
        self.answered = self.reused = 0
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._contact = asyncio.Lock()
        self._contacted = False
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pause_ends = 0.0
        self._key = api_key or NO_KEY
        # A proxy of the environment is the way to other machines, not to this one.
        proxies = address.hostname not in ("localhost", "127.0.0.1", "::1")
        certificates = httpx2.create_ssl_context(trust_env=proxies)
        self._pools = [
            httpx2.AsyncClient(verify=certificates, limits=httpx2.Limits(), trust_env=proxies, timeout=None)
            for _ in range(-(-concurrency // CONNECTIONS_PER_POOL))
        ]
        # The whole address: from another one the client would guess where `/v1` goes.
        self._client = _Client(self._pools, base_url=f"{self.url}/chat/completions", api_key=self._key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ChatModel", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Contacts the server and looks whether it has the model.

        Raises:
            ServerError: it cannot be reached, does not have the model, or does not accept the key.
        """
        self._run(self._check_once())

    async def reply(self, prompt: str, sampling: Sampling) -> str:
        """The reply to one message of the user: the log's if there is one, the server's otherwise.

        To be awaited in the `work` that is given to `map`. A request that is asked for again while it is under way is
        sent once.

        Raises:
            NoReply, RequestRefused: there is no reply to this request.
            ServerError: there is none to any.
            OSError: the reply cannot be written to the log.
        """
        messages = [{"role": "user", "content": _valid_unicode(prompt)}]
        request = {"model": self.model, "sampling": asdict(sampling)}
        key = request_key(**request, messages=messages)
        # Held by those who wait for the request, and gone with the last of them.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            known = self.log.get(key)
            if known is not None:
                self.reused += 1
                return known
            await self._check_once()
            async with self._slots:
                reply = await self._ask_patiently(messages, sampling)
            self.log.append({"key": key, **request, "prompt": messages[0]["content"], **reply})
            return reply["reply"]

    def map(self, work: Callable[[dict], Awaitable[Result]], rows: Iterable[dict]) -> Iterator[Result]:
        """The results of `work` on each of `rows`, in their order, while many are under way.

        Only a window of rows is held at a time. An error in any row ends all at once: what was replied is in the log.
        """
        rows = iter(rows)
        window: deque[Future[Result]] = deque()
        failure: Future[None] = Future()

        async def watched(row: dict) -> Result:
            try:
                return await work(row)
            except Exception as error:
                if not failure.done():
                    failure.set_exception(error)
                # Told once, by `failure`; asyncio would print every other error that nobody asks for.
                raise asyncio.CancelledError from error

        try:
            while True:
                for row in islice(rows, self._concurrency * ROWS_PER_REQUEST - len(window)):
                    window.append(asyncio.run_coroutine_threadsafe(watched(row), self._loop))
                if not window:
                    return
                wait((window[0], failure), return_when=FIRST_COMPLETED)
                if failure.done():
                    failure.result()
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()

    def close(self) -> None:
        """Gives up what is under way, and closes the connections and the log."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.log.close()

    def __enter__(self) -> ChatModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools:
            await pool.aclose()

    async def _check_once(self) -> None:
        async with self._contact:
            if not self._contacted:
                await self._check()
                self._contacted = True

    async def _check(self) -> None:
        try:
            request = self._pools[0].get(f"{self.url}/models", headers={"authorization": f"Bearer {self._key}"})
            response = await asyncio.wait_for(request, min(self.timeout, CHECK_TIMEOUT))
        except (asyncio.TimeoutError, httpx2.RequestError) as error:
            raise self._unreachable(error) from error
        if response.is_redirect:
            raise ServerError(f"{self.url} sends its clients on to {response.headers['location']}; use that address.")
        if response.status_code in (401, 403):
            raise ServerError(f"{self.url} does not accept the API key: {_message_in(response)}. Give the right key.")
        names = _models_in(response)
        # A tag or a provider after a colon may be left out, or added, by the rules of some servers.
        if names and not {self.model, self.model.split(":")[0]} & {*names, *(name.split(":")[0] for name in names)}:
            raise ServerError(f"{self.url} has no model {self.model!r}; it has {', '.join(sorted(names)[:20])}.")

    async def _ask_patiently(self, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        tries, answered_before = 0, self.answered
        answered_at_last_try = self.answered
        while True:
            await self._wait_for_pause()
            try:
                return await self._ask(messages, sampling)
            except _Refused as error:
                refusal: NoReply | RequestRefused = RequestRefused(str(error))
                break
            except _Failed as error:
                refusal = NoReply(str(error))
                # Too many requests at once are no fault of this one, as long as the others get through.
                if not (error.busy and self.answered > answered_at_last_try):
                    tries += 1
                answered_at_last_try = self.answered
                if tries > self.retries:
                    if error.unreachable:
                        raise self._unreachable(error) from error
                    break
            await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries, 16) / 2) * random.uniform(0.5, 1.0))
        # Is it the request, or the server? Where nobody has been answered meanwhile, a trivial request tells.
        if self.answered == answered_before:
            await self._ask_trivially(refusal)
        raise refusal

    async def _ask_trivially(self, refusal: NoReply | RequestRefused) -> None:
        try:
            await self._ask([{"role": "user", "content": "Say yes."}], Sampling(max_tokens=8))
        except (_Failed, _Refused) as error:
            if not (isinstance(error, _Failed) and error.busy):
                raise ServerError(
                    f"{self.url} answers no request any more: {refusal}. See what is wrong with the server, "
                    "and start the same command again: no reply is lost."
                ) from error

    async def _ask(self, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        """One try. Returns reply, finish_reason and usage."""
        request = self._client.chat_completion(
            messages,
            model=self.model,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=list(sampling.stop) or None,
        )
        try:
            reply = _reply_in(await asyncio.wait_for(request, self.timeout))
        except asyncio.TimeoutError as error:
            raise _Failed(f"no answer within {self.timeout:g} s") from error
        except HfHubHTTPError as error:
            raise self._judge(error.response) from error
        except httpx2.RequestError as error:
            unreachable = isinstance(error, (httpx2.ConnectError, httpx2.ProxyError))
            raise _Failed(_described(error), unreachable=unreachable) from error
        except ValueError as error:
            raise _Failed(f"the body is no chat completion ({error})") from error
        self.answered += 1
        return reply

    def _judge(self, response: httpx2.Response) -> Exception:
        """What an error status means: for all requests, for this one, or for the moment."""
        status, message = response.status_code, _message_in(response)
        if status in (401, 404, 405, 407):
            return ServerError(
                f"{self.url} answers {status} to requests for the model {self.model!r}: {message}. "
                "Check the URL, the model's name and the key."
            )
        if status not in (408, 425, 429) and status < 500:
            return _Refused(f"{status}: {message}")
        pause = _retry_after(response)
        if pause > LONGEST_PAUSE:
            return ServerError(f"{self.url} asks for a pause of {pause:.0f} s ({message}). Go on after it.")
        self._pause_ends = max(self._pause_ends, self._loop.time() + pause)
        return _Failed(f"{status}: {message}", busy=status == 429)

    async def _wait_for_pause(self) -> None:
        """Waits as long as the server asked to, which holds for every request; then not all at the same moment."""
        while (pause := self._pause_ends - self._loop.time()) > 0:
            await asyncio.sleep(pause + random.uniform(0.0, FIRST_WAIT))

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(
            f"{self.url} cannot be reached ({_described(error)}). Start the server there, or correct the URL."
        )


@contextmanager
def open_chat(
    url: str,
    model: str,
    key: str | None,
    replies: str | Path,
    name: str = "replies",
    *,
    concurrency: int = 16,
    timeout: float = 120.0,
) -> Iterator[ChatModel]:
    """A model behind a server, and the log of its replies, `replies/name.jsonl`, open as long as the context lasts.

    Raises:
        OSError, ValueError: as `ReplyLog` and `ChatModel` do. The server is contacted with the first request.
    """
    with (
        ReplyLog(replies, name) as log,
        ChatModel(url, model, log, concurrency=concurrency, timeout=timeout, api_key=key) as chat,
    ):
        yield chat


class _Client(AsyncInferenceClient):
    """The Hub's client over connections of our own.

    Those it would open refuse every server, also one on this machine, while `HF_HUB_OFFLINE` is set, as it often is
    where a cluster has no internet; and no more than 100 are open at a time.
    """

    def __init__(self, pools: list[httpx2.AsyncClient], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._turns = cycle(pools)

    async def _get_async_client(self) -> httpx2.AsyncClient:
        return next(self._turns)


class _Refused(Exception):
    """The server understood the request and will not answer it."""


class _Failed(Exception):
    """A try that may succeed when it is repeated."""

    def __init__(self, message: str, *, busy: bool = False, unreachable: bool = False) -> None:
        super().__init__(message)
        self.busy, self.unreachable = busy, unreachable


def _reply_in(output: ChatCompletionOutput) -> dict[str, Any]:
    try:
        choice, usage = output.choices[0], output.usage
        content = choice.message.content
        tokens = usage and {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError("no choice with a message in it") from error
    # A model that only thought, or called a tool, has said nothing.
    if not isinstance(content, str | None):
        raise ValueError(f"the content is no text but {type(content).__name__}")
    return {"reply": _valid_unicode(content or ""), "finish_reason": choice.finish_reason, "usage": tokens}


def _valid_unicode(text: str) -> str:
    """JSON can hold halves of surrogate pairs, which no file and no request can: each becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _models_in(response: httpx2.Response) -> list[str]:
    """The names of the models a server lists, none if it does not tell."""
    try:
        return [model["id"] for model in response.json()["data"]] if response.is_success else []
    except (ValueError, KeyError, TypeError):
        return []


def _message_in(response: httpx2.Response) -> str:
    """What the server says about an error, on one line."""
    try:
        body = response.json()
        error = body.get("error", body)
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:300] or response.reason_phrase


def _retry_after(response: httpx2.Response) -> float:
    """Seconds until the server wants the next request: the header holds them, or a date."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__
