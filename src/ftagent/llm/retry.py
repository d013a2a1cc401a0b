"""The one owner of retries: which failures are worth another request, how many, and how long after the last one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

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

    `attempt` makes one request or raises CallFailed. After a refused parameter the next request, without it, follows
    at once and is no retry. Raises the last CallFailed.
    """
    requests = retries = 0
    while True:
        requests += 1
        try:
            return await attempt(), requests
        except CallFailed as failure:
            if failure.kind == "parameter":
                if requests - retries > MOST_PARAMETERS:
                    raise
                continue
            too_late = (failure.retry_after or 0.0) > LONGEST_RETRY_AFTER
            if not failure.retried or too_late or retries >= policy.retries:
                raise
            retries += 1
            seconds = policy.wait(retries, failure.retry_after)
            note(f"{failure}; retry {retries} of {policy.retries} in {seconds:.1f} s")
            await policy.sleep(seconds)
