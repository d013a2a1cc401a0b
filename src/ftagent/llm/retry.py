from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ftagent.llm.types import CallFailed

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    retries: int = 10
    wait_seconds: float = 1.0


async def with_retries(
    policy: RetryPolicy, attempt: Callable[[], Awaitable[_T]], note: Callable[[str], None]
) -> tuple[_T, int]:
    for made in range(1, policy.retries + 2):
        try:
            return await attempt(), made
        except CallFailed as error:
            if not error.retried or made > policy.retries:
                raise
            note(f"{error}; tried again")
            await asyncio.sleep(max(error.retry_after or 0, policy.wait_seconds))
    raise AssertionError
