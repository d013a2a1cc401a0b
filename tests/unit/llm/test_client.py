"""The client: what is sent, kept and charged, in which order, and what a failure becomes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ftagent.core.calls import Calls
from ftagent.core.errors import AgentUnavailable, NoUsableReply, RequestError
from ftagent.core.types import CallPlace
from ftagent.llm.scripted import ScriptedBackend
from ftagent.llm.thinking import without_thinking
from ftagent.llm.types import ChatReply, ChatRequest, Message, ModelChoice, Price, Usage
from unit.llm.conftest import MODEL, World, client

PLACE = CallPlace(0, "propose")
HELLO = [Message("system", "You are terse."), Message("user", "hello")]
PRICES = {"input": 1.0, "output": 2.0}
CANARY = "sk-canary-0123456789"


async def test_a_call_is_journaled_with_its_transcript_and_cost(world: Callable[..., World]) -> None:
    usage = {"prompt": 1000, "completion": 500, "reasoning": 100, "cached": 10}
    run = world([{"role": "propose", "text": "hi", "reasoning": "hm", "usage": usage}], prices=PRICES)
    reply = await run.open().chat("propose", PLACE, HELLO)
    assert reply == ChatReply("hi", "hm", usage=Usage(1000, 500, 100, 10))
    (called,) = run.called
    assert (called.loop, called.step, called.attempt, called.index, called.role, called.model) == (
        0, "propose", 0, 0, "propose", MODEL)  # fmt: skip
    assert (called.prompt_tokens, called.completion_tokens, called.reasoning_tokens, called.cached_tokens) == (
        1000, 500, 100, 10)  # fmt: skip
    assert called.cost_usd == pytest.approx(0.002)
    assert called.requests == 1
    ((name, text),) = run.transcripts().items()
    assert name == "Loop_0/direct_exp_gen/transcript/0.0_propose.json"
    assert json.loads(text) == {
        "role": "propose",
        "place": {"loop": 0, "step": "propose", "attempt": 0},
        "request": ChatRequest(ModelChoice(MODEL), tuple(HELLO)).document(),
        "reply": reply.document(),
        "cost_usd": called.cost_usd,
    }


async def test_a_resumed_session_gets_the_same_replies_without_asking(world: Callable[..., World]) -> None:
    run = world([{"role": "propose", "turn": n, "text": f"reply {n}"} for n in range(3)])

    async def converse() -> list[str]:
        asking, said, messages = run.open(), [], list(HELLO)
        for _ in range(3):
            reply = await asking.chat("propose", PLACE, messages)
            said.append(reply.content)
            messages += [Message("assistant", reply.content), Message("user", "more")]
        return said

    first, kept = await converse(), run.transcripts()
    assert await converse() == first == ["reply 0", "reply 1", "reply 2"]
    assert len(run.backend.requests) == len(run.called) == 3
    assert run.transcripts() == kept


async def test_equal_requests_in_one_session_are_asked_each_time(world: Callable[..., World]) -> None:
    run = world([{"role": "propose", "text": "hi"}])
    asking = run.open()
    await asking.chat("propose", PLACE, HELLO)
    await asking.chat("propose", PLACE, HELLO)
    assert [called.index for called in run.called] == [0, 1]
    resumed = run.open()
    for _ in range(3):
        await resumed.chat("propose", PLACE, HELLO)
    assert len(run.backend.requests) == 3


async def test_transcripts_of_equal_runs_have_equal_bytes(tmp_path: Path, world: Callable[..., World]) -> None:
    kept = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run = world([{"role": "propose", "text": "hi ü", "seconds": 0.01}], prices=PRICES)
        run.folder = tmp_path / name
        await run.open().chat("propose", PLACE, HELLO)
        kept.append(run.transcripts())
    assert kept[0] == kept[1] != {}


async def test_the_cache_is_free_and_still_recorded(world: Callable[..., World]) -> None:
    run = world([{"role": "propose", "text": "hi"}, {"role": "judge", "text": ""}], prices=PRICES)
    first = await run.open(write=True).chat("propose", PLACE, HELLO)
    other = CallPlace(1, "propose")
    again = await run.open(read=True).chat("propose", other, HELLO)
    assert again == first
    assert len(run.backend.requests) == 1
    assert [(called.requests, called.prompt_tokens) for called in run.called] == [(1, 6), (0, 0)]
    assert run.called[1].cost_usd == 0.0
    await run.open(read=True).chat("judge", other, [*HELLO, Message("user", "else")])
    assert len(run.backend.requests) == 2


async def test_no_secret_is_sent_kept_noted_or_logged(world: Callable[..., World]) -> None:
    said = f"your key is {CANARY}, in base64 {base64.b64encode(f'x{CANARY}'.encode()).decode()}"
    run = world([
        {"role": "propose", "text": said, "reasoning": said},
        {"role": "judge", "fail": {"kind": "server", "times": 1}, "text": said},
    ])  # fmt: skip
    log: list[str] = []
    sink = logger.add(log.append, level="TRACE")
    choice = ModelChoice(MODEL, api_key=CANARY, extra={"extra_headers": {"Authorization": f"Bearer {CANARY}"}})
    asking = run.open(secrets=(CANARY,), choice=choice, log_content=True, write=True)
    try:
        reply = await asking.chat("propose", PLACE, [Message("user", f"my key: {CANARY}")], schema={"title": CANARY})
        await asking.chat("judge", PLACE, HELLO)
    finally:
        logger.remove(sink)
        await asking.close()
    assert "canary" not in reply.content + reply.reasoning
    sent = run.backend.requests[0]
    assert sent.messages[0].content == "my key: [redacted]"
    # What must be sent is sent: the header that the user set for this model.
    assert sent.choice == choice
    everything = [path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.name != "model.yaml"]
    everything += ["\n".join([*log, *run.notes]).encode()]
    assert len(everything) > 3
    assert "my key: [redacted]" in "".join(log)
    for form in (CANARY, base64.b64encode(f"x{CANARY}".encode()).decode()):
        assert [text for text in everything if form.encode() in text] == []


async def test_an_error_that_quotes_the_key_is_redacted(tmp_path: Path, world: Callable[..., World]) -> None:
    secret = str(tmp_path / "model.yaml")  # what the scripted model puts into its errors
    run = world(
        [{"role": "propose", "fail": {"kind": "authentication"}}, {"role": "judge", "fail": {"kind": "server"}}]
    )
    asking = run.open(secrets=(secret,), retries=1)
    with pytest.raises(AgentUnavailable, match=r"\[redacted\]") as caught:
        await asking.chat("propose", PLACE, HELLO)
    with pytest.raises(AgentUnavailable):
        await asking.chat("judge", PLACE, HELLO)
    assert secret not in f"{caught.value} {run.notes}"
    assert len(run.notes) == 1


@pytest.mark.parametrize(
    ("kind", "error", "part", "requests"),
    [
        ("authentication", AgentUnavailable, "OPENAI_API_KEY", 1),
        ("unknown_model", AgentUnavailable, "CHAT_MODEL", 1),
        ("too_long", NoUsableReply, "code: the prompt is too long", 1),
        ("refused", NoUsableReply, "(refused)", 1),
        ("server", AgentUnavailable, "after 3 requests", 3),
        ("rate_limit", AgentUnavailable, "after 3 requests", 3),
        ("time_out", AgentUnavailable, "ftagent resume", 3),
        ("cut", AgentUnavailable, "fails as written (cut)", 3),
    ],
)
async def test_what_a_failure_becomes(
    world: Callable[..., World], kind: str, error: type[Exception], part: str, requests: int
) -> None:
    run = world([{"role": "code", "fail": {"kind": kind}}])
    with pytest.raises(error) as caught:
        await run.open(retries=2).chat("code", CallPlace(0, "code"), HELLO)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(run.backend.requests) == requests
    # A call that never got a reply is no call of the record, and each retry was told.
    assert run.called == []
    assert len(run.notes) == requests - 1


async def test_requests_count_failed_ones_too(world: Callable[..., World]) -> None:
    run = world([{"role": "code", "fail": {"kind": "server", "times": 2}, "text": "at last"}])
    await run.open().chat("code", CallPlace(0, "code"), HELLO)
    assert [called.requests for called in run.called] == [3]


async def test_half_characters_become_question_marks(world: Callable[..., World]) -> None:
    class Surrogates(ScriptedBackend):
        async def complete(self, request: ChatRequest) -> ChatReply:
            return ChatReply("a\ud800b", "\udfff", "stop", "\ud801")

    run = world([{"role": "code", "text": ""}])
    run.backend = Surrogates(run.folder / "model.yaml")  # type: ignore[assignment]
    reply = await run.open(write=True).chat("code", CallPlace(0, "code"), [Message("user", "x\ud800")])
    assert (reply.content, reply.reasoning, reply.refusal) == ("a?b", "?", "?")
    assert len(run.called) == 1


@pytest.mark.parametrize(
    ("said", "content", "reasoning"),
    [
        ("<think>a\nb</think>\n\nanswer", "answer", "a\nb"),
        ("\n <think>a</think>answer", "answer", "a"),
        ("thoughts\n</think>\nanswer", "answer", "thoughts"),
        ("<think>I write <think>x</think> in code</think>answer", "answer", "I write <think>x</think> in code"),
        ("<think>never closed", "", "never closed"),
        ("<think>a <think> b</think>answer", "answer", "a <think> b"),
        ("answer", "answer", ""),
        ("code = '<think>x</think>'", "code = '<think>x</think>'", ""),
        ('text.split("</think>")', 'text.split("</think>")', ""),
        ("", "", ""),
    ],
)
async def test_thinking_is_moved_but_code_is_left_alone(
    world: Callable[..., World], said: str, content: str, reasoning: str
) -> None:
    reply = without_thinking(ChatReply(said))
    assert (reply.content, reply.reasoning) == (content, reasoning)
    run = world([{"role": "code", "text": said}])
    kept = await run.open().chat("code", PLACE, HELLO)
    assert kept.content == said
    moved = await run.open(choice=ModelChoice(MODEL, strip_thinking=True)).chat("code", CallPlace(1, "code"), HELLO)
    assert moved.content == content


async def test_prices_of_the_user_win(world: Callable[..., World]) -> None:
    run = world([{"role": "code", "text": "hi", "usage": {"prompt": 10, "completion": 10}}], prices=PRICES)
    asking = run.open(prices={MODEL: Price(1.0, 2.0)})
    await asking.chat("code", PLACE, HELLO)
    assert run.called[0].cost_usd == pytest.approx(30.0)


async def test_another_model_may_be_asked(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "text": "hi"}])
    asking = run.open()
    await asking.chat("script", PLACE, HELLO, choice=replace(asking.model("script"), model="scripted/strong"))
    assert run.called[0].model == "scripted/strong"
    assert run.backend.requests[0].choice.model == "scripted/strong"


async def test_parallel_calls_of_one_place_keep_their_transcripts_apart(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "contains": f"<{n}>", "text": f"reply {n}", "seconds": 0.02 - n / 1000}
                 for n in range(16)])  # fmt: skip

    async def ask(asking: Any, number: int) -> str:
        return (await asking.chat("script", PLACE, [Message("user", f"<{number}>")])).content

    wanted = [f"reply {number}" for number in range(16)]
    for _ in range(2):
        asking = run.open()
        assert await asyncio.gather(*(ask(asking, number) for number in range(16))) == wanted
    assert sorted(called.index for called in run.called) == list(range(16))
    assert len(run.transcripts()) == len(run.backend.requests) == 16


async def test_embeddings_are_cached_and_asked_for_once(world: Callable[..., World]) -> None:
    run = world([], prices=PRICES)
    asking = run.open(read=True, write=True)
    first = await asking.embed(["a b", "c", "a b"])
    assert first[0] == first[2] != first[1]
    assert run.backend.embedded == [["a b", "c"]]
    assert await run.open(read=True).embed(["c", "d"]) == [first[1], (await run.open().embed(["d"]))[0]]
    assert run.backend.embedded[1:] == [["d"], ["d"]]
    assert asking.ledger.spent_usd == pytest.approx(2e-6)
    assert run.called == []


async def test_embeddings_of_a_place_are_recorded(world: Callable[..., World]) -> None:
    run = world([], prices=PRICES)
    first = await run.open().embed(["some text"], "script", PLACE)
    assert await run.open().embed(["some text"], "script", PLACE) == first
    assert len(run.backend.embedded) == len(run.called) == 1
    assert run.called[0].cost_usd == pytest.approx(3e-6)


async def test_many_texts_are_embedded_in_parts(world: Callable[..., World]) -> None:
    run = world([])
    texts = [f"text {number}" for number in range(250)]
    assert len(await run.open().embed(texts)) == 250
    assert [len(some) for some in run.backend.embedded] == [100, 100, 50]


async def test_no_model_for_embeddings(world: Callable[..., World]) -> None:
    run = world([])
    asking = run.open()
    object.__setattr__(asking._options, "embedding", None)
    assert not asking.embeds
    with pytest.raises(RequestError, match="EMBEDDING_MODEL"):
        await asking.embed(["a"])


async def test_without_a_session_nothing_is_kept_but_the_cost_counts(world: Callable[..., World]) -> None:
    run = world([{"role": "judge", "text": "hi", "usage": {"prompt": 1000, "completion": 0}}], prices=PRICES)
    calls = Calls()
    asking = client(run.backend, calls, run.folder, run.notes.append)
    assert (await asking.chat("judge", CallPlace(None, "run"), HELLO)).content == "hi"
    assert calls.spent_usd == pytest.approx(0.001)
    assert run.transcripts() == {}


async def test_what_is_known_of_a_roles_model(world: Callable[..., World]) -> None:
    run = world([], context_tokens=777, reply_tokens=55, follows_schema=True)
    asking = run.open()
    assert (asking.context_tokens("code"), asking.reply_tokens("code")) == (777, 55)
    assert (asking.count_tokens("code", "12345"), asking.follows_schema("code")) == (2, True)
    assert run.open(choice=ModelChoice(MODEL, max_tokens=9)).reply_tokens("code") == 9
