"""Whether there is budget left, and what is left of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ftagent.core.errors import RequestError
from ftagent.core.events import Limits
from ftagent.core.types import Left

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str, name: str = "duration") -> float:
    """Seconds of `90s`, `45m`, `6h`, `2d` or a sum like `1h30m`. Raises RequestError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or not any(float(n) for n, _ in parts):
        raise RequestError(f"{name} {text!r}: write a duration such as 90s, 45m, 6h or 2d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


@dataclass(frozen=True)
class Spent:
    """What a run has used. `session_steps` counts one invocation; the rest is the run's total."""

    loops: int
    session_steps: int
    seconds: float
    usd: float


def exhausted(limits: Limits, spent: Spent) -> str | None:
    """The limit that is reached, as the option that set it; None while there is budget left.

    `--loop-n` is not among them: it says how much was asked for, not when to stop short of it.
    """
    if limits.step_n is not None and spent.session_steps >= limits.step_n:
        return "--step-n"
    if limits.timeout is not None and spent.seconds >= limits.timeout:
        return "--timeout"
    if limits.budget_usd is not None and spent.usd >= limits.budget_usd:
        return "--budget-usd"
    return None


def left(limits: Limits, spent: Spent) -> Left:
    """What is left of each limit, never below 0; seconds are whole, dollars have four decimals."""
    return Left(
        loops=None if limits.loop_n is None else max(0, limits.loop_n - spent.loops),
        seconds=None if limits.timeout is None else max(0.0, round(limits.timeout - spent.seconds)),
        usd=None if limits.budget_usd is None else max(0.0, round(limits.budget_usd - spent.usd, 4)),
    )
