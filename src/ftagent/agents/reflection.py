"""What can be said of an experiment from its numbers alone: scores, losses, error categories."""

from __future__ import annotations

from ftagent.core.policy import excess, measured
from ftagent.core.statistics import compare
from ftagent.core.types import Brief, Experiment, Feedback, Outcome, Score, Trace

_FLAT = 0.02


def reflect(brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
    """Feedback with computed observations and the advice that follows from them."""
    if experiment.hypothesis.abandoned:
        return Feedback("failed", outcome.failure, (), "nothing was tried: ask for a proposal again")
    if outcome.score is None:
        return Feedback("failed", outcome.failure, tuple(_failure(experiment)), _after_failure(outcome.failure))
    parent = next((e.validation for e in trace.experiments if e.loop == experiment.hypothesis.parent), None)
    observations = [_against(outcome.score, trace.baseline, "the baseline")]
    if parent is not None:
        observations.append(_against(outcome.score, parent, f"its parent, loop {experiment.hypothesis.parent}"))
    observations += outcome.score.notes
    observations += _losses(experiment)
    observations += _errors(outcome.score, parent or trace.baseline)
    observations += _unknown(brief, experiment, outcome.score)
    advice = _advice(brief, experiment, outcome)
    return Feedback(outcome.decision, outcome.reason, tuple(filter(None, observations)), advice)


def _against(score: Score, other: Score | None, name: str) -> str:
    if other is None:
        return ""
    test = compare(other, score)
    start = f"{score.metric} {score.value:.4f} against {other.value:.4f} of {name}"
    if score.statistic == "runs" and test.n == 1:
        return f"{start}: one training each, so the noise is unknown"
    if score.statistic != "mean":  # outcomes are predictions: none of them is won
        return f"{start} ({test.name}, p = {test.p_value:.3g})"
    sign = 1.0 if score.direction == "maximize" else -1.0
    differences = [sign * (v - other.outcomes[key]) for key, v in score.outcomes.items() if key in other.outcomes]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return f"{start}: {wins} items won, {losses} lost ({test.name}, p = {test.p_value:.3g})"


def _losses(experiment: Experiment) -> list[str]:
    losses = [loss for _, loss in experiment.losses]
    if len(losses) < 4:
        return []
    last = losses[-max(2, len(losses) // 4) :]
    before = losses[-2 * len(last) : -len(last)] or losses[:1]
    drop = (sum(before) / len(before) - sum(last) / len(last)) / max(abs(sum(before) / len(before)), 1e-9)
    trend = "still falling" if drop > _FLAT else "rising" if drop < -_FLAT else "flat"
    return [f"training loss {losses[0]:.3f} → {losses[-1]:.3f}, {trend} over its last quarter ({drop:+.1%} drop)"]


def _errors(score: Score, before: Score | None) -> list[str]:
    if not score.errors:
        return []
    worst = sorted(score.errors.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    parts = []
    for category, count in worst:
        old = before.errors.get(category) if before else None
        parts.append(f"{category} {count}" + (f" (was {old})" if old is not None else ""))
    return ["errors: " + ", ".join(parts)]


def _advice(brief: Brief, experiment: Experiment, outcome: Outcome) -> str:
    trend = next(iter(_losses(experiment)), "")
    if "rising" in trend:
        return "the loss rises at the end: a lower learning rate or a longer warm-up"
    score = outcome.score
    if score is not None and score.errors:
        category, count = max(score.errors.items(), key=lambda pair: (pair[1], pair[0]))
        wrong = sum(score.errors.values())
        if count > wrong / 2:
            return f"most of what is wrong is {category!r} ({count} of {wrong}): change what the data teaches there"
    if "still falling" in trend:
        return "the loss still falls: a higher learning rate, or easier data, gets further on the same tokens"
    if outcome.decision == "accept":
        return "build on this"
    if score is not None and brief.plan and excess(brief.plan.constraints, measured(score, experiment.stages)):
        return "other values: with these the constraints are not kept"
    return f"this direction does not {'raise' if brief.direction == 'maximize' else 'lower'} {brief.metric}: leave it"


def _unknown(brief: Brief, experiment: Experiment, score: Score) -> list[str]:
    """Constraints and objectives of the plan that the trial tells no number of."""
    plan = brief.plan
    if plan is None:
        return []
    known = measured(score, experiment.stages)
    limits = [
        f"no {c.name} was measured, so its constraint counts as kept" for c in plan.constraints if c.name not in known
    ]
    return limits + [
        f"no {o.name} was measured, so this objective is unknown" for o in plan.objectives if o.name not in known
    ]


def _failure(experiment: Experiment) -> list[str]:
    if not experiment.stages:
        return []
    execution = experiment.stages[-1].execution
    memory = f", peak memory {execution.peak_mb:.0f} MB" if execution.peak_mb else ""
    return [f"stage {execution.stage} ended as {execution.end} after {execution.seconds:.1f} s{memory}"]


def _after_failure(failure: str) -> str:
    if "stopped early" in failure:
        return "other values: with these it could not win any more"
    if "out of memory" in failure:
        return "a smaller batch or shorter sequences"
    if "time limit" in failure:
        return "less work per experiment, or a higher time limit"
    if "refused" in failure:
        return "training data that has nothing of the benchmark in it"
    return "take back part of the change to find what broke"
