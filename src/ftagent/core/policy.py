"""Which experiment to build on next. Short, pure, and apart from what is claimed (statistics.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from ftagent.core.search_plan import Constraint
from ftagent.core.statistics import contributions
from ftagent.core.types import Direction, Experiment, Outcome, Score, StageRecord, Trace


@dataclass(frozen=True)
class Choice:
    """What the next proposal should do: draft anew, improve experiment `parent`, or debug it."""

    kind: Literal["draft", "improve", "debug"]
    parent: int | None


@dataclass(frozen=True)
class PolicyOptions:
    """`drafts`: independent starts before improving; `debug_depth`: failures in a row worth mending."""

    drafts: int = 2
    debug_depth: int = 2
    challengers: int = 3
    constraints: tuple[Constraint, ...] = ()
    """What is built on and recommended exceeds none of them."""


def measured(score: Score | None, stages: Sequence[StageRecord]) -> dict[str, float]:
    """Numbers by name that constraints and objectives are about: the score's details; `seconds` and `peak_mb` of the
    full stages where those are known."""
    full = [record.execution for record in stages if record.purpose == "full"]
    peaks = [execution.peak_mb for execution in full if execution.peak_mb is not None]
    found = {"seconds": math.fsum([execution.seconds for execution in full])} if full else {}
    found |= {"peak_mb": max(peaks)} if peaks else {}
    return {**found, **(score.details if score is not None else {})}


def excess(constraints: Sequence[Constraint], values: Mapping[str, float]) -> dict[str, float]:
    """Name → how far its constraint is exceeded, as a share of it. What was not measured exceeds nothing."""
    over = {c.name: (values.get(c.name, c.at_most) - c.at_most) / (abs(c.at_most) or 1.0) for c in constraints}
    return {name: share for name, share in over.items() if share > 0}


def posterior_mean(score: Score, prior_mean: float, prior_sd: float) -> float:
    """Mean of a normal posterior: the score pulled towards `prior_mean` the more, the fewer its items."""
    if prior_sd <= 0:
        return prior_mean
    # A score of 0 or 1 has no spread to see; half an item of doubt keeps it from being taken as certain.
    error = max(score.stderr, 0.5 / score.n)
    weight = prior_sd**2 / (prior_sd**2 + error**2)
    return prior_mean + weight * (score.value - prior_mean)


def posterior_means(scores: Sequence[Score]) -> list[float]:
    """Posterior means of comparable scores; prior by empirical Bayes: their mean and their spread beyond noise."""
    if len(scores) < 2:
        return [score.value for score in scores]
    values = [score.value for score in scores]
    mean = math.fsum(values) / len(values)
    spread = math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)
    noise = math.fsum([score.stderr**2 for score in scores]) / len(scores)
    prior_sd = math.sqrt(max(spread - noise, spread / 4))
    return [posterior_mean(score, mean, prior_sd) for score in scores]


def choose(trace: Trace, options: PolicyOptions) -> Choice:
    """The policy: a bounded number of drafts, mend a fresh failure, else improve on the best posterior mean."""
    last = trace.experiments[-1] if trace.experiments else None
    if last is not None and last.failure and _failures_in_a_row(trace.experiments, last) <= options.debug_depth:
        return Choice("debug", last.loop)
    drafts = sum(e.hypothesis.kind == "draft" for e in trace.experiments) + len(trace.pending)
    if drafts < options.drafts:
        return Choice("draft", None)
    best = ranking(trace.experiments, trace.baseline, trace.direction)
    parent = next((loop for loop in best if loop is not None), None)
    return Choice("improve", parent) if parent is not None else Choice("draft", None)


def judge(experiment: Experiment, leader: Experiment | None, trace: Trace, options: PolicyOptions) -> Outcome:
    """Is `experiment` what to build on rather than `leader` (None: the baseline)? A search decision, not a claim."""
    if experiment.validation is None or trace.baseline is None:
        return Outcome(None, experiment.failure, "failed", experiment.failure or "it has no score")
    values = measured(experiment.validation, experiment.stages)
    if over := excess(options.constraints, values):
        limits = {constraint.name: constraint.at_most for constraint in options.constraints}
        told = ", ".join(f"{name} is {values[name]:.4g}, at most {limits[name]:.4g} is allowed" for name in over)
        return Outcome(experiment.validation, "", "reject", told)
    rivals = [experiment] if leader is None else [leader, experiment]
    exceeds = excess(options.constraints, measured(trace.baseline, trace.baseline_stages))
    best = ranking(rivals, None if exceeds else trace.baseline, trace.direction)[0]
    if best == experiment.loop:
        return Outcome(experiment.validation, "", "accept", "best posterior mean so far")
    name = "the baseline" if best is None else f"loop {best}"
    return Outcome(experiment.validation, "", "reject", f"{name} has a better posterior mean")


def ranking(experiments: Sequence[Experiment], baseline: Score | None, direction: Direction) -> list[int | None]:
    """Loops (None: the baseline) by posterior mean of their validation score, best first; unscored left out."""
    subjects: list[tuple[int | None, Score]] = [(None, baseline)] if baseline is not None else []
    subjects += [(e.loop, score) for e in experiments if (score := e.validation) is not None]
    means = posterior_means([score for _, score in subjects])
    sign = 1.0 if direction == "maximize" else -1.0
    ranks = sorted([(-sign * mean, place) for place, mean in enumerate(means)])
    return [subjects[place][0] for _, place in ranks]


def challengers(
    experiments: Sequence[Experiment], baseline: Score | None, direction: Direction, options: PolicyOptions
) -> list[int]:
    """The best experiment within the constraints and those within noise of it (two standard errors of the difference),
    best first."""
    experiments = [e for e in experiments if not excess(options.constraints, measured(e.validation, e.stages))]
    order = [loop for loop in ranking(experiments, baseline, direction) if loop is not None]
    if not order:
        return []
    scores = {e.loop: score for e in experiments if (score := e.validation) is not None}
    best = scores[order[0]]
    near = (loop for loop in order if within_noise(scores[loop], best))
    return list(islice(near, options.challengers))


def within_noise(one: Score, other: Score) -> bool:
    """Whether two scores differ by at most two standard errors of their difference, paired where they share items."""
    difference = abs(one.value - other.value)
    if one.statistic == "runs" and min(one.n, other.n) == 1:
        return True  # a single training does not tell its noise
    return difference == 0 or difference <= 2 * _paired_error(one, other)


def _paired_error(one: Score, other: Score) -> float:
    mine, others = contributions(one), contributions(other)
    shared = [key for key in mine if key in others]
    if len(shared) < 2:
        return math.hypot(one.stderr, other.stderr)
    differences = [mine[key] - others[key] for key in shared]
    mean = math.fsum(differences) / len(differences)
    return math.sqrt(math.fsum([(d - mean) ** 2 for d in differences]) / (len(differences) - 1) / len(differences))


def _failures_in_a_row(experiments: Sequence[Experiment], last: Experiment) -> int:
    by_loop = {experiment.loop: experiment for experiment in experiments}
    count, at = 0, last
    while at.failure:
        count += 1
        parent = by_loop.get(at.hypothesis.parent) if at.hypothesis.parent is not None else None
        if at.hypothesis.kind != "debug" or parent is None:
            break
        at = parent
    return count
