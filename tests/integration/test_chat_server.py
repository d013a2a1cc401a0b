"""The table in docs/models.md: what a server may do, and what happens then, with a real server that counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import AgentUnavailable, FtagentError, NoUsableReply
from ftagent.llm.library import load_litellm
from ftagent.llm.litellm_backend import LiteLLMBackend
from ftagent.llm.problems import explained
from ftagent.llm.retry import RetryPolicy, with_retries
from ftagent.llm.types import CallFailed, ChatReply, ChatRequest, Message, ModelChoice, Price, Usage
from support.chat_server import ChatServer, eventually

PAGE = Path(__file__).parents[2] / "docs/models.md"
KEY = "sk-canary-0123456789"
PRICE = Price(prompt=1e-6, completion=2e-6)
RETRIES = 2
SECONDS = 3.0
"""Time limit of one request, where a case needs a short one."""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The first import of LiteLLM takes seconds, which no time limit here should include."""
    load_litellm()


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with ChatServer(key=KEY) as running:
        yield running


@dataclass
class Call:
    """One call as a run makes it: a backend, a policy, and what each failed request had cost."""

    server: ChatServer
    stream: bool
    notes: list[str] = field(default_factory=list)
    spent: float = 0.0
    """Dollars for the reply."""
    wasted: float = 0.0
    """Dollars for what arrived of replies that did not end."""
    requests: int = 0
    seconds: float = 0.0

    async def make(self, time_limit: float = 60.0, **choice: Any) -> ChatReply:
        given = {"api_base": self.server.url, "api_key": KEY, **choice}
        asked = ModelChoice("gpt-test", stream=self.stream, time_limit=time_limit, **given)
        backend = LiteLLMBackend(note=self.notes.append)
        request = ChatRequest(asked, (Message("user", "What is two and two?"),))

        async def attempt() -> ChatReply:
            self.requests += 1
            try:
                return await backend.complete(request)
            except CallFailed as failure:
                self.wasted += PRICE.of(failure.usage)
                raise

        started = asyncio.get_running_loop().time()
        try:
            reply, _ = await with_retries(RetryPolicy(RETRIES, 0.01), attempt, self.notes.append)
        except CallFailed as failure:
            raise explained(failure, "propose", asked.model, self.requests) from failure
        finally:
            self.seconds = asyncio.get_running_loop().time() - started
            await backend.close()
        self.spent += PRICE.of(reply.usage)
        return reply


GOOD = "Four, I would say."


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=2)


CASES: dict[str, Callable[[ChatServer], object]] = {
    "answers": lambda server: None,
    "429, Retry-After in seconds": lambda server: server.behave("429", retry_after=1),
    "429, Retry-After as a date": lambda server: server.behave("429", retry_after=soon()),
    "429, Retry-After of a day": lambda server: server.behave("429", retry_after=86_400),
    "429, no quota left": lambda server: server.behave("429", message="You exceeded your current quota."),
    "500 or 503 once": lambda server: server.behave("500"),
    "500 or 503 always": lambda server: server.behave("503", times=9),
    "never answers, once": lambda server: server.behave("hang"),
    "answers too slowly, once": lambda server: server.behave("slow", text=GOOD, seconds=0.7),
    "closes the connection before the reply": lambda server: server.behave("drop"),
    "closes the connection in the reply": lambda server: server.behave("cut", text=GOOD),
    "ends a stream without finish_reason": lambda server: server.behave("unfinished", text=GOOD),
    "reports an error inside a stream": lambda server: server.behave("error_in_stream", text=GOOD),
    "sends broken JSON": lambda server: server.behave("malformed"),
    "sends JSON that is no completion": lambda server: server.behave("wrong_schema"),
    "sends an empty reply": lambda server: server.behave("empty"),
    "sends 5 MB": lambda server: server.behave("huge"),
    "refuses in words (`refusal`)": lambda server: server.behave("refusal"),
    "filters the reply (`content_filter`)": lambda server: server.behave("content_filter"),
    "stops at its longest reply (`length`)": lambda server: server.behave("length", text=GOOD),
    "401 or 403": lambda server: server.behave("401"),
    "404, no such model": lambda server: server.behave("404"),
    "400, the prompt is too long": lambda server: server.behave("too_long"),
    "400, a parameter is not supported": lambda server: server.refused_parameters.add("temperature"),
    "400, anything else": lambda server: server.behave("400"),
}
TIMED = {"never answers, once", "answers too slowly, once"}
ONLY_STREAMS = {"ends a stream without finish_reason"}


