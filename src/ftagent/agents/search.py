"""The agent without a key: Optuna over the scenario's search space, code from the scenario's templates.

The defaults are always the first trial; then a seeded TPE sampler (Bergstra et al., NIPS 2011, as in Optuna).
The study is rebuilt from the trace at every proposal, so nothing but the journal has to survive a crash.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from ftagent.agents.reflection import reflect
from ftagent.agents.space import defaults
from ftagent.agents.tuning.samplers import optuna_point
from ftagent.agents.tuning.trials import known_of
from ftagent.core import policy
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import (
    Brief,
    Execution,
    Experiment,
    Feedback,
    Files,
    Hypothesis,
    Outcome,
    Trace,
)

_CHANGES = 3
_TRIES = 50


class SearchAgent:
    """Stateless: the same trace and seed give the same proposal."""

    name = "search"

    def __init__(self, options: policy.PolicyOptions | None = None) -> None:
        self._options = options or policy.PolicyOptions()

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        """The defaults first; then drafts all over the space, then changes to the best so far."""
        if not trace.experiments and not trace.pending:
            return Hypothesis(
                title="the scenario's defaults",
                reason="every search starts from the defaults, so that each later trial has something to beat",
                expected_effect=f"{brief.metric} above the untouched base model",
                params=defaults(brief),
            )
        choice = policy.choose(trace, self._options)
        tried = [e.hypothesis.params for e in trace.experiments] + [h.params for h in trace.pending]
        for attempt in range(_TRIES):
            params = self._suggest(brief, trace, choice, attempt)
            if params not in tried:
                break
        return _in_words(brief, trace, choice, params)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        return brief.render(hypothesis.params)

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The templates are what they are: the same files say that there is no repair."""
        return experiment.files

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        return reflect(brief, trace, experiment, outcome)

    def _suggest(self, brief: Brief, trace: Trace, choice: policy.Choice, attempt: int) -> dict[str, Any]:
        sampled = _sample(brief, trace, attempt)
        parent = _params_of(trace, choice.parent)
        if choice.kind == "draft" or parent is None:
            return sampled
        rng = random.Random(f"{trace.seed}/{trace.loop}/{attempt}")
        if choice.kind == "debug":
            # Half of what differs from the defaults goes back to them: one of those values broke it.
            source, names = defaults(brief), [n for n, value in defaults(brief).items() if parent.get(n) != value]
            count = max(1, math.ceil(len(names) / 2))
        else:
            source, names = sampled, [name for name in sampled if sampled[name] != parent.get(name)]
            count = rng.randint(1, _CHANGES)
        chosen = rng.sample(sorted(names), min(count, len(names)))
        return {**parent, **{name: source[name] for name in chosen}} if chosen else sampled


def _params_of(trace: Trace, loop: int | None) -> dict[str, Any] | None:
    return next((e.hypothesis.params for e in trace.experiments if e.loop == loop), None)


def _sample(brief: Brief, trace: Trace, attempt: int) -> dict[str, Any]:
    """One point of the space from TPE, given everything that was scored and what is in flight."""
    plan = SearchPlan("joint", "tpe")
    return optuna_point(
        brief.space, plan, brief.direction, known_of(brief, trace), f"{trace.seed}/{trace.loop}/{attempt}"
    )


def _in_words(brief: Brief, trace: Trace, choice: policy.Choice, params: Mapping[str, Any]) -> Hypothesis:
    parent = _params_of(trace, choice.parent)
    against = f"loop {choice.parent}" if parent is not None else "the defaults"
    before = parent if parent is not None else defaults(brief)
    changes = [f"{name} {before.get(name)} → {value}" for name, value in params.items() if before.get(name) != value]
    scored = [e for e in trace.experiments if e.validation is not None]
    evidence = f"{len(scored)} scored trial{'s' if len(scored) != 1 else ''}"
    score = next((e.validation for e in trace.experiments if e.loop == choice.parent), None)
    reasons = {
        "draft": f"an independent start: the sampler's next point given {evidence}",
        "improve": f"{against} has the best posterior mean"
        + (f" ({brief.metric} {score.value:.3f})" if score else "")
        + f"; these values are the sampler's given {evidence}, the rest stays",
        "debug": f"{against} failed; half of its departures from the defaults are taken back to find the cause",
    }
    return Hypothesis(
        title=f"{choice.kind} on {against}: " + (", ".join(changes) or "a repetition with another seed"),
        reason=reasons[choice.kind],
        parent=choice.parent,
        kind=choice.kind,
        expected_effect=f"{brief.metric} above {score.value:.3f}" if score else f"a first {brief.metric}",
        params=dict(params),
    )
