"""What a model is told when it tunes: the configuration, what was tried of the parameter, what is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftagent.agents import asking
from ftagent.agents.asking import Asked, state_values
from ftagent.agents.history import history_section
from ftagent.agents.samples import sample_steps
from ftagent.agents.sections import Section
from ftagent.agents.space import defaults, shown, tunable
from ftagent.agents.tuning import rounds
from ftagent.agents.tuning.rounds import Decided, Round
from ftagent.agents.tuning.trials import best_of, plan_of
from ftagent.agents.views import details_section, failures_section, lessons_section, pending_section, space_section
from ftagent.core import policy
from ftagent.core.types import Brief, Trace
from ftagent.core.untrusted import untrusted
from ftagent.llm.types import Role
from ftagent.search import Trial

_MOST_TRIED = 12


def to_start(brief: Brief, trace: Trace, lessons: Sequence[str]) -> Asked:
    """The first round: keys, base configuration and first value at once."""
    plan = plan_of(brief)
    wanted = ", ".join(plan.priority)
    keys = (
        f"The user wants these parameters tuned, in this order: {wanted}. Give them as keys."
        if wanted
        else f"Choose the parameters that matter most as keys, at most {plan.keys}, the most promising first."
    )
    advice = (
        f"This is the first round. The default configuration was trained and scored: it is the baseline.\n{keys}\n"
        f"Each of them gets {plan.rounds_per_parameter} rounds.\n\n"
        "- keys: the parameters to tune, in order.\n"
        "- base: values that should differ from the defaults from the start; null where the defaults are right.\n"
        "- why: what speaks for these keys and this base.\n"
        "- parameter and value: the first of keys and its first new value.\n"
        "- reason: why this value. expected_effect: on the metric, with a number."
    )
    values = {"advice": advice, "configuration": configuration(brief, defaults(brief))}
    return _asked(brief, trace, lessons, values, Section("tried", ("",)))


def to_round(brief: Brief, trace: Trace, lessons: Sequence[str], plan: Decided, turn: Round) -> Asked:
    """A later round: one value."""
    many = plan_of(brief).rounds_per_parameter
    closer = " This is a later pass over the parameters: look closer around the best value." if turn.sweep > 1 else ""
    advice = (
        f"This round tunes {turn.key} (round {turn.number} of {many} of this parameter, pass {turn.sweep} over "
        f"{', '.join(plan.keys)}).{closer}\n\n"
        f"- parameter: {turn.key}.\n"
        "- value: a new one, inside its range, that was not tried on this configuration.\n"
        "- reason: why this value, from what the values above show. expected_effect: on the metric, with a number."
    )
    values = {"advice": advice, "configuration": configuration(brief, turn.start.params)}
    return _asked(brief, trace, lessons, values, _tried(brief, turn.key, turn.tried))


def to_narrow(brief: Brief, trace: Trace, lessons: Sequence[str], structure: str, loops: int) -> Asked:
    """Where the sampler is to look in the next `loops` loops; `structure` is what was said before."""
    values = {
        **state_values(trace),
        "advice": str(loops),
        "configuration": configuration(brief, best_of(brief, trace).params),
        "structure": untrusted("structure", structure) if structure else "",
    }
    sections = [
        space_section(brief.space),
        history_section(brief, trace),
        details_section(brief),
        failures_section(trace.experiments),
        lessons_section(lessons),
    ]
    return Asked(values, sections, template="structure")


def configuration(brief: Brief, params: Mapping[str, Any]) -> str:
    """One line a parameter."""
    protected = {p.name for p in brief.space} - {p.name for p in tunable(brief)}
    lines = [
        f"{name} = {shown(value)}" + (" (protected)" if name in protected else "") for name, value in params.items()
    ]
    return untrusted("configuration", "\n".join(lines))


def round_samples(brief: Brief, lessons: Sequence[str]) -> Iterator[tuple[Role, Asked]]:
    """Made-up rounds, so that every prompt is rendered before the first real one."""
    first = Trace(0, 0, brief.direction, None)
    yield "propose", to_start(brief, first, lessons)
    names = tuple(p.name for p in tunable(brief)) or ("",)
    if tunable(brief):
        plan = Decided(names[:1], {}, "a sample")
        turn = rounds.round_of(brief, first, plan)
        if turn is not None:
            yield "propose", to_round(brief, first, lessons or ["a lesson"], plan, turn)
    yield from _reflections(brief, lessons)


def structure_samples(brief: Brief, lessons: Sequence[str]) -> Iterator[tuple[Role, Asked]]:
    """As `round_samples`, for the hybrid agent."""
    first = Trace(0, 0, brief.direction, None)
    yield "propose", to_narrow(brief, first, lessons, "", 5)
    yield "propose", to_narrow(brief, replace(first, loop=5), lessons or ["a lesson"], "a sample", 5)


def _reflections(brief: Brief, lessons: Sequence[str]) -> Iterator[tuple[Role, Asked]]:
    steps = sample_steps(brief, lessons, policy.PolicyOptions())
    yield from ((role, asked) for role, asked in steps if role == "reflect")


def _asked(brief: Brief, trace: Trace, lessons: Sequence[str], values: dict[str, str], tried: Section) -> Asked:
    sections = [
        space_section(brief.space),
        tried,
        history_section(brief, trace),
        details_section(brief),
        failures_section(trace.experiments),
        pending_section(trace.pending),
        lessons_section(lessons),
    ]
    return Asked({**asking.state_values(trace), **values}, sections, template="round")


def _tried(brief: Brief, key: str, trials: Sequence[Trial]) -> Section:
    lines = [_line(brief, key, trial) for trial in trials[-_MOST_TRIED:]]
    short = f"({len(trials)} values were tried)"
    return Section("tried", (untrusted("tried", "\n".join(lines)), short) if lines else ("",))


def _line(brief: Brief, key: str, trial: Trial) -> str:
    value = f"{key} = {shown(trial.params.get(key))}"
    if trial.value is not None:
        over = ", over a limit" if trial.violation > 0 else ""
        return f"{value}: {brief.metric} {trial.value:.4f} ± {trial.stderr:.4f}{over}"
    live = f" at {trial.curve[-1][1]:.4f} after step {trial.curve[-1][0]}" if trial.curve else ""
    return f"{value}: stopped early{live}" if trial.stopped else f"{value}: no score"
