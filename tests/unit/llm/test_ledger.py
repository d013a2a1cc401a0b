"""The dollar cap: exceeded by at most one call, whoever calls, however many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ftagent.core.errors import AgentUnavailable, NoUsableReply, RequestError
from ftagent.core.session import LimitReached
from ftagent.core.types import CallPlace
from ftagent.llm.client import ChatClient
from ftagent.llm.types import ChatReply, Message, ModelChoice, Role
from unit.llm.conftest import MODEL, World

PRICES = {"input": 1.0, "output": 10.0}
CAP = 0.05
USAGE = {"prompt": 100, "completion": 400}
COST = 0.0041
"""Dollars of a call with this usage."""
WORST_REPLY = 800
PLACES: list[tuple[Role, CallPlace]] = [
    ("propose", CallPlace(0, "propose")), ("judge", CallPlace(1, "run")), ("script", CallPlace(1, "code", 2)),
]  # fmt: skip


def replies(**more: Any) -> list[dict[str, Any]]:
    return [{"role": role, "text": "yes", "usage": USAGE, "seconds": 0.002, **more} for role, _ in PLACES]


async def hammer(client: ChatClient, calls: int) -> list[BaseException | object]:
    """As many different calls at once, from every role."""

    async def one(number: int) -> object:
        role, place = PLACES[number % len(PLACES)]
        return await client.chat(role, place, [Message("user", f"{number:04d} " + "x" * 340)])

    return await asyncio.gather(*(one(number) for number in range(calls)), return_exceptions=True)


def spent(world: World) -> float:
    return sum(called.cost_usd or 0.0 for called in world.called)


async def test_parallel_calls_exceed_the_cap_by_at_most_one_call(world: Callable[..., World]) -> None:
    run = world(replies(), CAP, prices=PRICES, reply_tokens=WORST_REPLY)
    results = await hammer(run.open(), 60)
    refused = [result for result in results if isinstance(result, LimitReached)]
    assert {str(error) for error in refused} == {"--budget-usd is reached"}
    assert len(run.called) + len(refused) == 60
    assert spent(run) == pytest.approx(run.session.state.cost_usd)
    assert CAP <= spent(run) < CAP + COST
    # They really went side by side while there was room.
    assert run.backend.most_in_flight > 3
    assert len(run.backend.requests) == len(run.called)


async def test_a_resumed_session_goes_on_from_what_was_spent(world: Callable[..., World]) -> None:
    run = world(replies(), CAP, prices=PRICES, reply_tokens=WORST_REPLY)
    await hammer(run.open(), 6)
    first = spent(run)
    assert 0 < first < CAP
    client = run.open()
    # The six are recorded: they cost nothing again, and the others go up to the cap.
    await hammer(client, 60)
    assert CAP <= spent(run) < CAP + COST
    assert len(run.backend.requests) == len(run.called)


async def test_a_cap_below_one_worst_case_lets_calls_go_one_by_one(world: Callable[..., World]) -> None:
    run = world(replies(), 2.5 * COST, prices=PRICES, reply_tokens=100_000)
    results = await hammer(run.open(), 9)
    assert run.backend.most_in_flight == 1
    assert sum(isinstance(result, LimitReached) for result in results) == 6
    assert spent(run) == pytest.approx(3 * COST)


async def test_failed_calls_give_back_what_they_reserved(world: Callable[..., World]) -> None:
    failing = replies(fail={"kind": "server"})
    for entry in failing:
        entry["contains"] = "00 "  # calls 0, 100, 200 …
    run = world([*failing, *replies(fail={"kind": "rate_limit", "times": 2})], CAP, prices=PRICES, reply_tokens=800)
    client = run.open(retries=4)
    results = await hammer(client, 5)
    assert [type(result) for result in results] == [AgentUnavailable, *[ChatReply] * 4]
    assert client.ledger._held == 0
    await hammer(client, 40)
    assert CAP <= spent(run) < CAP + COST
    assert client.ledger._held == 0
    assert client.ledger._in_flight == 0


async def test_a_cancelled_call_gives_back_what_it_reserved(world: Callable[..., World]) -> None:
    run = world(replies(), CAP, prices=PRICES, reply_tokens=4500)
    client = run.open()
    tasks = [
        asyncio.create_task(client.chat("propose", PLACES[0][1], [Message("user", f"{number}")])) for number in range(5)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    # One is in flight, one waits for it, the others wait for their turn.
    tasks[0].cancel()
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["CancelledError"] * 2 + ["ChatReply"] * 3
    assert client.ledger._in_flight == 0


async def test_without_a_cap_nothing_waits_and_no_price_is_needed(world: Callable[..., World]) -> None:
    run = world(replies())
    await hammer(run.open(), 12)
    assert run.backend.most_in_flight == 12
    assert {called.cost_usd for called in run.called} == {None}
    assert run.session.state.unpriced_calls == 12


async def test_a_cap_over_an_unknown_price_is_refused(world: Callable[..., World]) -> None:
    run = world(replies(), CAP)
    (result,) = await hammer(run.open(), 1)
    assert isinstance(result, RequestError)
    assert f"the price of {MODEL} is unknown" in str(result)
    assert "FTAGENT_MODEL_PRICES" in str(result)
    assert run.backend.requests == []


async def test_tokens_of_a_cut_stream_are_charged(world: Callable[..., World]) -> None:
    """A stream that is cut has delivered tokens: they count against the cap and in the record of the call."""
    cut = {"kind": "cut", "times": 2, "usage": USAGE}
    run = world(replies(fail=cut), 3 * COST, prices=PRICES, reply_tokens=400)
    client = run.open()
    await client.chat("propose", CallPlace(0, "propose"), [Message("user", "hello")])
    (called,) = run.called
    assert called.cost_usd == pytest.approx(3 * COST)
    assert called.requests == 3
    assert client.ledger.spent_usd == pytest.approx(3 * COST)
    with pytest.raises(LimitReached):
        await client.chat("propose", CallPlace(0, "propose"), [Message("user", "again")])


async def test_a_call_that_is_cut_for_ever_stops_at_the_cap(world: Callable[..., World]) -> None:
    run = world(replies(fail={"kind": "cut", "usage": USAGE}), 4 * COST, prices=PRICES, reply_tokens=400)
    with pytest.raises(LimitReached):
        await run.open(retries=100).chat("propose", CallPlace(0, "propose"), [Message("user", "hello")])
    assert len(run.backend.requests) == 4


async def test_the_largest_reply_that_was_asked_for_is_the_worst_case(world: Callable[..., World]) -> None:
    run = world(replies(), CAP, prices=PRICES, reply_tokens=100_000)
    client = run.open(choice=replace(ModelChoice(MODEL), max_tokens=500))
    await hammer(client, 3)
    assert run.backend.most_in_flight == 3


async def test_a_call_that_is_refused_costs_nothing(world: Callable[..., World]) -> None:
    run = world([], CAP, prices=PRICES)
    results = await hammer(run.open(), 5)
    assert {type(result) for result in results} == {NoUsableReply}
    assert (run.called, run.notes) == ([], [])
