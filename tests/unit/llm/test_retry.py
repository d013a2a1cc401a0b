"""How often and after how long a failed request is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from ftagent.llm.retry import LONGEST_RETRY_AFTER, LONGEST_WAIT, MOST_PARAMETERS, RetryPolicy, with_retries
from ftagent.llm.types import RETRIED, CallFailed, FailureKind


def lowest(low: float, high: float) -> float:
    return low


def highest(low: float, high: float) -> float:
    return high


@dataclass
class Script:
    """Fails as told, then answers; keeps the seconds that were slept."""

    failures: list[CallFailed]
    slept: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: int = 0

    async def attempt(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "reply"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def run(
        self, retries: int = 3, wait: float = 1.0, pick: Callable[[float, float], float] = lowest
    ) -> tuple[str, int]:
        policy = RetryPolicy(retries, wait, sleep=self.sleep, pick=pick)
        return await with_retries(policy, self.attempt, self.notes.append)


def failed(kind: FailureKind = "server", retry_after: float | None = None) -> CallFailed:
    return CallFailed("it failed", kind, retry_after)


async def test_a_reply_at_once_costs_one_request_and_no_wait() -> None:
    script = Script([])
    assert await script.run() == ("reply", 1)
    assert (script.slept, script.notes) == ([], [])


@pytest.mark.parametrize("kind", sorted(RETRIED - {"parameter"}))
async def test_what_may_pass_is_asked_again_with_a_note_for_every_wait(kind: FailureKind) -> None:
    script = Script([failed(kind), failed(kind)])
    assert await script.run() == ("reply", 3)
    assert script.slept == [1.0, 1.0]
    assert script.notes == ["it failed; retry 1 of 3 in 1.0 s", "it failed; retry 2 of 3 in 1.0 s"]


@pytest.mark.parametrize("kind", ["authentication", "unknown_model", "refused", "too_long"])
async def test_what_will_not_pass_is_asked_once(kind: FailureKind) -> None:
    script = Script([failed(kind)])
    with pytest.raises(CallFailed):
        await script.run()
    assert (script.asked, script.slept) == (1, [])


@pytest.mark.parametrize("retries", [0, 1, 5])
async def test_retries_are_counted_beside_the_first_request(retries: int) -> None:
    script = Script([failed() for _ in range(20)])
    with pytest.raises(CallFailed):
        await script.run(retries)
    assert script.asked == retries + 1
    assert len(script.slept) == retries


async def test_waits_double_up_to_a_minute_and_jitter_only_makes_them_longer() -> None:
    longest = Script([failed() for _ in range(9)])
    await longest.run(retries=9, pick=highest)
    assert longest.slept == [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT]
    shortest = Script([failed() for _ in range(9)])
    await shortest.run(retries=9, pick=lowest)
    assert shortest.slept == [1.0] * 9


async def test_a_wait_longer_than_a_minute_is_kept_as_set() -> None:
    script = Script([failed()])
    await script.run(wait=90.0, pick=highest)
    assert script.slept == [90.0]


async def test_the_server_says_how_long_to_wait_at_least() -> None:
    script = Script([failed("rate_limit", 20.0), failed("rate_limit", 0.1)])
    await script.run()
    assert script.slept == [20.0, 1.0]


async def test_a_server_that_asks_for_more_than_an_hour_is_not_waited_for() -> None:
    script = Script([failed("rate_limit", LONGEST_RETRY_AFTER + 1)])
    with pytest.raises(CallFailed):
        await script.run()
    assert (script.asked, script.slept) == (1, [])


async def test_a_refused_parameter_is_no_retry() -> None:
    script = Script([failed("parameter"), failed("parameter"), failed()])
    assert await script.run(retries=1) == ("reply", 4)
    assert script.slept == [1.0]


async def test_refused_parameters_have_an_end() -> None:
    script = Script([failed("parameter") for _ in range(100)])
    with pytest.raises(CallFailed):
        await script.run()
    assert script.asked == MOST_PARAMETERS + 1
