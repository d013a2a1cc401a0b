"""The HTTP client under a backend: no limit on parallel calls, a limit on what one answer may weigh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

from ftagent.llm.failures import AnswerTooLarge

CONNECT_SECONDS = 30.0
"""Longest wait for a connection."""
LARGEST_ANSWER = 64_000_000
"""Bytes of an answer that is not streamed; it has to be in memory whole."""
request_sent: ContextVar[asyncio.Event | None] = ContextVar("request_sent", default=None)
"""Set when the request of the current task is handed to the network."""


def openai_client(api_base: str, api_key: str) -> Any:
    """An `AsyncOpenAI` without retries; close it when done."""
    import httpx
    import openai

    class Bounded(httpx.AsyncByteStream):
        def __init__(self, stream: httpx.AsyncByteStream) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for piece in self._stream:
                size += len(piece)
                if size > LARGEST_ANSWER:
                    raise AnswerTooLarge(f"the answer is larger than {LARGEST_ANSWER} bytes")
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: httpx.Response) -> None:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = Bounded(response.stream)

    async def mark_sent(request: httpx.Request) -> None:
        if (event := request_sent.get()) is not None:
            event.set()

    http_client = httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None),
        follow_redirects=True,
        event_hooks={"request": [mark_sent], "response": [bound]},
    )
    # Servers of one's own often want no key, but the SDK insists on one.
    return openai.AsyncOpenAI(
        api_key=api_key or "none", base_url=api_base or None, max_retries=0, http_client=http_client
    )


async def close_cached_clients(litellm: Any) -> None:
    """Close what LiteLLM keeps open in this event loop for providers that do not speak OpenAI's protocol."""
    cache = litellm.in_memory_llm_clients_cache.cache_dict
    for key in [key for key in cache if str(key).endswith(f"-{id(asyncio.get_running_loop())}")]:
        client = cache.pop(key)
        close = getattr(client, "close", None) or getattr(client, "aclose", None)
        if close is not None and (closing := close()) is not None:
            await closing
