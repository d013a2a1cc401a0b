"""All parameters at once: a sampler gives the configuration of each loop."""

from __future__ import annotations

from ftagent.agents.reflection import reflect
from ftagent.agents.space import defaults, tunable
from ftagent.agents.tuning import samplers, words
from ftagent.agents.tuning.trials import Known, best_of, known_of, plan_of, stopping_files
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Brief, Execution, Experiment, Feedback, Files, Hypothesis, Outcome, Trace

MODE = "joint"


class JointAgent:
    """Stateless: the same trace and seed give the same proposal."""

    name = "search"

    def __init__(self, plan: SearchPlan) -> None:
        """Raises RequestError for a sampler that is unknown, not installed, or not able to do what is planned."""
        samplers.check_sampler(plan)

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        known = known_of(brief, trace)
        if not known:
            return first_trial(brief)
        space = tunable(brief)
        if not space:
            return nothing("no parameter is tunable")
        found = samplers.sample(space, plan_of(brief), trace.direction, known, trace.seed)
        if found is None:
            return nothing("every configuration was tried")
        return in_words(brief, trace, {**defaults(brief), **found}, known)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        return {**brief.render(hypothesis.params), **stopping_files(brief, trace)}

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The templates are what they are: the same files say that there is no repair."""
        return experiment.files

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        return reflect(brief, trace, experiment, outcome)


def first_trial(brief: Brief) -> Hypothesis:
    """The default configuration, where the baseline is something else."""
    return Hypothesis(
        title="the default configuration",
        reason="every search starts from the defaults, so that each later trial has something to beat",
        expected_effect=f"a first {brief.metric}",
        params=defaults(brief),
        plan={"mode": MODE},
    )


def nothing(why: str) -> Hypothesis:
    """A loop without anything to try."""
    return Hypothesis("no usable proposal", why, abandoned=why)


def in_words(
    brief: Brief, trace: Trace, params: dict[str, object], known: list[Known], within: str = "", how: str = ""
) -> Hypothesis:
    """The hypothesis of a sampled configuration. `within`: in which part of the space; `how`: chosen otherwise."""
    best, sampler = best_of(brief, trace), plan_of(brief).sampler
    changed = words.changes(best.params, params)
    ends = [one.state for one in known if not one.again]
    counts = {
        "measured": ends.count("finished"), "stopped early": ends.count("stopped"), "failed": ends.count("failed"),
        "running": ends.count("running"),
    }  # fmt: skip
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    trials = f"{len(ends)} trial{'s' if len(ends) != 1 else ''}"
    name = "the joint model" if sampler == "auto" else sampler
    return Hypothesis(
        title=changed or "the best configuration again",
        reason=f"{how or f'{name} chose this point from {trials} ({told})'}{within}; {words.evidence(brief, best)}",
        parent=best.loop,
        kind="draft" if best.loop is None else "improve",
        expected_effect=words.expected(brief, best),
        params=params,
        plan={"mode": MODE, "sampler": sampler},
    )
