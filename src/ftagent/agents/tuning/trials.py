"""A run as the numeric strategies see it: its trials, the default configuration first, and the best of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ftagent.agents.space import defaults, read, tunable
from ftagent.core import policy
from ftagent.core.errors import StoppedEarly
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Brief, Experiment, Files, Score, Trace
from ftagent.search import Trial, halving


@dataclass(frozen=True)
class Known:
    """A trial with what only some samplers use. `loop` is None for the baseline."""

    loop: int | None
    trial: Trial
    state: Literal["finished", "failed", "stopped", "running"]
    objectives: tuple[float, ...] = ()
    """The metric and then those of the plan; empty where one is unknown."""
    again: bool = False
    """The trial before it at the values that it was measured with, which are not those that were asked for."""


@dataclass(frozen=True)
class Best:
    """The configuration to build on. `loop` is None for the default, `score` where nothing was measured."""

    loop: int | None
    params: dict[str, Any]
    score: Score | None
    doubt: bool = False
    """Its lead over the default is within two standard errors."""


def plan_of(brief: Brief) -> SearchPlan:
    """The brief's plan; for a scenario without one, all parameters at once."""
    return brief.plan or SearchPlan(mode="joint")


def known_of(brief: Brief, trace: Trace) -> list[Known]:
    """All trials in order, those in flight last. The first is the default configuration: the baseline where the brief
    has a plan, else the first experiment."""
    plan, start = plan_of(brief), defaults(brief)
    found: list[Known] = []
    if brief.plan is not None and trace.baseline is not None:
        measured = policy.measured(trace.baseline, trace.baseline_stages)
        trial = _trial(start, trace.baseline, measured, plan)
        found.append(Known(None, trial, "finished", _objectives(trace.baseline, measured, plan)))
    for experiment in trace.experiments:
        if not experiment.hypothesis.abandoned:
            found.append(_known(start, experiment, plan))
            # Asking for it again gives the same; what was used gives it too, and need not be tried.
            if used := _used(brief, experiment.validation):
                trial = found[-1].trial
                found.append(replace(found[-1], trial=replace(trial, params={**trial.params, **used}), again=True))
    for hypothesis in trace.pending:
        if not hypothesis.abandoned:
            found.append(Known(None, Trial({**start, **hypothesis.params}, None), "running"))
    return found


def best_of(brief: Brief, trace: Trace) -> Best:
    """By the posterior mean, as the run decides what to build on; within the constraints where anything is."""
    plan, start = plan_of(brief), defaults(brief)
    baseline = trace.baseline
    if brief.plan is None or _violation(plan, policy.measured(baseline, trace.baseline_stages)):
        baseline = None
    scored = [e for e in trace.experiments if e.validation is not None]
    allowed = [e for e in scored if not _violation(plan, policy.measured(e.validation, e.stages))]
    ranks = policy.ranking(allowed, baseline, trace.direction)
    default = trace.baseline if brief.plan is not None else None
    if not ranks or ranks[0] is None:
        return Best(None, start, default)
    leader = next(e for e in allowed if e.loop == ranks[0])
    assert leader.validation is not None
    doubt = default is not None and policy.within_noise(leader.validation, default)
    params = {**start, **leader.hypothesis.params, **_used(brief, leader.validation)}
    return Best(leader.loop, params, leader.validation, doubt)


def stopping_files(brief: Brief, trace: Trace) -> Files:
    """The file with the rules by which the next trial is stopped early; none where the plan stops none."""
    plan = plan_of(brief)
    if plan.halving is None:
        return {}
    trials = [known.trial for known in known_of(brief, trace) if known.state != "running" and not known.again]
    rungs = halving.stopping(trials, trace.direction, plan.halving.reduction, plan.halving.rungs)
    live = plan.halving.metric.removeprefix("-")  # a minus: its negative, which runs as the metric does
    rule = (
        f"a trial is stopped at a rung's step where its {live} is not among the best 1/{plan.halving.reduction:g} of "
        "the trials seen there, and farther behind that of the best trial than one ever was that still overtook another"
        if rungs
        else "no trial is stopped: too few were finished whose live metric could be compared"
    )
    document = {
        "metric": plan.halving.metric,
        "direction": trace.direction,
        "rungs": [{"step": rung.step, "needs": rung.needs} for rung in rungs],
        "rule": rule,
    }
    return {plan.stopping_file: json.dumps(document, indent=2) + "\n"}


def _used(brief: Brief, score: Score | None) -> dict[str, Any]:
    """The tunable parameters that a trial was measured with other values of than it was given, and those values."""
    given = score.adjusted if score is not None else {}
    return {p.name: read(p, given[p.name]).value for p in tunable(brief) if p.name in given}


def _known(start: dict[str, Any], experiment: Experiment, plan: SearchPlan) -> Known:
    params = {**start, **experiment.hypothesis.params}
    measured = policy.measured(experiment.validation, experiment.stages)
    if experiment.validation is not None:
        trial = replace(_trial(params, experiment.validation, measured, plan), curve=experiment.curve)
        return Known(experiment.loop, trial, "finished", _objectives(experiment.validation, measured, plan))
    stopped = any(record.execution.detail.startswith(StoppedEarly.prefix) for record in experiment.stages)
    trial = Trial(params, None, curve=experiment.curve, stopped=stopped)
    return Known(experiment.loop, trial, "stopped" if stopped else "failed")


def _trial(params: dict[str, Any], score: Score, measured: Mapping[str, float], plan: SearchPlan) -> Trial:
    return Trial(params, score.value, score.stderr, violation=_violation(plan, measured))


def _violation(plan: SearchPlan, measured: Mapping[str, float]) -> float:
    """How far the constraints are exceeded, relative, in sum."""
    return math.fsum(policy.excess(plan.constraints, measured).values())


def _objectives(score: Score, measured: Mapping[str, float], plan: SearchPlan) -> tuple[float, ...]:
    if any(objective.name not in measured for objective in plan.objectives):
        return ()
    return (score.value, *(measured[objective.name] for objective in plan.objectives))
