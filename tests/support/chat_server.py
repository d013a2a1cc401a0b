"""A real HTTP server on loopback that speaks OpenAI's protocol, counts requests and misbehaves on command.

    async with ChatServer() as server:            # in the test's own event loop
        server.reply("4").behave("429", retry_after=1)
    with running_server() as server: ...          # in a thread, for tests without a loop

What was queued with `reply` and `behave` is used up in order, one entry for one request; after that every request
gets `server.default`, a text or a function from the request to one. Requests that `key` or `refused_parameters`
turn away take nothing from the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Literal, Self, get_args

from aiohttp import web

Behaviour = Literal[
    "reply",  # what was asked for
    "429",  # Retry-After: `retry_after` (seconds, or a datetime for an HTTP-date), None leaves it out
    "500", "502", "503", "529",  # may carry Retry-After too
    "400", "401", "403", "404",
    "unsupported",  # 400 that names `parameter`
    "too_long",  # 400 context_length_exceeded
    "hang",  # never answers; with `after`, stops after so many pieces of a stream
    "drop",  # closes the connection without a word
    "cut",  # closes the connection in the middle of the reply
    "unfinished",  # a stream that ends cleanly without finish_reason and [DONE]; not streamed: the reply
    "error_in_stream",  # an error object after half of the pieces; not streamed: 500
    "slow",  # `seconds` before every piece
    "empty",  # no content
    "malformed",  # 200 whose body is broken JSON
    "wrong_schema",  # 200 whose body is valid JSON and no completion
    "huge",  # 5 MB of content
    "refusal",  # message.refusal
    "content_filter",  # finish_reason content_filter
    "length",  # finish_reason length
]  # fmt: skip
HUGE = 5_000_000
ERRORS: dict[str, tuple[int, str, str]] = {
    "400": (400, "invalid_request_error", "The request is not valid."),
    "401": (401, "invalid_api_key", "Incorrect API key provided: {key}."),
    "403": (403, "permission_denied", "You are not allowed to sample from this model."),
    "404": (404, "model_not_found", "The model `{model}` does not exist or you do not have access to it."),
    "429": (429, "rate_limit_exceeded", "Rate limit reached for {model}."),
    "500": (500, "server_error", "The server had an error while processing your request."),
    "502": (502, "bad_gateway", "Bad gateway."),
    "503": (503, "overloaded", "The engine is overloaded, please try again later."),
    "529": (529, "overloaded_error", "Overloaded."),
    "unsupported": (400, "unsupported_parameter", "Unsupported parameter: '{parameter}' is not supported."),
    "too_long": (
        400,
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `at` is a time of the monotonic clock in seconds."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def key(self) -> str:
        return self.headers.get("api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def text(self) -> str:
        """Content of the last message."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Answer:
    """What one request gets."""

    behaviour: Behaviour = "reply"
    text: str = "Hello from the server."
    reasoning: str = ""
    usage: dict[str, Any] | Literal["counted"] | None = "counted"
    """As OpenAI writes it; None sends none; "counted" counts words."""
    retry_after: float | datetime | None = None
    seconds: float = 0.05
    after: int | None = None
    parameter: str = "temperature"
    message: str = ""
    """Of an error, instead of the usual one."""

    def __post_init__(self) -> None:
        assert self.behaviour in get_args(Behaviour), f"unknown behaviour {self.behaviour!r}"


