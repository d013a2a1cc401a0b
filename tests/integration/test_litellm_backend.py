"""LiteLLM as a good citizen: parallel, cancelled, quiet, closed; and where each name of a model goes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ftagent.llm.library import KNOWN_WARNINGS, known_warnings_ignored, load_litellm
from ftagent.llm.litellm_backend import LiteLLMBackend
from ftagent.llm.targets import embedding_model, shown, target_of
from ftagent.llm.types import CallFailed, ChatRequest, Message, ModelChoice
from support.chat_server import ChatServer, eventually

KEY = "sk-canary-0123456789"


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    load_litellm()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")):
            monkeypatch.delenv(name)


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with ChatServer(key=KEY) as running:
        yield running


@pytest.fixture
async def backend(server: ChatServer) -> AsyncIterator[LiteLLMBackend]:
    made = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url})
    yield made
    await made.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def request(text: str = "Hello", **choice: object) -> ChatRequest:
    return ChatRequest(ModelChoice("gpt-test", **choice), (Message("user", text),))  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
async def test_twenty_calls_at_once(server: ChatServer, backend: LiteLLMBackend, stream: bool) -> None:
    server.behave("slow", times=20, text="one two three four", seconds=0.5 if stream else 0.1)
    replies = await asyncio.gather(*(backend.complete(request(str(n), stream=stream)) for n in range(20)))
    assert {reply.content for reply in replies} == {"one two three four"}
    assert server.most_open == 20
    assert {arrived.text for arrived in server.requests} == {str(number) for number in range(20)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_call_leaves_nothing_behind(
    server: ChatServer, backend: LiteLLMBackend, stream: bool
) -> None:
    await backend.complete(request(stream=stream))
    before = asyncio.all_tasks()
    # Some are cancelled while LiteLLM still prepares the request in a thread, some while they wait for the answer.
    for step in range(25):
        server.behave("hang", after=2 if step % 2 else None)
        task = asyncio.create_task(backend.complete(request(stream=stream)))
        await asyncio.sleep(step * 0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    server._queue.clear()
    assert (await backend.complete(request(stream=stream))).content == "Hello from the server."
    await eventually(lambda: not server.open)
    assert [task for task in asyncio.all_tasks() - before if "ftagent" in str(task.get_coro())] == []
    # A coroutine that nobody awaited is a warning, and warnings are errors here.
    gc.collect()


async def test_sockets_are_closed(server: ChatServer, capfd: pytest.CaptureFixture[str]) -> None:
    before = open_files()
    backend = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": server.url, "ANTHROPIC_API_KEY": KEY})
    await asyncio.gather(*(backend.complete(request()) for _ in range(5)))
    # Another provider's client, which LiteLLM keeps for itself, and which finds nothing at this address.
    with pytest.raises(CallFailed) as failed:
        await backend.complete(
            ChatRequest(ModelChoice("anthropic/claude-sonnet-4-5", api_base=server.url), (Message("user", "Hello"),))
        )
    assert failed.value.kind == "unknown_model"
    await backend.close()
    await eventually(lambda: open_files() <= before)
    gc.collect()
    assert capfd.readouterr() == ("", "")


async def test_a_closed_backend_can_be_used_again(backend: LiteLLMBackend) -> None:
    await backend.complete(request())
    await backend.close()
    assert (await backend.complete(request())).content == "Hello from the server."


async def test_nothing_is_printed_and_nothing_logged(
    server: ChatServer, backend: LiteLLMBackend, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for behaviour in ("reply", "500", "401", "too_long", "malformed", "wrong_schema", "cut", "unfinished", "refusal"):
        for stream in (False, True):
            server.behave(behaviour)  # type: ignore[arg-type]
            try:
                await backend.complete(request(stream=stream))
            except CallFailed:
                continue
    await asyncio.sleep(0.1)
    assert capfd.readouterr() == ("", "")
    # httpx tells every request at INFO; what is forbidden is LiteLLM's own, which quotes prompts and errors.
    assert [record for record in caplog.records if "litellm" in record.name.lower()] == []


def test_known_warnings_are_ignored_around_calls_alone() -> None:
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with known_warnings_ignored():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    with known_warnings_ignored():
        other.start()
        inside.wait(10)
        assert len(warnings.filters) == len(before) + len(KNOWN_WARNINGS)
    # The other one is still inside.
    warnings.warn("Pydantic serializer warnings: nobody can act on these", UserWarning, stacklevel=1)
    leave.set()
    other.join(10)
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("Pydantic serializer warnings: but these are ours", UserWarning, stacklevel=1)


def test_litellm_reads_no_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CANARY_API_KEY=sk-canary\n")
    code = (
        "import os; from ftagent.llm.library import load_litellm; load_litellm(); "
        "assert 'CANARY_API_KEY' not in os.environ; import dotenv; assert dotenv.load_dotenv(); "
        "assert 'CANARY_API_KEY' in os.environ"
    )
    # The second half shows that the file would have been found.
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


async def test_embeddings(server: ChatServer, backend: LiteLLMBackend) -> None:
    texts = ["a b c", "hello", ""]
    vectors, usage = await backend.embed(ModelChoice("text-embedding-test"), texts)
    assert vectors == [[5.0, 1.0, 3.0], [5.0, 2.0, 1.0], [0.0, 0.0, 0.0]]
    assert usage.prompt == 4
    assert await backend.embed(ModelChoice("text-embedding-test"), []) == ([], type(usage)())
    assert len(server.requests) == 1
    server.behave("429", retry_after=2)
    with pytest.raises(CallFailed) as failed:
        await backend.embed(ModelChoice("text-embedding-test"), texts)
    assert (failed.value.kind, failed.value.retry_after) == ("rate_limit", 2.0)
    server.behave("hang")
    with pytest.raises(CallFailed) as failed:
        await backend.embed(ModelChoice("text-embedding-test", time_limit=0.2), texts)
    assert failed.value.kind == "time_out"
    assert len(server.requests) == 3


async def test_azure_with_the_addresses_of_openai(server: ChatServer) -> None:
    base = server.url.removesuffix("/v1")
    backend = LiteLLMBackend({"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": base})
    vectors, _ = await backend.embed(ModelChoice(embedding_model("text-embedding-ada-002", use_azure=True)), ["a b"])
    reply = await backend.complete(ChatRequest(ModelChoice("azure/mine"), (Message("user", "Hello"),)))
    assert vectors == [[3.0, 1.0, 2.0]]
    assert reply.content == "Hello from the server."
    assert [arrived.path for arrived in server.requests] == [
        "/openai/deployments/text-embedding-ada-002/embeddings", "/openai/deployments/mine/chat/completions"
    ]  # fmt: skip
    server.behave("503", times=9)
    with pytest.raises(CallFailed):
        await backend.embed(ModelChoice("azure/mine"), ["a b"])
    with pytest.raises(CallFailed):
        await backend.complete(ChatRequest(ModelChoice("azure/mine"), (Message("user", "Hello"),)))
    assert len(server.requests) == 4
    await backend.close()


BASE = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("model", "credentials", "expected"),
    [
        ("gpt-5.2", {"OPENAI_API_KEY": KEY}, ("openai/gpt-5.2", "", KEY)),
        ("gpt-5.2", {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": BASE}, ("openai/gpt-5.2", BASE, KEY)),
        ("my-model", {"OPENAI_BASE_URL": BASE}, ("openai/my-model", BASE, "")),
        ("organisation/name", {"OPENAI_API_BASE": BASE}, ("openai/organisation/name", BASE, "")),
        ("openai/my-model", {"OPENAI_API_BASE": BASE}, ("openai/my-model", BASE, "")),
        ("openai/openai/gpt-oss-20b", {"OPENAI_API_BASE": BASE}, ("openai/openai/gpt-oss-20b", BASE, "")),
        ("claude-sonnet-4-5", {"OPENAI_API_BASE": BASE, "OPENAI_API_KEY": KEY},
         ("openai/claude-sonnet-4-5", BASE, KEY)),
        ("claude-sonnet-4-5", {"OPENAI_API_BASE": BASE, "ANTHROPIC_API_KEY": KEY}, ("claude-sonnet-4-5", "", KEY)),
        ("anthropic/claude-sonnet-4-5", {"OPENAI_API_BASE": BASE, "OPENAI_API_KEY": KEY},
         ("anthropic/claude-sonnet-4-5", "", "")),
        ("ollama/llama3.1", {"OLLAMA_API_BASE": BASE, "OPENAI_API_KEY": KEY}, ("ollama/llama3.1", BASE, "")),
        ("gemini/gemini-2.5-pro", {"GEMINI_API_KEY": KEY}, ("gemini/gemini-2.5-pro", "", KEY)),
        ("azure/mine", {"AZURE_API_KEY": KEY, "AZURE_API_BASE": BASE, "OPENAI_API_KEY": "other"},
         ("azure/mine", BASE, KEY)),
    ],
)  # fmt: skip
def test_where_a_name_goes(model: str, credentials: dict[str, str], expected: tuple[str, str, str]) -> None:
    target = target_of(ModelChoice(model), credentials)
    assert (target.model, target.api_base, target.api_key) == expected
    assert KEY not in repr(target)


def test_the_choice_wins_over_credentials() -> None:
    choice = ModelChoice("my-model", api_key="chosen-key", api_base="http://chosen/v1")
    target = target_of(choice, {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": BASE})
    assert (target.api_base, target.api_key) == ("http://chosen/v1", "chosen-key")


def test_what_else_a_provider_wants() -> None:
    target = target_of(
        ModelChoice("bedrock/anthropic.claude-3-haiku-20240307-v1:0"),
        {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret-0123", "AWS_REGION_NAME": "eu-west-1"},
    )
    assert target.further == {
        "aws_access_key_id": "id", "aws_secret_access_key": "secret-0123", "aws_region_name": "eu-west-1"
    }  # fmt: skip
    assert "secret-0123" in target.asked.secrets


async def test_a_name_that_nobody_serves() -> None:
    with pytest.raises(
        CallFailed, match=r"^gpt-nope: no provider is known .*PROVIDER/gpt-nope.*OPENAI_API_BASE"
    ) as failed:
        await LiteLLMBackend().complete(ChatRequest(ModelChoice("gpt-nope"), (Message("user", "Hello"),)))
    assert failed.value.kind == "unknown_model"


@pytest.mark.parametrize(
    ("model", "variable"),
    [("gpt-4o", "OPENAI_API_KEY"), ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY")],
)
async def test_a_missing_key_is_named_without_a_request(model: str, variable: str) -> None:
    with pytest.raises(CallFailed, match=f"no key; set {variable}") as failed:
        await LiteLLMBackend().complete(ChatRequest(ModelChoice(model), (Message("user", "Hello"),)))
    assert failed.value.kind == "authentication"


def test_addresses_are_shown_without_passwords() -> None:
    assert shown("https://user:secret@host:1/v1?key=secret") == "https://host:1/v1"


async def test_an_answer_that_is_too_large_is_not_read(
    server: ChatServer, backend: LiteLLMBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftagent.llm.connections.LARGEST_ANSWER", 1_000_000)
    server.behave("huge")
    with pytest.raises(CallFailed, match="the answer is larger than 1000000 bytes") as failed:
        await backend.complete(request(stream=False))
    assert failed.value.kind == "refused"


def test_counting_tokens() -> None:
    backend = LiteLLMBackend()
    assert backend.count_tokens("gpt-4o", "") == 0
    assert 2 <= backend.count_tokens("my-model", "hello world") <= 4
    # A name for which LiteLLM would fetch a tokenizer.
    assert 2 <= backend.count_tokens("groq/llama-3.1-8b-instant", "hello world") <= 4
    assert backend.count_tokens("gpt-4o", "x" * 1_000_000) > 10_000
