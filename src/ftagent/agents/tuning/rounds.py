"""Where a univariate search stands, from its trace alone: the decided keys, the parameter of this round, its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.agents.space import defaults, same, tunable
from ftagent.agents.tuning.trials import Best, best_of, known_of, plan_of
from ftagent.core.types import Brief, Hypothesis, Parameter, Trace
from ftagent.search import Trial, univariate

MODE = "univariate"


@dataclass(frozen=True)
class Decided:
    """What was decided in the first round for all later ones."""

    keys: tuple[str, ...]
    """Parameters in the order in which they are tuned."""
    base: Mapping[str, Any]
    """The configuration that the first round starts from."""
    why: str = ""


@dataclass(frozen=True)
class Round:
    """One round: a new value of `key` on the configuration `start`."""

    key: str
    number: int
    """From 1, of this key in this pass."""
    sweep: int
    """The pass over the keys, from 1; later ones look closer."""
    start: Best
    tried: tuple[Trial, ...]
    """Trials that differ from `start` in nothing but `key`, itself included where it was measured."""


def decided(trace: Trace) -> Decided | None:
    """None before the first round."""
    for hypothesis in _proposed(trace):
        if hypothesis.plan.get("keys"):
            plan = hypothesis.plan
            return Decided(tuple(plan["keys"]), dict(plan.get("base", {})), str(plan.get("why", "")))
    return None


def keys_of(brief: Brief) -> tuple[str, ...]:
    """The priority parameters where no model chooses them: the user's, else those that usually matter most."""
    plan = plan_of(brief)
    return plan.priority or univariate.priorities(tunable(brief), plan.keys)


def round_of(brief: Brief, trace: Trace, plan: Decided) -> Round | None:
    """The round of the loop that asks. None when every value of every parameter was tried."""
    start = _start(brief, trace, plan)
    trials = [known.trial for known in known_of(brief, trace)]
    place = _next(brief, trace, plan, lambda key: has_new(brief, start.params, key, trials))
    if place is None:
        return None
    key, number, sweep = place
    others = [p for p in brief.space if p.name != key]
    tried = tuple(trial for trial in trials if same(trial.params, start.params, others))
    return Round(key, number, sweep, start, tried)


def has_new(brief: Brief, start: Mapping[str, Any], key: str, trials: Sequence[Trial]) -> bool:
    """Whether `key` has a value on `start` that was not tried."""
    parameter = parameter_of(brief, key)
    others = [p for p in brief.space if p.name != key]
    taken = {repr(t.params.get(key)) for t in trials if same(t.params, start, others)}
    return len(taken | {repr(start.get(key))}) < _size(parameter)


def parameter_of(brief: Brief, name: str) -> Parameter:
    """Of a name that the space has."""
    return next(p for p in brief.space if p.name == name)


def record(plan: Decided, turn: Round, first: bool, rounds: int) -> dict[str, Any]:
    """`Hypothesis.plan` of a round; the first one keeps what was decided."""
    place = {"mode": MODE, "key": turn.key, "round": turn.number, "rounds": rounds, "pass": turn.sweep}
    return place | ({"keys": list(plan.keys), "base": dict(plan.base), "why": plan.why} if first else {})


def _start(brief: Brief, trace: Trace, plan: Decided) -> Best:
    """The best configuration so far; the decided base as long as nothing on it has ended."""
    best = best_of(brief, trace)
    ended = any(not experiment.hypothesis.abandoned for experiment in trace.experiments)
    base = {**defaults(brief), **plan.base}
    return best if ended or same(base, best.params, brief.space) else Best(None, base, None)


def _next(brief: Brief, trace: Trace, plan: Decided, has: Callable[[str], bool]) -> tuple[str, int, int] | None:
    """(key, round, pass) after the last proposed round; keys without a new value are passed over."""
    last = next((h.plan for h in reversed(_proposed(trace)) if h.plan.get("mode") == MODE), None)
    key, number, sweep = (str(last["key"]), int(last["round"]), int(last["pass"])) if last else ("", 0, 0)
    if key and number < plan_of(brief).rounds_per_parameter and has(key):
        return key, number + 1, sweep
    rest = [p for p in tunable(brief) if p.name not in plan.keys]
    # Parameters that were no priority come once the priority ones have no new value.
    for order in (plan.keys, univariate.priorities(rest, len(rest))):
        at = order.index(key) if key in order else len(order)
        later = [(name, 1, sweep or 1) for name in order[at + 1 :]] + [(name, 1, sweep + 1) for name in order]
        if place := next((place for place in later if has(place[0])), None):
            return place
    return None


def _proposed(trace: Trace) -> list[Hypothesis]:
    """In order of submission, without those that proposed nothing."""
    whole = [*(experiment.hypothesis for experiment in trace.experiments), *trace.pending]
    return [hypothesis for hypothesis in whole if not hypothesis.abandoned]


def _size(parameter: Parameter) -> float:
    if parameter.kind == "choice":
        return len(parameter.choices)
    if parameter.low is None or parameter.high is None or parameter.kind == "float":
        return 1 if parameter.low is not None and parameter.low == parameter.high else float("inf")
    return int(parameter.high) - int(parameter.low) + 1
