"""What a call to a model costs beside the model: our path against bare `litellm.acompletion`, same local server.

    python tests/bench/bench_llm.py [CALLS]

`backend` is one attempt through LiteLLMBackend; `client` is all of ChatClient: redaction, digest, ledger under a cap,
retries, transcript and journal, synced to disk. Ways take turns call by call; the server is a process of its own. CPU
is user and system time of this process.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
KEY = "sk-0123456789"
PROMPT = "Here is what was tried, and what came of it: " * 200
REPLY = "a word or two more " * 20
"""100 words, each a chunk of its own when streamed."""
WARM_UP = 5

Call = Callable[[], Awaitable[Any]]


@dataclass
class Times:
    """Milliseconds of each call."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def measure(ways: dict[str, Call], count: int) -> dict[str, Times]:
    """Each way `count` times, in turns."""
    found = {name: Times() for name in ways}
    for number in range(WARM_UP + count):
        for name, call in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            await call()
            # What a call leaves running in the background belongs to it.
            await asyncio.sleep(0)
            if number >= WARM_UP:
                found[name].wall.append(1000 * (time.perf_counter() - wall))
                found[name].cpu.append(1000 * (time.process_time() - cpu))
    return found


async def compare(url: str, stream: bool, count: int, folder: Path) -> dict[str, Times]:
    """Bare LiteLLM, the backend and the client, for whole or streamed replies."""
    from loguru import logger

    from ftagent.core import events
    from ftagent.core.calls import Calls
    from ftagent.core.observer import Silent
    from ftagent.core.run_folder import RunFolder
    from ftagent.core.session import Session
    from ftagent.core.types import CallPlace
    from ftagent.llm.cache import ReplyCache
    from ftagent.llm.client import ChatClient, ClientOptions
    from ftagent.llm.library import load_litellm
    from ftagent.llm.litellm_backend import LiteLLMBackend
    from ftagent.llm.redaction import Redactor
    from ftagent.llm.retry import RetryPolicy
    from ftagent.llm.types import ROLES, ChatRequest, Message, ModelChoice, Price

    # A run writes its log to a file; standard error is not what is measured.
    logger.remove()
    litellm = load_litellm()
    backend = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": url})
    choice = ModelChoice("gpt-test", temperature=0.5, stream=stream)
    messages = (Message("system", "You improve models."), Message("user", PROMPT))
    session = Session(RunFolder(folder), Silent())
    session.record(events.Created("noop", "accuracy", "maximize", 0, events.Limits(budget_usd=1e6), True))
    calls = Calls()
    calls.open(session)
    nothing = ReplyCache(folder / "llm.sqlite", read=False, write=False, note=print)
    options = ClientOptions(RetryPolicy(3, 1.0), {}, prices={"gpt-test": Price(1e-6, 2e-6)})
    client = ChatClient(
        backend, dict.fromkeys(ROLES, choice), calls, options, note=print, redactor=Redactor([KEY]),
        replies=nothing, vectors=nothing,
    )  # fmt: skip

    async def bare() -> None:
        asked = [{"role": message.role, "content": message.content} for message in messages]
        reply = await litellm.acompletion(
            model="openai/gpt-test", messages=asked, temperature=0.5, api_key=KEY, api_base=url, max_retries=0,
            timeout=600.0, **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        )  # fmt: skip
        if stream:
            pieces = [chunk.choices[0].delta.content or "" async for chunk in reply]
            assert "".join(pieces) == REPLY
        else:
            assert reply.choices[0].message.content == REPLY

    async def through_backend() -> None:
        assert (await backend.complete(ChatRequest(choice, messages))).content == REPLY

    async def through_client() -> None:
        assert (await client.chat("propose", CallPlace(0, "propose"), messages)).content == REPLY

    try:
        return await measure({"bare": bare, "backend": through_backend, "client": through_client}, count)
    finally:
        await client.close()
        session.close()


def serve() -> None:
    """The server, until standard input ends."""
    sys.path.insert(0, str(HERE))
    from support.chat_server import running_server

    with running_server(default=REPLY) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def main(count: int) -> None:
    command = [sys.executable, __file__, "--serve"]
    print(
        f"{'':<10}{'':<9}{'wall ms':>9}{'CPU ms':>9}{'over bare':>11}{'ratio':>7}   (medians of {count}, CPU compared)"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        assert server.stdin is not None
        url = server.stdout.readline().strip()
        for mode, stream in (("whole", False), ("streamed", True)):
            (Path(folder) / mode).mkdir()
            found = asyncio.run(compare(url, stream, count, Path(folder) / mode))
            floor = statistics.median(found["bare"].cpu)
            for name, times in found.items():
                wall, cpu = statistics.median(times.wall), statistics.median(times.cpu)
                print(f"{mode:<10}{name:<9}{wall:>9.1f}{cpu:>9.1f}{cpu - floor:>11.1f}{cpu / floor:>7.2f}")
        server.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 50)
