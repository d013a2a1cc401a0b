"""What a run will ask of language models: calls, tokens and dollars as ranges, before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftagent.core.errors import FtagentError
from ftagent.core.events import Called
from ftagent.core.run_folder import RunFolder, all_runs
from ftagent.llm.types import Price, Role, Usage
from ftagent.report.text import dollars, plural, quantity

_STEPS: tuple[Role, ...] = ("propose", "code", "repair", "reflect")
_FEWEST_LOOPS = 3
_MOST_RUNS = 20
_QUANTILES = (0.1, 0.9)
# Tokens of a reply, short and long, reasoning included.
_REPLIES: dict[Role, tuple[int, int]] = {
    "propose": (200, 2000),
    "code": (300, 8000),
    "repair": (300, 8000),
    "reflect": (150, 1500),
}
# Prompts of later loops show more experiments, up to a bound.
_GROWTH = 3.0


@dataclass(frozen=True)
class Range:
    """From `low` to `high`."""

    low: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.low * factor, self.high * factor)

    def text(self, shown: Callable[[float], str]) -> str:
        low, high = shown(self.low), shown(self.high)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Plan:
    """What a run is about to do, as far as its language models are concerned."""

    scenario: str
    models: Mapping[Role, str]
    """Role → model, for the roles that will ask."""
    prices: Mapping[str, Price | None]
    """Model → dollars per token; None where unknown."""
    prompt_tokens: Mapping[Role, int]
    """Role → tokens of its prompt in the first loop."""
    repairs: int
    """At most so many per experiment (FT_CODER_MAX_LOOP)."""
    loops: int | None
    """None: until another limit; the forecast is then for one loop."""
    budget_usd: float | None = None


@dataclass(frozen=True)
class LoopUse:
    """What one loop used. `usd` is None where a price is unknown."""

    calls: float
    prompt_tokens: float
    completion_tokens: float
    usd: float | None


@dataclass(frozen=True)
class Forecast:
    """Ranges for the whole run, or for one loop where the number of loops is open."""

    plan: Plan
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range | None
    """None: unknown."""
    basis: str
    """What the ranges rest on, for people."""
    loops_seen: int = 0
    """Loops of earlier runs that the ranges rest on; 0: the prompts' sizes."""
    unpriced: tuple[str, ...] = field(default=())
    """Models without a known price."""

    def document(self) -> dict[str, Any]:
        """For `run --dry-run --json`; each range as [low, high]."""
        return {
            "per_loop": self.plan.loops is None,
            "models": dict(self.plan.models),
            "calls": [round(self.calls.low), round(self.calls.high)],
            "prompt_tokens": [round(self.prompt_tokens.low), round(self.prompt_tokens.high)],
            "completion_tokens": [round(self.completion_tokens.low), round(self.completion_tokens.high)],
            "cost_usd": None if self.usd is None else [round(self.usd.low, 6), round(self.usd.high, 6)],
            "unpriced_models": list(self.unpriced),
            "budget_usd": self.plan.budget_usd,
            "loops_seen": self.loops_seen,
            "basis": self.basis,
        }

    def lines(self) -> tuple[str, ...]:
        """For `run --dry-run`."""
        by_model: dict[str, list[str]] = {}
        for role, model in self.plan.models.items():
            by_model.setdefault(model, []).append(role)
        named = [f"{model} ({', '.join(roles)})" if len(by_model) > 1 else model for model, roles in by_model.items()]
        each = " per loop" if self.plan.loops is None else ""
        tokens = (
            f"{self.prompt_tokens.text(quantity)} tokens of prompts, {self.completion_tokens.text(quantity)} of replies"
        )
        return (
            f"model        {', '.join(named)}",
            f"calls        {self.calls.text(lambda count: f'{count:.0f}')}{each}: {tokens}",
            f"cost         {self._cost()}{each} ({self.basis})",
        )

    def _cost(self) -> str:
        if self.usd is None:
            return f"unknown: no price of {', '.join(self.unpriced)} is known; FTAGENT_MODEL_PRICES sets it"
        cap = self.plan.budget_usd
        end = "" if cap is None or (self.plan.loops is not None and self.usd.high <= cap) else (
            f", ended by --budget-usd at {dollars(cap)}"
        )  # fmt: skip
        return self.usd.text(dollars) + end