def rows() -> dict[str, tuple[str, int, str]]:
    """What the page says: case -> outcome, requests, what is charged."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[2].isdecimal():
            found[cells[0]] = (cells[1], int(cells[2]), cells[3])
    return found


def test_the_page_has_a_row_for_every_case() -> None:
    assert rows().keys() == CASES.keys()


def modes(case: str) -> list[bool]:
    return [True] if case in ONLY_STREAMS else [False, True]


@pytest.mark.parametrize(
    ("case", "stream"),
    [
        pytest.param(case, stream, id=f"{case}, {'streamed' if stream else 'whole'}")
        for case in CASES
        for stream in modes(case)
    ],
)
async def test_what_happens_is_what_the_page_says(server: ChatServer, case: str, stream: bool) -> None:
    CASES[case](server)
    server.default = GOOD
    call = Call(server, stream)
    said, requests, charged = rows()[case]
    try:
        happened = outcome(await call.make(SECONDS if case in TIMED else 60.0))
        message = ""
    except NoUsableReply as error:
        happened, message = "the experiment fails", str(error)
    except AgentUnavailable as error:
        happened, message = "the run stops, resumable", str(error)
    assert said.startswith(happened)
    assert len(server.requests) == call.requests == requests
    arrived = " and what had arrived"
    assert charge(call) == (charged if stream else charged.removesuffix(arrived))
    assert "\n" not in message
    assert len(message) < 700
    assert KEY not in message + "".join(call.notes)


def outcome(reply: ChatReply) -> str:
    if reply.refusal:
        return "the refusal is the reply"
    if reply.finish_reason == "content_filter":
        return "an empty reply, marked as filtered"
    if reply.finish_reason == "length":
        return "the reply up to there, marked as cut"
    return "the reply" if reply.content == GOOD else "an empty reply"


def charge(call: Call) -> str:
    charged = ["the reply"] * (call.spent > 0) + ["what had arrived"] * (call.wasted > 0)
    return " and ".join(charged) or "nothing"


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_are_as_far_apart_as_the_server_asks(server: ChatServer, stream: bool) -> None:
    server.behave("429", retry_after=1).behave("503", retry_after=0.5)
    call = Call(server, stream)
    await call.make()
    first, second, third = (request.at for request in server.requests)
    assert 1.0 <= second - first < 5.0
    assert 0.5 <= third - second < 5.0
    assert [note.rpartition("; ")[2] for note in call.notes] == ["retry 1 of 2 in 1.0 s", "retry 2 of 2 in 0.5 s"]


async def test_a_date_is_waited_for(server: ChatServer) -> None:
    date = soon()
    server.behave("429", retry_after=date)
    await Call(server, True).make()
    # HTTP dates have whole seconds.
    assert datetime.now(UTC) >= date.replace(microsecond=0)


async def test_what_arrived_of_a_cut_reply_is_counted(server: ChatServer) -> None:
    text = " ".join(str(number) for number in range(400))
    server.behave("cut", text=text).reply(GOOD)
    call = Call(server, True)
    await call.make()
    assert call.spent == pytest.approx(PRICE.of(Usage(prompt=5, completion=4)))
    # About 200 of 400 numbers arrived, with one or two tokens each.
    assert PRICE.of(Usage(completion=150)) < call.wasted < PRICE.of(Usage(prompt=50, completion=800))


async def test_a_slow_stream_ends_at_the_time_limit(server: ChatServer) -> None:
    server.behave("slow", text="word " * 1000, seconds=0.2, times=9)
    call = Call(server, True)
    with pytest.raises(FtagentError, match=r"no complete reply within 0\.5 s"):
        await call.make(0.5)
    assert call.requests == RETRIES + 1
    assert 1.5 <= call.seconds < 10
    await eventually(lambda: server.hung_up == RETRIES + 1)


async def test_nobody_listens(server: ChatServer, unused_tcp_port: int) -> None:
    call = Call(server, True)
    address = f"http://127.0.0.1:{unused_tcp_port}/v1"
    with pytest.raises(FtagentError, match=re.escape(f"{address}: cannot connect (connection refused)")):
        await call.make(api_base=address)
    assert call.requests == RETRIES + 1
    assert server.requests == []


async def test_the_reply_is_cut_at_its_limit(server: ChatServer) -> None:
    for stream in (False, True):
        server.behave("huge", usage=None)
        reply = await Call(server, stream).make()
        assert len(reply.content) == 4_000_000
        assert reply.finish_reason == "length"
        assert reply.usage.completion > 100_000


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_and_cached_tokens_are_told(server: ChatServer, stream: bool) -> None:
    usage = {
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "completion_tokens_details": {"reasoning_tokens": 30}, "prompt_tokens_details": {"cached_tokens": 64},
    }  # fmt: skip
    server.reply("Four.", reasoning="Two and two, let me see.", usage=usage)
    reply = await Call(server, stream).make()
    assert (reply.content, reply.reasoning) == ("Four.", "Two and two, let me see.")
    assert reply.usage == Usage(100, 50, 30, 64)


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_counted_where_the_server_does_not(server: ChatServer, stream: bool) -> None:
    server.reply("one two three four five six", reasoning="seven eight", usage=None)
    reply = await Call(server, stream).make()
    assert 6 <= reply.usage.prompt <= 12
    assert reply.usage.reasoning == 2
    assert reply.usage.completion in (8, 9)


async def test_a_refused_parameter_is_left_out_from_then_on(server: ChatServer) -> None:
    server.refused_parameters |= {"temperature", "frequency_penalty"}
    notes: list[str] = []
    backend = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url}, notes.append)
    request = ChatRequest(ModelChoice("gpt-test", frequency_penalty=0.5), (Message("user", "Hello"),))
    for expected in (3, 1):
        _, requests = await with_retries(RetryPolicy(0), lambda: backend.complete(request), notes.append)
        assert requests == expected
    await backend.close()
    assert len(server.requests) == 4
    where = f"gpt-test at {server.url} does not take"
    assert notes == [f"{where} frequency_penalty: left out from now on", f"{where} temperature: left out from now on"]


async def test_a_renamed_parameter_is_tried_under_its_new_name(server: ChatServer) -> None:
    server.refused_parameters |= {"max_tokens"}
    call = Call(server, True)
    await call.make(max_tokens=77)
    assert [request.body.get("max_completion_tokens") for request in server.requests] == [None, 77]


async def test_a_model_that_cannot_stream_is_asked_without(server: ChatServer) -> None:
    server.refused_parameters |= {"stream"}
    server.default = GOOD
    reply = await Call(server, True).make()
    assert reply.content == GOOD
    assert [request.body.get("stream") for request in server.requests] == [True, None]
    assert "stream_options" not in server.requests[1].body


async def test_a_schema_is_sent_and_given_up_when_refused(server: ChatServer) -> None:
    server.refused_parameters |= {"response_format"}
    backend = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url})
    request = ChatRequest(ModelChoice("gpt-4o"), (Message("user", "Hello"),), schema={"type": "object", "title": "T"})
    assert backend.follows_schema("gpt-4o")
    await with_retries(RetryPolicy(0), lambda: backend.complete(request), lambda note: None)
    await backend.close()
    assert not backend.follows_schema("gpt-4o")
    sent = server.requests[0].body["response_format"]
    assert sent["json_schema"] == {"name": "T", "schema": {"type": "object", "title": "T"}}
    assert "response_format" not in server.requests[1].body
