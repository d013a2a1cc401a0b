"""Runs of agents that tune, without an engine: configurations are scored by a function at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftagent.core.protocols import Agent
from ftagent.core.search_plan import SearchPlan
from ftagent.core.statistics import score_of
from ftagent.core.types import Brief, Execution, Experiment, Feedback, Parameter, Score, StageRecord, Trace

ITEMS = 1000
SPACE = (
    Parameter("rate", "float", default=1e-5, low=1e-6, high=1e-3, log=True, description="of learning"),
    Parameter("batch", "int", default=4, low=1, high=8, cost="memory"),
    Parameter("mode", "choice", default="plain", choices=("plain", "better")),
    Parameter("output", "choice", default="out", choices=("out", "elsewhere"), tunable=False),
)
Objective = Callable[[Mapping[str, Any]], float | None]


def brief_of(brief: Brief, plan: SearchPlan | None, space: Sequence[Parameter] = SPACE) -> Brief:
    """`brief` with another space, whose files tell the configuration."""
    return replace(brief, space=tuple(space), plan=plan, render=lambda params: {"params.json": repr(dict(params))})


def scored(brief: Brief, share: float, **details: float) -> Score:
    """About `share` of the items right."""
    outcomes = {str(item): float(item < round(share * ITEMS)) for item in range(ITEMS)}
    return score_of(brief.metric, outcomes, direction=brief.direction, details=details)


def start_of(brief: Brief, objective: Objective, seed: int = 0) -> Trace:
    """Before the first loop: the baseline is the default configuration where the brief has a plan."""
    value = objective({p.name: p.default for p in brief.space}) if brief.plan else 0.1
    assert value is not None
    return Trace(0, seed, brief.direction, scored(brief, value))


def end_of(brief: Brief, trace: Trace, experiment: Experiment, value: float | None) -> Experiment:
    """`experiment` with its score, or failed where there is none."""
    failure = experiment.hypothesis.abandoned or ("" if value is not None else "train: exit code 1: boom")
    execution = Execution("train", "failed" if failure else "ok", 2.0, peak_mb=100.0)
    scores: Any = {} if failure or value is None else {"validation": scored(brief, value)}
    return replace(
        experiment, scores=scores, failure=failure, last_step="feedback", feedback=Feedback("reject", "made up"),
        stages=() if experiment.hypothesis.abandoned else (StageRecord("full", None, 0, execution),),
    )  # fmt: skip


async def play(agent: Agent, brief: Brief, loops: int, objective: Objective, trace: Trace | None = None) -> Trace:
    """The trace after `loops` more loops."""
    trace = trace or start_of(brief, objective)
    for _ in range(loops):
        hypothesis = await agent.propose(brief, trace)
        files = {} if hypothesis.abandoned else await agent.code(brief, trace, hypothesis)
        made = Experiment(trace.loop, hypothesis, files)
        value = None if hypothesis.abandoned else objective(hypothesis.params)
        made = end_of(brief, trace, made, value)
        trace = replace(trace, loop=trace.loop + 1, experiments=(*trace.experiments, made))
    return trace
