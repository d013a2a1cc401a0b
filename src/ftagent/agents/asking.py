"""What each step tells its model: the values and sections that templates arrange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftagent.agents.failures import condense
from ftagent.agents.history import history_section
from ftagent.agents.reflection import reflect
from ftagent.agents.sections import Count, Section
from ftagent.agents.views import (
    budget_words,
    changes_section,
    details_section,
    experiment_of,
    failures_section,
    files_section,
    hypothesis_block,
    leader_words,
    lessons_section,
    mistakes_block,
    pending_section,
    score_words,
    siblings_section,
    space_section,
    without_abandoned,
)
from ftagent.core import policy
from ftagent.core.executor import describe
from ftagent.core.types import Brief, Execution, Experiment, Files, Hypothesis, Outcome, Trace
from ftagent.core.untrusted import untrusted


@dataclass(frozen=True)
class Asked:
    """Values by name, and sections in order of importance."""

    values: dict[str, str]
    sections: list[Section]
    template: str = ""
    """Where it is not the role's own."""


def to_propose(brief: Brief, trace: Trace, lessons: Sequence[str], options: policy.PolicyOptions) -> Asked:
    choice = policy.choose(without_abandoned(trace), options)
    parent = experiment_of(trace, choice.parent)
    advice = {
        "draft": "draft: an independent start that differs from what was tried",
        "improve": f"improve loop {choice.parent}: it has the best posterior mean",
        "debug": f"debug loop {choice.parent}: it failed, and its idea has not been measured",
    }[choice.kind]
    sections = [
        space_section(brief.space),
        history_section(brief, trace),
        details_section(brief),
        failures_section(trace.experiments),
        pending_section(trace.pending),
        siblings_section(trace, choice.parent),
        *files_section(parent.files if parent else {}, "files"),
        lessons_section(lessons),
    ]
    return Asked({**state_values(trace), "advice": advice}, sections)


def to_code(brief: Brief, trace: Trace, hypothesis: Hypothesis, lessons: Sequence[str]) -> Asked:
    files = base_files(brief, trace, hypothesis)
    sections = [
        *files_section(files, "files"),
        space_section(brief.space),
        details_section(brief),
        failures_section(trace.experiments),
        siblings_section(trace, hypothesis.parent),
        lessons_section(lessons),
    ]
    return Asked({**state_values(trace), "hypothesis": hypothesis_block(hypothesis)}, sections)


def base_files(brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
    """What the code step starts from: the parent's files, else what the templates make of the parameters."""
    parent = experiment_of(trace, hypothesis.parent)
    return parent.files if parent is not None and parent.files else brief.render(hypothesis.params)


def to_repair(brief: Brief, experiment: Experiment, failure: Execution, count: Count) -> Asked:
    earlier = [
        f"- attempt {record.attempt}: {describe(record.execution)}"
        for record in experiment.stages
        if record.purpose == "debug" and not record.execution.ok and record.attempt < experiment.attempts - 1
    ]
    values = {
        "loop": str(experiment.loop),
        "hypothesis": hypothesis_block(experiment.hypothesis),
        "failure": untrusted("failure", condense(failure, list(experiment.files), count)),
        "attempts": untrusted("earlier failures", "\n".join(earlier[-4:])) if earlier else "",
    }
    return Asked(values, [*files_section(experiment.files, "files"), details_section(brief)])


def to_reflect(brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome, count: Count) -> Asked:
    computed = reflect(brief, trace, experiment, outcome)
    facts = [f"decision: {outcome.decision} ({outcome.reason})", *computed.observations]
    parent = experiment_of(trace, experiment.hypothesis.parent)
    executions = [record.execution for record in experiment.stages if record.split in (None, "validation")]
    failed = next((execution for execution in reversed(executions) if not execution.ok), None)
    told = condense(failed, list(experiment.files), count) if outcome.score is None and failed is not None else ""
    values = {
        **state_values(trace),
        "hypothesis": hypothesis_block(experiment.hypothesis),
        "facts": untrusted("facts", "\n".join(f"- {fact}" for fact in facts)),
        "failure": untrusted("failure", told) if told else "",
        "mistakes": mistakes_block(outcome.score),
    }
    before = parent.files if parent is not None else {}
    sections = [
        changes_section(before, experiment.files),
        space_section(brief.space),
        siblings_section(trace, experiment.hypothesis.parent),
        details_section(brief),
    ]
    return Asked(values, sections)


def state_values(trace: Trace) -> dict[str, str]:
    """What all prompts but those of repairs tell of a run."""
    return {
        "loop": str(trace.loop),
        "baseline": score_words(trace.baseline),
        "leader": leader_words(trace),
        "budget": budget_words(trace.left),
    }
