"""Blocking work that must be over before anything else happens, cancelled or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(work: Callable[..., T], *arguments: object) -> T:
    """The result of `work(*arguments)`, done in a thread. A cancellation propagates when it is over, not before."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # looked at: what went wrong does not matter any more
        raise cancelled
    return task.result()
