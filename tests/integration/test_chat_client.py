"""The whole client, from settings to a real server that misbehaves: retries counted, costs kept, the key nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from pydantic import BaseModel

from ftagent.core import events
from ftagent.core.calls import Calls
from ftagent.core.errors import AgentUnavailable, NoUsableReply, RequestError
from ftagent.core.events import Limits
from ftagent.core.observer import Silent
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import LimitReached, Session
from ftagent.core.types import CallPlace
from ftagent.llm.client import ChatClient
from ftagent.llm.library import load_litellm
from ftagent.llm.models import build_client, check_prices
from ftagent.llm.structured import ask, ask_files
from ftagent.llm.types import Message
from ftagent.settings import load
from support.chat_server import ChatServer

KEY = "sk-canary-0123456789abcdef"
PRICES = json.dumps({"gpt-test": {"input": 10, "output": 40}})
PLACE = CallPlace(0, "propose")
ASK = [Message("user", "What next?")]
GOOD = '```json\n{"title": "Lower rate"}\n```'


class Idea(BaseModel):
    title: str


class Nothing(BaseModel):
    pass


@dataclass
class Run:
    """A run folder, a client of it and all that it says."""

    folder: Path
    client: ChatClient
    session: Session
    notes: list[str]
    log: list[str] = field(default_factory=list)

    @property
    def called(self) -> list[events.Called]:
        return [record.event for record in self.session.journal.records if isinstance(record.event, events.Called)]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    load_litellm()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")):
            monkeypatch.delenv(name)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """`start(server, budget, VARIABLE=…)`; the client must be closed in its event loop."""
    made: list[Run] = []
    sinks: list[int] = []

    def begin(server: ChatServer, budget: float | None = None, **variables: str) -> Run:
        environ = {
            "CHAT_MODEL": "gpt-test", "OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url,
            "FTAGENT_MODEL_PRICES": PRICES, "RETRY_WAIT_SECONDS": "0.01", **variables,
        }  # fmt: skip
        (tmp_path / "run").mkdir()
        notes: list[str] = []
        session = Session(RunFolder(tmp_path / "run"), Silent())
        session.record(events.Created("noop", "accuracy", "maximize", 0, Limits(budget_usd=budget), True))
        calls = Calls()
        calls.open(session)
        client = build_client(load(None, environ, tmp_path), calls, notes.append, tmp_path / "files")
        made.append(Run(tmp_path, client, session, notes))
        sinks.append(logger.add(made[-1].log.append, level="TRACE"))
        return made[-1]

    yield begin
    for sink in sinks:
        logger.remove(sink)
    for run in made:
        run.session.close()


@pytest.mark.parametrize("stream", ["True", "False"])
async def test_retries_are_counted_once_and_retry_after_is_honoured(start: Callable[..., Run], stream: str) -> None:
    async with ChatServer(key=KEY) as server:
        server.behave("429", retry_after=0.3).behave("503").behave("drop").reply("4")
        run = start(server, CHAT_STREAM=stream)
        reply = await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    assert reply.content == "4"
    assert len(server.requests) == 4
    assert server.requests[1].at - server.requests[0].at >= 0.3
    assert [called.requests for called in run.called] == [4]
    assert len(run.notes) == 3
    assert all(note.startswith("propose: ") for note in run.notes)


async def test_no_more_requests_than_max_retry_allows(start: Callable[..., Run]) -> None:
    async with ChatServer(key=KEY) as server:
        server.behave("500", times=20)
        run = start(server, MAX_RETRY="2")
        with pytest.raises(AgentUnavailable, match="no reply after 3 requests"):
            await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    assert len(server.requests) == 3
    assert run.called == []


async def test_a_parameter_that_the_model_refuses_costs_one_request_and_no_retry(start: Callable[..., Run]) -> None:
    async with ChatServer(key=KEY, refused_parameters={"temperature"}) as server:
        run = start(server, MAX_RETRY="0")
        for _ in range(2):
            await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    assert ["temperature" in request.body for request in server.requests] == [True, False, False]
    assert [called.requests for called in run.called] == [2, 1]
    assert len(run.notes) == 1
    assert "does not take temperature" in run.notes[0]


async def test_what_a_cut_stream_delivered_is_charged(start: Callable[..., Run]) -> None:
    async with ChatServer(key=KEY) as server:
        server.reply("one two three four").behave("cut", text="one two three four five six").reply("one two three four")
        run = start(server)
        await run.client.chat("propose", PLACE, ASK)
        await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    plain, cut = run.called
    assert plain.cost_usd is not None
    assert cut.cost_usd is not None
    assert cut.cost_usd > plain.cost_usd
    assert (plain.requests, cut.requests) == (1, 2)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty": ("empty", {}, "it was empty"),
    "no fence": ("reply", {"text": "I would lower it."}, "no JSON object"),
    "two fences": ("reply", {"text": '```json\n{"a": 1}\n```\n```json\n[1]\n```'}, "title: field required"),
    "truncated": ("length", {"text": '```json\n{"title": "Lo'}, "cut off at"),
    "5 MB": ("huge", {}, "cut off at"),
    "wrong type": ("reply", {"text": '```json\n{"title": 3}\n```'}, "valid string (given: 3)"),
    "NaN": ("reply", {"text": '```json\n{"title": NaN}\n```'}, "NaN is no number"),
    "refusal": ("refusal", {}, "the model refused"),
    "content filter": ("content_filter", {}, "content filter"),
}


@pytest.mark.parametrize("name", BAD)
async def test_every_unusable_reply_is_repaired_and_charged(start: Callable[..., Run], name: str) -> None:
    behaviour, details, problem = BAD[name]
    async with ChatServer(key=KEY) as server:
        server.behave(behaviour, **details).reply(GOOD)  # type: ignore[arg-type]
        run = start(server)
        idea = await ask(run.client, "propose", PLACE, ASK, Idea)
        await run.client.close()
    assert idea.title == "Lower rate"
    assert problem in server.requests[1].text
    assert len(json.dumps(server.requests[1].body)) < 10_000
    assert len(run.called) == len(server.requests) == 2
    assert all(called.cost_usd for called in run.called)


async def test_files_come_through_streaming_unchanged(start: Callable[..., Run]) -> None:
    code = "def f(x):\n    return f'{x}  \\n'  # ü\n\n\n"
    async with ChatServer(key=KEY) as server:
        server.reply(f"### file: a.py\n```python\n{code}```\n")
        run = start(server)
        _, files = await ask_files(run.client, "code", CallPlace(0, "code"), ASK, Nothing)
        await run.client.close()
    assert files == {"a.py": code}


@pytest.mark.parametrize(
    ("behaviour", "error", "part"),
    [
        ("401", AgentUnavailable, "OPENAI_API_KEY"),
        ("403", AgentUnavailable, "OPENAI_API_KEY"),
        ("404", AgentUnavailable, "CHAT_MODEL"),
        ("400", NoUsableReply, "not valid"),
        ("too_long", NoUsableReply, "too long"),
    ],
)
async def test_final_failures_end_at_once_and_say_what_to_set(
    start: Callable[..., Run], behaviour: Any, error: type[Exception], part: str
) -> None:
    async with ChatServer() as server:
        server.behave(behaviour)
        run = start(server)
        with pytest.raises(error) as caught:
            await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)
    assert (len(server.requests), run.notes) == (1, [])


async def test_the_key_is_nowhere(start: Callable[..., Run]) -> None:
    """Prompts, replies, streams that are cut and errors quote it; the server gets it in its header alone."""
    encoded = [base64.b64encode(b"x" * lead + KEY.encode() + b"yz").decode() for lead in range(3)]
    async with ChatServer(key=KEY) as server:
        server.reply(f"your key is {KEY} {encoded}", reasoning=f"hm {KEY}").behave("500", message=f"bad key {KEY}")
        server.reply(GOOD).reply(f'```json\n{{"titel": "{KEY}"}}\n```').reply(GOOD)
        server.behave("401", message=f"Incorrect API key provided: {KEY}")
        run = start(server, DUMP_CHAT_CACHE="True", EMBEDDING_MODEL="text-embedding-test", DUMP_EMBEDDING_CACHE="True")
        said = await run.client.chat("propose", PLACE, [Message("system", KEY), Message("user", f"{KEY} {encoded}")])
        await ask(run.client, "propose", PLACE, [Message("user", f"again {KEY}")], Idea)
        await ask(run.client, "code", PLACE, ASK, Idea)
        with pytest.raises(AgentUnavailable) as caught:
            await run.client.chat("judge", PLACE, ASK)
        await run.client.embed([f"text with {KEY}"])
        await run.client.close()
    assert [request.key for request in server.requests] == [KEY] * len(server.requests)
    kept = [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]
    texts = [*kept, *(json.dumps(request.body).encode() for request in server.requests)]
    texts += [text.encode() for text in (*run.log, *run.notes, str(caught.value), said.content, said.reasoning)]
    assert len(kept) > 5
    assert sum(b"[redacted]" in text for text in texts) > 8
    # The longest part of each alignment that does not depend on its neighbours.
    forms = [KEY.encode(), *(text[4:32].encode() for text in encoded)]
    assert [form for form in forms for text in texts if form in text] == []


async def test_parallel_calls_stay_under_the_cap(start: Callable[..., Run]) -> None:
    async with ChatServer(key=KEY) as server:
        server.behave("slow", times=80, seconds=0.001, text="word " * 40)
        run = start(server, 0.05, LITELLM_CHAT_MODEL_MAP='{"propose": {"max_tokens": 60}, "judge": {"max_tokens": 60}}')
        check_prices(run.client)
        roles: list[Any] = ["propose", "judge"]
        results = await asyncio.gather(
            *(run.client.chat(roles[number % 2], PLACE, [Message("user", f"{number}")]) for number in range(80)),
            return_exceptions=True,
        )
        await run.client.close()
    costs = [called.cost_usd or 0.0 for called in run.called]
    assert {type(result) for result in results if isinstance(result, Exception)} == {LimitReached}
    assert 0.05 <= sum(costs) < 0.05 + max(costs)
    assert server.most_open > 1


async def test_the_judge_has_its_own_address_and_key(start: Callable[..., Run]) -> None:
    async with ChatServer(key=KEY) as server, ChatServer(key="jk-other-0123456789") as other:
        other.reply("fair")
        run = start(
            server, FT_JUDGE_MODEL="judge-test", FT_JUDGE_API_KEY="jk-other-0123456789", FT_JUDGE_API_BASE=other.url
        )
        assert (await run.client.chat("judge", PLACE, ASK)).content == "fair"
        await run.client.chat("propose", PLACE, ASK)
        await run.client.close()
    assert [request.body["model"] for request in other.requests] == ["judge-test"]
    assert [request.body["model"] for request in server.requests] == ["gpt-test"]


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"CHAT_MODEL": "gpt-4o"}, "gpt-4o: no key; set OPENAI_API_KEY"),
        ({"CHAT_MODEL": "anthropic/claude-sonnet-4-5"}, "set ANTHROPIC_API_KEY"),
        ({"CHAT_MODEL": "gemini/gemini-2.5-pro"}, "API_KEY"),
        ({"CHAT_MODEL": "gpt-4o", "OPENAI_API_KEY": KEY, "FT_WEAK_MODELS": '["deepseek/deepseek-chat"]'},
         "deepseek/deepseek-chat: no key; set DEEPSEEK_API_KEY"),
        ({"CHAT_MODEL": "gpt-4o", "OPENAI_API_KEY": KEY, "EMBEDDING_MODEL": "voyage/voyage-3"}, "VOYAGE_API_KEY"),
        ({"CHAT_MODEL": "my-own-model"}, "no provider is known for it"),
    ],
)  # fmt: skip
def test_a_key_that_is_missing_is_named_before_a_run(tmp_path: Path, variables: dict[str, str], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        build_client(load(None, variables, tmp_path), Calls(), lambda note: None, tmp_path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"CHAT_MODEL": "gpt-4o", "OPENAI_API_KEY": KEY},
        {"CHAT_MODEL": "my-own-model", "OPENAI_API_BASE": "http://127.0.0.1:9/v1"},
        {"CHAT_MODEL": "ollama/llama3"},
        {"CHAT_MODEL": "anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY": KEY},
        {"CHAT_MODEL": "gemini/gemini-2.5-pro", "GEMINI_API_KEY": KEY},
        {"CHAT_MODEL": "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0"},
        {"CHAT_MODEL": "gpt-5.2", "OPENAI_API_KEY": KEY, "OPENAI_API_BASE": "http://x/v1",
         "EMBEDDING_MODEL": "text-embedding-ada-002", "EMBEDDING_USE_AZURE": "True",
         "FT_STRONG_MODELS": '["gpt-5", "gpt-5.1"]'},
    ],
)  # fmt: skip
def test_what_can_be_asked_is_let_through(tmp_path: Path, variables: dict[str, str]) -> None:
    build_client(load(None, variables, tmp_path), Calls(), lambda note: None, tmp_path)
