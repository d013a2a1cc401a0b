"""Made-up loops of a run, so that every prompt is rendered before the first real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftagent.agents import asking
from ftagent.agents.asking import Asked
from ftagent.core import policy
from ftagent.core.statistics import score_of
from ftagent.core.types import (
    Brief,
    Execution,
    Experiment,
    Feedback,
    Hypothesis,
    Left,
    Outcome,
    Score,
    StageRecord,
    Trace,
)
from ftagent.llm.types import Role


def sample_steps(brief: Brief, lessons: Sequence[str], options: policy.PolicyOptions) -> Iterator[tuple[Role, Asked]]:
    """Each step in a first loop, and in a later one that has everything a prompt can show."""
    for trace in (Trace(0, 0, brief.direction, None), _later(brief)):
        known = [*lessons] or (["a lesson of an earlier run"] if trace.experiments else [])
        yield "propose", asking.to_propose(brief, trace, known, options)
        hypothesis = _hypothesis(brief, 0 if trace.experiments else None, "improve" if trace.experiments else "draft")
        yield "code", asking.to_code(brief, trace, hypothesis, known)
        failure = Execution("train", "failed", 1.0, exit_code=1, tail="Traceback (most recent call last):\nError: x\n")
        stages = (StageRecord("debug", None, 0, failure), StageRecord("debug", None, 1, failure))
        experiment = Experiment(trace.loop, hypothesis, brief.render(hypothesis.params), attempts=2, stages=stages)
        yield "repair", asking.to_repair(brief, experiment, failure, len)
        for score in (_score(brief, 0.6), None):
            outcome = Outcome(score, "" if score else "train: failed", "accept" if score else "failed", "a sample")
            yield "reflect", asking.to_reflect(brief, trace, experiment, outcome, len)


def _later(brief: Brief) -> Trace:
    first = Experiment(
        0,
        _hypothesis(brief, None, "draft"),
        brief.render({}),
        scores={"validation": _score(brief, 0.5)},
        feedback=Feedback("accept", "a sample", ("something was seen",), "something is next"),
        last_step="feedback",
    )
    failed = Experiment(1, _hypothesis(brief, 0, "improve"), brief.render({}), failure="train: failed: ValueError")
    pending = (_hypothesis(brief, 0, "improve"),)
    return Trace(3, 0, brief.direction, _score(brief, 0.4), (first, failed), pending, Left(2, 60.0, 0.5))


def _hypothesis(brief: Brief, parent: int | None, kind: str) -> Hypothesis:
    params = {parameter.name: parameter.default for parameter in brief.space}
    return Hypothesis("a sample", "it is one", parent, kind, "more", params, "the loss")  # type: ignore[arg-type]


def _score(brief: Brief, share: float) -> Score:
    outcomes = {str(item): float(item < 10 * share) for item in range(10)}
    return score_of(brief.metric, outcomes, direction=brief.direction, errors={"wrong": 4})