@dataclass
class ChatServer:
    """Serves /v1/chat/completions, /v1/embeddings and /v1/models; `url` ends in /v1."""

    default: str | Callable[[Request], str] = "Hello from the server."
    models: tuple[str, ...] = ("gpt-test", "text-embedding-test")
    key: str = ""
    """The only key that is let in; "" lets everybody in."""
    refused_parameters: set[str] = field(default_factory=set)
    """Names that get a 400 whenever a request has them."""
    requests: list[Request] = field(default_factory=list)
    """Those for chat and embeddings; /models is not among them."""
    hung_up: int = 0
    """Requests whose client went away before they were answered."""
    open: int = 0
    most_open: int = 0
    url: str = ""
    _queue: deque[Answer] = field(default_factory=deque)
    _runner: web.AppRunner | None = None

    def reply(self, text: str, *, times: int = 1, **details: Any) -> Self:
        """Queue a good reply; `details` as `Answer` names them."""
        return self.behave("reply", times=times, text=text, **details)

    def behave(self, behaviour: Behaviour, *, times: int = 1, **details: Any) -> Self:
        """Queue `times` answers of a kind; `details` as `Answer` names them."""
        self._queue.extend([Answer(behaviour, **details)] * times)
        return self

    @property
    def unused(self) -> int:
        """Queued answers that no request has used up."""
        return len(self._queue)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._serve)
        app.router.add_post("/v1/embeddings", self._serve)
        app.router.add_get("/v1/models", self._list_models)
        # As Azure names them, below `url` without /v1.
        app.router.add_post("/openai/deployments/{name}/chat/completions", self._serve)
        app.router.add_post("/openai/deployments/{name}/embeddings", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _list_models(self, http: web.Request) -> web.Response:
        if self.key and http.headers.get("Authorization") != f"Bearer {self.key}":
            request = Request(http.path, {}, {}, time.monotonic())
            return self._error(request, Answer("401"))
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.models]
        return web.json_response({"object": "list", "data": listed})

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in http.headers.items()}
        request = Request(http.path, headers, await http.json(), time.monotonic())
        self.requests.append(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(http, request, self._choose(request))
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up += 1
            raise
        finally:
            self.open -= 1

    def _choose(self, request: Request) -> Answer:
        if self.key and request.key != self.key:
            return Answer("401")
        for name in sorted(self.refused_parameters & request.body.keys()):
            return Answer("unsupported", parameter=name)
        if self._queue:
            return self._queue.popleft()
        if request.path.endswith("embeddings"):
            return Answer()
        return Answer(text=self.default if isinstance(self.default, str) else self.default(request))

    async def _answer(self, http: web.Request, request: Request, answer: Answer) -> web.StreamResponse:
        streamed = bool(request.body.get("stream"))
        if answer.behaviour in ERRORS:
            return self._error(request, answer)
        if answer.behaviour == "error_in_stream" and not streamed:
            return self._error(request, Answer("500"))
        if answer.behaviour == "malformed":
            return web.Response(text='{"id": "broken", "choices": [{"mess', content_type="application/json")
        if answer.behaviour == "wrong_schema":
            return web.json_response({"fruit": ["apple", "pear"], "ok": True})
        if answer.behaviour == "hang" and not (streamed and answer.after is not None):
            await asyncio.Event().wait()
        if answer.behaviour == "drop":
            return close(http)
        if request.path.endswith("embeddings"):
            return web.json_response(embeddings(request))
        return await (self._stream if streamed else self._complete)(http, request, answer)

    def _error(self, request: Request, answer: Answer) -> web.Response:
        status, code, message = ERRORS[answer.behaviour]
        model = request.body.get("model", "")
        message = answer.message or message.format(model=model, key=request.key, parameter=answer.parameter)
        headers = {}
        if isinstance(answer.retry_after, datetime):
            headers["Retry-After"] = format_datetime(answer.retry_after, usegmt=True)
        elif answer.retry_after is not None:
            headers["Retry-After"] = f"{answer.retry_after:g}"
        parameter = answer.parameter if answer.behaviour == "unsupported" else None
        error = {"message": message, "type": "invalid_request_error", "param": parameter, "code": code}
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _complete(self, http: web.Request, request: Request, answer: Answer) -> web.StreamResponse:
        message, finish = body_of(answer)
        completion: dict[str, Any] = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request.body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        }  # fmt: skip
        if usage := usage_of(request, answer, message):
            completion["usage"] = usage
        if answer.behaviour == "slow":
            # Far beyond any time limit: on a busy machine a client may look at its clock seconds too late.
            await asyncio.sleep(10 * answer.seconds * len(pieces(message.get("content") or "")))
        if answer.behaviour != "cut":
            return web.json_response(completion)
        data = json.dumps(completion).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
        await response.prepare(http)
        await response.write(data[: len(data) // 2])
        return close(http, response)

    async def _stream(self, http: web.Request, request: Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(http)
        message, finish = body_of(answer)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        for name in ("reasoning_content", "content", "refusal"):
            deltas += [{name: piece} for piece in pieces(message.get(name) or "")]
        ending = {"cut": len(deltas) // 2, "error_in_stream": len(deltas) // 2, "hang": answer.after}
        for number, delta in enumerate(deltas):
            if number == ending.get(answer.behaviour):
                break
            if answer.behaviour == "slow":
                await asyncio.sleep(answer.seconds)
            await send(response, request, [{"index": 0, "delta": delta, "finish_reason": None}])
        if answer.behaviour == "cut":
            return close(http, response)
        if answer.behaviour == "hang":
            await asyncio.Event().wait()
        if answer.behaviour == "error_in_stream":
            error = {"message": "The server had an error.", "type": "server_error", "code": "server_error"}
            await response.write(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
        if answer.behaviour not in ("unfinished", "error_in_stream"):
            await send(response, request, [{"index": 0, "delta": {}, "finish_reason": finish}])
            usage = usage_of(request, answer, message)
            if usage and (request.body.get("stream_options") or {}).get("include_usage"):
                await send(response, request, [], usage=usage)
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


async def send(response: web.StreamResponse, request: Request, choices: list[Any], **more: Any) -> None:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": request.body["model"],
             "choices": choices, **more}  # fmt: skip
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def close(http: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """End the connection here, whatever was promised."""
    if http.transport is not None:
        http.transport.close()
    return response or web.Response()


def body_of(answer: Answer) -> tuple[dict[str, Any], str]:
    """The message and its finish_reason."""
    special = {
        "empty": ({"content": ""}, "stop"),
        "huge": ({"content": "x" * HUGE}, "stop"),
        "refusal": ({"content": None, "refusal": "I cannot help with that."}, "stop"),
        "content_filter": ({"content": ""}, "content_filter"),
        "length": ({"content": answer.text}, "length"),
    }
    message, finish = special.get(answer.behaviour, ({"content": answer.text}, "stop"))
    return message | ({"reasoning_content": answer.reasoning} if answer.reasoning else {}), finish


def pieces(text: str) -> list[str]:
    """Words with the space after them; long words in pieces of 64 KiB. Joined they are `text`."""
    return [found[i : i + 65536] for found in re.findall(r"\s*\S+\s*", text) for i in range(0, len(found), 65536)]


def usage_of(request: Request, answer: Answer, message: dict[str, Any]) -> dict[str, Any] | None:
    if answer.usage != "counted":
        return answer.usage
    prompt = sum(len(str(turn["content"]).split()) for turn in request.body["messages"])
    reasoning = len((message.get("reasoning_content") or "").split())
    completion = len((message.get("content") or "").split()) + reasoning
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning}, "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


def embeddings(request: Request) -> dict[str, Any]:
    """Vectors of three numbers that depend on the text alone: its length, vowels and words."""
    texts = request.body["input"]
    texts = [texts] if isinstance(texts, str) else texts
    vectors = [[float(len(text)), float(sum(text.count(vowel) for vowel in "aeiou")), float(len(text.split()))]
               for text in texts]  # fmt: skip
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    count = sum(len(text.split()) for text in texts)
    return {"object": "list", "model": request.body["model"], "data": data,
            "usage": {"prompt_tokens": count, "total_tokens": count}}  # fmt: skip


async def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `holds()`: a server notices a closed connection a moment later. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def running_server(**settings: Any) -> Iterator[ChatServer]:
    """The same in a thread of its own; `settings` as `ChatServer` names them."""
    server = ChatServer(**settings)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await done.wait()

    def work() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, name="chat-server", daemon=True)
    thread.start()
    try:
        assert ready.wait(10), "the server did not start"
        assert server.url, "the server did not start"
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
