"""A run as the numeric strategies see it: its trials, the default configuration first, and the best of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from ftagent.agents.space import defaults
from ftagent.core import policy
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Brief, Experiment, Files, Score, Trace
from ftagent.search import Trial, halving

_STOPPED = "stopped early:"
"""How the executor tells of a trial that its scenario stopped (`StoppedEarly`)."""


@dataclass(frozen=True)
class Known:
    """A trial with what only some samplers use. `loop` is None for the baseline."""

    loop: int | None
    trial: Trial
    state: Literal["finished", "failed", "stopped", "running"]
    objectives: tuple[float, ...] = ()
    """The metric and then those of the plan; empty where one is unknown."""


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
        trial = _trial(start, trace.baseline, {}, plan)
        found.append(Known(None, trial, "finished", _objectives(trace.baseline, {}, plan)))
    for experiment in trace.experiments:
        if not experiment.hypothesis.abandoned:
            found.append(_known(start, experiment, plan))
    for hypothesis in trace.pending:
        if not hypothesis.abandoned:
            found.append(Known(None, Trial({**start, **hypothesis.params}, None), "running"))
    return found


def best_of(brief: Brief, trace: Trace) -> Best:
    """By the posterior mean, as the run decides what to build on; within the constraints where anything is."""
    plan, start = plan_of(brief), defaults(brief)
    baseline = trace.baseline
    if brief.plan is None or (baseline is not None and _violation(baseline, {}, plan) > 0):
        baseline = None
    scored = [e for e in trace.experiments if e.validation is not None]
    allowed = [e for e in scored if _violation(e.validation, _measured(e), plan) == 0]
    ranks = policy.ranking(allowed, baseline, trace.direction)
    default = trace.baseline if brief.plan is not None else None
    if not ranks or ranks[0] is None:
        return Best(None, start, default)
    leader = next(e for e in allowed if e.loop == ranks[0])
    assert leader.validation is not None
    doubt = default is not None and policy.within_noise(leader.validation, default)
    return Best(leader.loop, {**start, **leader.hypothesis.params}, leader.validation, doubt)


def stopping_files(brief: Brief, trace: Trace) -> Files:
    """The file with the rules by which the next trial is stopped early; none where the plan stops none."""
    plan = plan_of(brief)
    if plan.halving is None:
        return {}
    trials = [known.trial for known in known_of(brief, trace) if known.state != "running"]
    rungs = halving.stopping(trials, trace.direction, plan.halving.reduction, plan.halving.rungs)
    live = plan.halving.metric.removeprefix("-")  # a minus: its negative, which runs as the metric does
    rule = (
        f"a trial goes on after a rung's step only while its {live} is among the best "
        f"1/{plan.halving.reduction:g} of the trials seen there, or as good as that of the best trial was"
        if rungs
        else "no trial is stopped: none was finished whose live metric could be compared"
    )
    document = {
        "metric": plan.halving.metric,
        "direction": trace.direction,
        "rungs": [{"step": rung.step, "needs": rung.needs} for rung in rungs],
        "rule": rule,
    }
    return {plan.stopping_file: json.dumps(document, indent=2) + "\n"}


def _known(start: dict[str, Any], experiment: Experiment, plan: SearchPlan) -> Known:
    params, measured = {**start, **experiment.hypothesis.params}, _measured(experiment)
    if experiment.validation is not None:
        trial = replace(_trial(params, experiment.validation, measured, plan), curve=experiment.curve)
        return Known(experiment.loop, trial, "finished", _objectives(experiment.validation, measured, plan))
    stopped = any(record.execution.detail.startswith(_STOPPED) for record in experiment.stages)
    trial = Trial(params, None, curve=experiment.curve, stopped=stopped)
    return Known(experiment.loop, trial, "stopped" if stopped else "failed")


def _trial(params: dict[str, Any], score: Score, measured: dict[str, float], plan: SearchPlan) -> Trial:
    return Trial(params, score.value, score.stderr, violation=_violation(score, measured, plan))


def _measured(experiment: Experiment) -> dict[str, float]:
    """Seconds and peak memory (MB) of the full stages; what the environment does not tell is left out."""
    full = [record.execution for record in experiment.stages if record.purpose == "full"]
    peaks = [execution.peak_mb for execution in full if execution.peak_mb is not None]
    found = {"seconds": sum(execution.seconds for execution in full)} if full else {}
    return {**found, "peak_mb": max(peaks)} if peaks else found


def _violation(score: Score | None, measured: dict[str, float], plan: SearchPlan) -> float:
    """How far the constraints are exceeded, relative, in sum. What was not measured exceeds nothing."""
    values = {**measured, **(score.details if score is not None else {})}
    excess = 0.0
    for constraint in plan.constraints:
        over = values.get(constraint.name, constraint.at_most) - constraint.at_most
        excess += max(0.0, over / (abs(constraint.at_most) or 1.0))
    return excess


def _objectives(score: Score, measured: dict[str, float], plan: SearchPlan) -> tuple[float, ...]:
    values = {**measured, **score.details}
    if any(objective.name not in values for objective in plan.objectives):
        return ()
    return (score.value, *(values[objective.name] for objective in plan.objectives))