def forecast(plan: Plan, past: Sequence[LoopUse] = ()) -> Forecast:
    """From loops of earlier runs where there are enough of them, else from the sizes of the prompts.

    Past loops: 10 % to 90 % of them used as much. Prompts: from no repair and short replies to every repair, long
    replies and prompts that have grown.
    """
    unpriced = tuple(sorted({model for model in plan.models.values() if plan.prices.get(model) is None}))
    loops = 1 if plan.loops is None else plan.loops
    if len(past) >= _FEWEST_LOOPS:
        low, high = _quantiles(past)
        basis, seen = f"from {plural(len(past), 'loop')} of earlier runs", len(past)
    else:
        low, high = _least(plan), _most(plan)
        basis, seen = f"from the prompts' sizes, without a repair to {plural(plan.repairs, 'repair')} per loop", 0
    known = low.usd is not None and high.usd is not None
    return Forecast(
        plan=plan,
        calls=Range(low.calls, high.calls).times(loops),
        prompt_tokens=Range(low.prompt_tokens, high.prompt_tokens).times(loops),
        completion_tokens=Range(low.completion_tokens, high.completion_tokens).times(loops),
        usd=Range(low.usd or 0.0, high.usd or 0.0).times(loops) if known else None,
        basis=basis,
        loops_seen=seen,
        unpriced=unpriced,
    )


def past_loops(log_dir: Path, plan: Plan) -> list[LoopUse]:
    """What complete loops of the newest runs in `log_dir` used, same scenario and models, at today's prices.

    Loops with replies from the chat cache are left out: they say nothing about what a reply costs.
    """
    found: list[LoopUse] = []
    read = 0
    for folder in reversed(all_runs(log_dir)):
        if read == _MOST_RUNS:
            break
        uses = list(_uses(folder, plan))
        read += bool(uses)
        found += uses
    return found


def _uses(folder: RunFolder, plan: Plan) -> Iterator[LoopUse]:
    try:
        if folder.read_record().get("request", {}).get("scenario") != plan.scenario:
            return
        state = folder.state()
    except FtagentError:
        return  # a run that cannot be read says nothing
    by_loop: dict[int, list[Called]] = {}
    for place, calls in state.calls.items():
        if place.loop is not None and state.complete(place.loop):
            by_loop.setdefault(place.loop, []).extend(calls)
    for calls in by_loop.values():
        ours = [(call, model) for call in calls if (model := plan.models.get(call.role))]  # type: ignore[call-overload]  # a role as journaled
        if ours and all(call.model == model and call.requests for call, model in ours):
            yield _use(calls, plan.prices)


def _use(calls: Sequence[Called], prices: Mapping[str, Price | None]) -> LoopUse:
    costs = [_cost_of(call, prices.get(call.model)) for call in calls]
    return LoopUse(
        calls=len(calls),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _cost_of(call: Called, price: Price | None) -> float | None:
    if price is None:
        return call.cost_usd
    used = Usage(call.prompt_tokens, call.completion_tokens, call.reasoning_tokens, call.cached_tokens)
    return price.of(used)


def _quantiles(past: Sequence[LoopUse]) -> tuple[LoopUse, LoopUse]:
    def at(share: float) -> LoopUse:
        costs = [use.usd for use in past if use.usd is not None]
        return LoopUse(
            _quantile([use.calls for use in past], share),
            _quantile([use.prompt_tokens for use in past], share),
            _quantile([use.completion_tokens for use in past], share),
            _quantile(costs, share) if len(costs) == len(past) else None,
        )

    return at(_QUANTILES[0]), at(_QUANTILES[1])


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _least(plan: Plan) -> LoopUse:
    return _assumed(plan, {"propose": 1, "code": 1, "reflect": 1}, 1.0, 0)


def _most(plan: Plan) -> LoopUse:
    growth = 1.0 if plan.loops == 1 else _GROWTH
    return _assumed(plan, {"propose": 1, "code": 1, "repair": plan.repairs, "reflect": 1}, growth, 1)


def _assumed(plan: Plan, times: Mapping[Role, int], growth: float, end: int) -> LoopUse:
    """One loop with so many calls of each role; `end`: 0 for short replies, 1 for long ones."""
    prompt = completion = usd = 0.0
    known = True
    for role in _STEPS:
        count = times.get(role, 0) if role in plan.models else 0
        asked, said = count * plan.prompt_tokens.get(role, 0) * growth, float(count * _REPLIES[role][end])
        prompt, completion = prompt + asked, completion + said
        price = plan.prices.get(plan.models.get(role, ""))
        if price is not None:
            usd += asked * price.prompt + said * price.completion
        elif count:
            known = False
    calls = sum(count for role, count in times.items() if role in plan.models)
    return LoopUse(calls, prompt, completion, usd if known else None)
