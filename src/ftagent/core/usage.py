"""What language models were asked for in a run: calls, tokens and dollars by role, loop and model."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ftagent.core.events import Called
from ftagent.core.state import State

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Spending:
    """Sums over some calls."""

    calls: int = 0
    requests: int = 0
    """HTTP requests, failed ones included; fewer than calls where replies came from the cache."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Reasoning included."""
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    """Of the calls whose price is known."""
    unpriced_calls: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Usage:
    """All calls that count, broken down. The calls of loops that were taken back are only in `taken_back_usd`."""

    total: Spending = Spending()
    by_role: Mapping[str, Spending] = field(default_factory=dict)
    by_loop: Mapping[int | None, Spending] = field(default_factory=dict)
    """None: before the first loop."""
    by_loop_and_role: Mapping[int | None, Mapping[str, Spending]] = field(default_factory=dict)
    by_model: Mapping[str, Spending] = field(default_factory=dict)
    taken_back_usd: float = 0.0


def usage(state: State) -> Usage:
    """The usage of a run as its journal tells it."""
    calls = [called for calls in state.calls.values() for called in calls]
    by_loop = _grouped(calls, lambda called: called.loop)
    # Before there were calls in the journal, the events of a step told its dollars: experiments hold both.
    open_ = [called for called in calls if called.loop is None or called.loop >= len(state.experiments)]
    counted = math.fsum([*(item.cost_usd for item in state.experiments), *(call.cost_usd or 0.0 for call in open_)])
    left_over = state.cost_usd - counted
    return Usage(
        total=spending(calls),
        by_role=_by_role(calls),
        by_loop={loop: spending(some) for loop, some in by_loop.items()},
        by_loop_and_role={loop: _by_role(some) for loop, some in by_loop.items()},
        by_model={model: spending(some) for model, some in sorted(_grouped(calls, lambda c: c.model).items())},
        taken_back_usd=left_over if left_over > 1e-9 else 0.0,
    )


def spending(calls: Iterable[Called]) -> Spending:
    """The sums over `calls`."""
    some = list(calls)
    return Spending(
        calls=len(some),
        requests=sum(called.requests for called in some),
        prompt_tokens=sum(called.prompt_tokens for called in some),
        completion_tokens=sum(called.completion_tokens for called in some),
        reasoning_tokens=sum(called.reasoning_tokens for called in some),
        cached_tokens=sum(called.cached_tokens for called in some),
        cost_usd=math.fsum(called.cost_usd or 0.0 for called in some),
        unpriced_calls=sum(called.cost_usd is None for called in some),
        seconds=math.fsum(called.seconds for called in some),
    )


def _by_role(calls: Iterable[Called]) -> dict[str, Spending]:
    return {role: spending(some) for role, some in _grouped(calls, lambda called: called.role).items()}


def _grouped(calls: Iterable[Called], key: Callable[[Called], _K]) -> dict[_K, list[Called]]:
    groups: dict[_K, list[Called]] = {}
    for called in calls:
        groups.setdefault(key(called), []).append(called)
    return groups
