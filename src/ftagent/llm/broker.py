"""Language models for scripts in a workspace: OpenAI's protocol on a socket there, for one stage at a time.

A script never sees a key: it has a token that dies with its stage. Its calls are metered, capped and recorded like
those of the agent, as role `script`. What was asked before in the run is answered from the record (see `Calls`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.core.run_folder import RunFolder
from ftagent.llm import script_replies
from ftagent.llm.broker_socket import SOCKET, Door, connections_for
from ftagent.llm.pools import Pools
from ftagent.llm.script_calls import ScriptCalls, ScriptClient
from ftagent.llm.script_requests import Refusal, json_object, parse_chat, parse_embedding
from ftagent.llm.types import ChatReply

if TYPE_CHECKING:
    from aiohttp import web

_PATHS = {"/v1/models": "GET", "/v1/chat/completions": "POST", "/v1/embeddings": "POST"}


@dataclass(frozen=True)
class BrokerOptions:
    """How brokers of a run work."""

    workers: int = 8
    """Calls at once for one script (FT_API_MAX_WORKERS); others wait."""
    embedding_model: str = ""
    """Its name; empty where there is none."""
    most_body_bytes: int = 2 * 1024 * 1024
    drain_seconds: float = 5.0
    """How long calls that are under way when a stage has ended may take: they are paid for all the same."""


@dataclass(frozen=True)
class _Job:
    """What one request wants: how to get it and how to say it. Equal requests have equal keys."""

    key: str
    work: Callable[[], Coroutine[Any, Any, Any]]
    say: Callable[[Any], tuple[bytes, str]]
    """Body and content type."""
    ignored: tuple[str, ...] = ()


class Broker:
    """Serves one stage. `opener` makes, starts and stops it."""

    def __init__(self, calls: ScriptCalls, pools: Pools, options: BrokerOptions) -> None:
        self._calls = calls
        self._pools = pools
        self._options = options
        self._token = f"ft-{secrets.token_urlsafe(32)}"
        self._slots = asyncio.Semaphore(options.workers)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._abandoned: dict[str, list[asyncio.Task[Any]]] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def variables(self) -> dict[str, str]:
        """For the stage; `python -m ftagent.toolkit.broker` reads them."""
        most = connections_for(self._options.workers)
        return {
            "FTAGENT_LLM_SOCKET": SOCKET,
            "FTAGENT_LLM_TOKEN": self._token,
            "FTAGENT_LLM_CONNECTIONS": str(most),
        }

    async def watch(self) -> None:
        """Never returns; raises what must end the stage at once (the record cannot be written, …)."""
        await asyncio.shield(self._broken)

    def conclude(self, ok: bool) -> None:
        """After the stage. Raises what broke, and what kept a stage that failed from its replies (the budget, a model
        that cannot be used): that was no fault of its code."""
        if not self._broken.cancelled() and self._broken.done():
            self._broken.result()
        if self._calls.blocked is not None and not ok:
            raise self._calls.blocked

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        from aiohttp import web

        # Whatever was worth another try has had it: a client that tries too would only take longer to fail.
        status, kind, headers = 200, "application/json", {"x-should-retry": "false"}
        try:
            body, kind, ignored = await self._route(request)
            headers = {"x-ftagent-ignored": ",".join(ignored)} if ignored else {}
        except Refusal as refusal:
            status = refusal.status
            body = script_replies.failure(status, refusal.code, str(refusal))
        except Exception as error:  # noqa: BLE001 - whatever it is, `watch` raises it and the stage ends
            self.break_off(error)
            status, body = 503, script_replies.failure(503, "broken", "the run cannot go on; it says why")
        response = web.Response(body=body, status=status, headers=headers, content_type=kind)
        response.force_close()  # a connection that rests would keep others out
        return response

    async def stop(self, seconds: float) -> None:
        """Let calls that are under way end for `seconds`, then cancel them."""
        try:
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=seconds)
        finally:
            left = set(self._under_way)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)
            if self._broken.done():
                self._broken.exception()  # retrieved, also where nobody asks for it
            else:
                self._broken.cancel()

    def break_off(self, error: BaseException) -> None:
        """Let `watch` raise `error`."""
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _route(self, request: web.BaseRequest) -> tuple[bytes, str, tuple[str, ...]]:
        """Body, content type and ignored parameters of the answer. Raises Refusal."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            raise Refusal(401, "invalid_api_key", "the key of this endpoint is in the variable OPENAI_API_KEY")
        if request.path not in _PATHS:
            raise Refusal(404, "not_found", f"there is only {', '.join(_PATHS)} here")
        if request.method != _PATHS[request.path]:
            raise Refusal(405, "method_not_allowed", f"{request.path} wants {_PATHS[request.path]}")
        if request.path == "/v1/models":
            return script_replies.models((*self._pools.names, *self._embedders)), "application/json", ()
        # Before the body is read: what waits for its turn takes no memory.
        await self._slots.acquire()
        with contextlib.ExitStack() as slot:
            slot.callback(self._slots.release)
            body = json_object(await self._read(request))
            job = self._embedding(body) if request.path == "/v1/embeddings" else self._chat(body)
            if abandoned := self._abandoned.get(job.key):
                task = abandoned.pop()
            else:
                task = self._start(job.work())
                slot.pop_all()  # from now on the task's own, which goes on when the client goes away
        for name in job.ignored:
            self._calls.say(f"a script's parameter {name!r} means nothing here and is ignored")
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            # Clients with a time limit of their own ask again: they get what they have asked for already.
            self._abandoned.setdefault(job.key, []).append(task)
            raise
        return *job.say(answer), job.ignored

    async def _read(self, request: web.BaseRequest) -> bytes:
        most = self._options.most_body_bytes
        text = b""
        try:
            async for piece in request.content.iter_any():
                text += piece
                if len(text) > most:
                    break
        except Exception as error:  # whatever cannot be read is the client's doing
            raise Refusal(400, "invalid_request", f"the body cannot be read: {type(error).__name__}") from error
        if len(text) > most:
            raise Refusal(413, "too_large", f"a request may have {most} bytes; this one has more")
        return text

    def _chat(self, body: dict[str, Any]) -> _Job:
        call = parse_chat(body, self._pools.names)

        def say(replies: list[tuple[str, ChatReply]]) -> tuple[bytes, str]:
            model, said = replies[0][0], [reply for _, reply in replies]
            if call.stream:
                return script_replies.chunks(model, said, call.stream_usage), "text/event-stream"
            return script_replies.completion(model, said), "application/json"

        return _Job(f"{call.samples} {call.key()}", lambda: self._calls.samples(call, self._slots), say, call.ignored)

    def _embedding(self, body: dict[str, Any]) -> _Job:
        if not self._embedders:
            raise Refusal(404, "model_not_found", "this run has no model for embeddings (EMBEDDING_MODEL)")
        texts, packed, ignored = parse_embedding(body, self._embedders)

        def say(vectors: list[list[float]]) -> tuple[bytes, str]:
            return script_replies.embeddings(self._options.embedding_model, vectors, packed), "application/json"

        return _Job("\0".join(["embedding", *texts]), lambda: self._calls.embed(texts), say, ignored)

    @property
    def _embedders(self) -> tuple[str, ...]:
        name = self._options.embedding_model
        return tuple(dict.fromkeys(("embedding", name))) if name else ()

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """As a task that gives its slot back when it ends."""
        task = asyncio.create_task(work)

        def ended(task: asyncio.Task[Any]) -> None:
            self._under_way.discard(task)
            self._slots.release()
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, Refusal):
                self.break_off(error)

        self._under_way.add(task)
        task.add_done_callback(ended)
        return task


def opener(
    client: ScriptClient, pools: Pools, options: BrokerOptions, note: Callable[[str], None]
) -> Callable[[Path], AbstractAsyncContextManager[Broker]]:
    """What opens a broker for the stage that is about to run in a workspace of a run, and ends it afterwards.

    The context raises what `Door` raises.
    """

    @contextlib.asynccontextmanager
    async def open_broker(workspace: Path) -> AsyncIterator[Broker]:
        from aiohttp import web

        place = RunFolder.place_of(workspace)
        with contextlib.closing(Door(workspace)) as door:
            broker = Broker(ScriptCalls(client, pools, place, note), pools, options)
            server = web.Server(broker.handle, handler_cancellation=True, access_log=None)
            serving = asyncio.create_task(door.serve(server, connections_for(options.workers), broker.break_off))
            seconds = 0.0
            try:
                yield broker
                seconds = options.drain_seconds
            finally:
                door.close()
                serving.cancel()
                await asyncio.wait([serving])
                await broker.stop(seconds)
                await server.shutdown()

    return open_broker
