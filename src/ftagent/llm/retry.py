"""The one owner of retries: how long to wait, how often, and what it means when nothing helped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ftagent.core.errors import AgentUnavailable, FtagentError, NoUsableReply
from ftagent.llm.failures import ParameterRefused
from ftagent.llm.types import CallFailed

T = TypeVar("T")
LONGEST_WAIT = 60.0
"""Seconds between two requests when the server does not say how many."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more is not waited for."""
MOST_PARAMETERS = 10
"""Parameters that may be dropped from one call."""


@dataclass(frozen=True)
class RetryPolicy:
    """`retries` requests after the first one (MAX_RETRY), at least `wait_seconds` apart (RETRY_WAIT_SECONDS).

    `sleep` and `pick` (from LOW to HIGH) can be replaced.
    """

    retries: int = 10
    wait_seconds: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    pick: Callable[[float, float], float] = random.uniform

    def wait(self, failures: int, retry_after: float | None) -> float:
        """Seconds before the next request after `failures` of them, as the server asked or doubling, with jitter."""
        longest = max(self.wait_seconds, min(LONGEST_WAIT, self.wait_seconds * 2 ** min(failures, 6)))
        return max(retry_after or 0.0, self.pick(self.wait_seconds, longest))


async def with_retries(
    policy: RetryPolicy, attempt: Callable[[], Awaitable[T]], note: Callable[[str], None]
) -> tuple[T, int]:
    """What `attempt` returns, and how many requests it took. `note` gets one line for every wait.

    `attempt` makes one request or raises CallFailed. A request without the parameter that the model refused
    follows at once and is no retry.
    Raises AgentUnavailable (credentials, model name, or no answer after all retries) and NoUsableReply (this request
    is refused or too long), each from the last CallFailed.
    """
    requests = retries = 0
    while True:
        requests += 1
        try:
            return await attempt(), requests
        except ParameterRefused as failure:
            if requests - retries > MOST_PARAMETERS:
                raise NoUsableReply(str(failure)) from failure
        except CallFailed as failure:
            if not failure.retried or retries >= policy.retries or (failure.retry_after or 0.0) > LONGEST_RETRY_AFTER:
                raise _given_up(failure, requests) from failure
            retries += 1
            seconds = policy.wait(retries, failure.retry_after)
            note(f"{failure}; retry {retries} of {policy.retries} in {seconds:.1f} s")
            await policy.sleep(seconds)


def _given_up(failure: CallFailed, requests: int) -> FtagentError:
    if failure.kind in ("refused", "too_long"):
        return NoUsableReply(str(failure))
    if not failure.retried:
        return AgentUnavailable(str(failure))
    if (failure.retry_after or 0.0) > LONGEST_RETRY_AFTER:
        return AgentUnavailable(f"{failure}; the server asks to wait {failure.retry_after:.0f} s; resume the run then")
    times = "once" if requests == 1 else f"{requests} times"
    return AgentUnavailable(f"{failure}; asked {times} (MAX_RETRY, RETRY_WAIT_SECONDS); the run can be resumed")
