"""A broker on the workspace of a run, and a client of it that speaks HTTP over its socket."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from ftagent.llm.broker import Broker, BrokerOptions, opener
from ftagent.llm.broker_socket import SOCKET
from ftagent.llm.client import ChatClient
from ftagent.llm.pools import Pools


@dataclass(frozen=True)
class Answer:
    """Of the endpoint. `events`: the documents of a stream."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Of the first choice."""
        return str(self.document["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[Any]:
        lines = self.body.decode().strip().split("\n\n")
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]


@dataclass(frozen=True)
class Endpoint:
    """`ask` is a chat completion with one message."""

    broker: Broker
    http: aiohttp.ClientSession

    async def send(self, method: str, path: str, body: Any = None, token: str | None = None) -> Answer:
        token = self.broker.variables["FTAGENT_LLM_TOKEN"] if token is None else token
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.request(method, f"http://broker{path}", data=data, headers=headers) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def ask(self, text: str = "hello", model: str = "strong", **parameters: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **parameters}
        return await self.send("POST", "/v1/chat/completions", body)


@contextlib.asynccontextmanager
async def serving(
    client: ChatClient,
    workspace: Path,
    pools: Pools | None = None,
    note: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> AsyncIterator[Endpoint]:
    """A broker for the stage in `workspace`, which is made."""
    workspace.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nobody waits
    open_broker = opener(client, pools or Pools(client.model("script")), BrokerOptions(**options), note)
    async with open_broker(workspace) as broker:
        folder = os.open(workspace, os.O_PATH)
        connector = aiohttp.UnixConnector(f"/proc/self/fd/{folder}/{SOCKET}", limit=0)
        try:
            async with aiohttp.ClientSession(connector=connector) as http:
                yield Endpoint(broker, http)
        finally:
            os.close(folder)
