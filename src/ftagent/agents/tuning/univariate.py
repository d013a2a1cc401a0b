"""One parameter at a time: each loop is one round, a new value of one parameter on the best configuration so far.

Everything is derived from the trace, so a resumed run goes on where it was, in the middle of a parameter's rounds too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ftagent.agents.reflection import reflect
from ftagent.agents.space import defaults, read, refusal, same, shown, tunable
from ftagent.agents.tuning import rounds, words
from ftagent.agents.tuning.rounds import Decided, Round
from ftagent.agents.tuning.trials import known_of, plan_of, stopping_files
from ftagent.core.types import Brief, Execution, Experiment, Feedback, Files, Hypothesis, Outcome, Trace
from ftagent.search import Trial, univariate

_ORDINALS = ("", "second ", "third ", "fourth ", "fifth ")


@dataclass(frozen=True)
class Advice:
    """What somebody suggests for a round; nothing in it has been checked."""

    parameter: str
    value: Any
    reason: str = ""
    expected_effect: str = ""
    keys: tuple[str, ...] = ()
    """Of the first round: the parameters to tune, in order."""
    base: Any = None
    """Of the first round: values that differ from the defaults."""
    why: str = ""
    """Of the first round: why these."""


class Adviser(Protocol):
    """Suggests values. Raises Abandoned where it has no usable answer."""

    async def start(self, brief: Brief, trace: Trace) -> Advice: ...

    async def round(self, brief: Brief, trace: Trace, plan: Decided, turn: Round) -> Advice: ...

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback: ...


class Abandoned(Exception):
    """There is nothing to try in this loop; the text says why."""


@dataclass
class _Draft:
    """A round on its way to a hypothesis."""

    notes: list[str] = field(default_factory=list)

    def refuse(self, what: str, why: str) -> None:
        self.notes.append(f"refused: {what}: {why}" if what else f"refused: {why}")


class UnivariateAgent:
    """Without an adviser it is the agent that needs no key: values are those of ftagent.search.univariate."""

    def __init__(self, name: str = "search", adviser: Adviser | None = None) -> None:
        self.name = name
        self._adviser = adviser

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        """Raises what the adviser raises."""
        plan, draft, advice = rounds.decided(trace), _Draft(), None
        first = plan is None
        try:
            if plan is None and self._adviser is not None:
                advice = await self._adviser.start(brief, trace)
            plan = plan or _decide(brief, advice, draft)
            turn = rounds.round_of(brief, trace, plan)
            if turn is None:
                raise Abandoned("every value of every parameter was tried on the best configuration")
            if advice is None and self._adviser is not None:
                advice = await self._adviser.round(brief, trace, plan, turn)
        except Abandoned as error:
            return Hypothesis("no usable proposal", str(error), abandoned=str(error))
        params, suggested = _params(brief, trace, turn, advice, draft)
        made = _in_words(brief, plan.why if first else "", turn, params, advice if suggested else None)
        record = rounds.record(plan, turn, first, plan_of(brief).rounds_per_parameter)
        return replace(made, notes=tuple(draft.notes), plan=record)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        return {**brief.render(hypothesis.params), **stopping_files(brief, trace)}

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """The templates are what they are: the same files say that there is no repair."""
        return experiment.files

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        if self._adviser is None or experiment.hypothesis.abandoned:
            return reflect(brief, trace, experiment, outcome)
        return await self._adviser.reflect(brief, trace, experiment, outcome)


def _decide(brief: Brief, advice: Advice | None, draft: _Draft) -> Decided:
    """Keys and base configuration: the user's before the adviser's before the usual ones."""
    most = plan_of(brief).keys
    if advice is None:
        return Decided(_valid_keys(brief, rounds.keys_of(brief), most, draft), {}, "")
    base = _base(brief, advice.base, draft)
    if wanted := plan_of(brief).priority:
        if advice.keys and tuple(advice.keys) != wanted[: len(advice.keys)]:
            draft.refuse(f"keys {', '.join(advice.keys)}", f"the user wants {', '.join(wanted)}")
        return Decided(_valid_keys(brief, wanted, len(wanted), draft), base, advice.why)
    return Decided(_valid_keys(brief, advice.keys, most, draft), base, advice.why)


def _valid_keys(brief: Brief, names: tuple[str, ...], most: int, draft: _Draft) -> tuple[str, ...]:
    kept: list[str] = []
    for name in dict.fromkeys(names):
        if why := refusal(brief, name):
            draft.refuse("key", why)
        elif len(kept) == most:
            draft.refuse(f"key {name}", f"at most {most} parameters are tuned first")
        else:
            kept.append(name)
    return tuple(kept) or univariate.priorities(tunable(brief), most)


def _base(brief: Brief, given: Any, draft: _Draft) -> dict[str, Any]:
    """The values of a base configuration that are valid and differ from the defaults."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        draft.refuse("base", "it is no object with parameters and values")
        return {}
    start, found = defaults(brief), {}
    for name, value in given.items():
        if value is None:
            continue
        if why := refusal(brief, name):
            if not (name in start and start[name] == value):
                draft.refuse("base", why)
            continue
        try:
            one = read(rounds.parameter_of(brief, name), value)
        except ValueError as error:
            draft.refuse("base", str(error))
            continue
        draft.notes += [f"base: {one.note}"] if one.note else []
        if one.value != start[name]:
            found[name] = one.value
    return found


def _params(
    brief: Brief, trace: Trace, turn: Round, advice: Advice | None, draft: _Draft
) -> tuple[dict[str, Any], bool]:
    """The configuration of a round, and whether it is as suggested: what is unusable is replaced, so that no round is
    lost."""
    start = dict(turn.start.params)
    if advice is not None:
        why = refusal(brief, advice.parameter)
        if not why and advice.parameter != turn.key:
            why = f"{advice.parameter} is not tuned in this round, {turn.key} is"
        if not why:
            try:
                one = read(rounds.parameter_of(brief, turn.key), advice.value)
            except ValueError as error:
                why = str(error)
            else:
                draft.notes += [one.note] if one.note else []
                wanted = {**start, turn.key: one.value}
                tried = [known.trial.params for known in known_of(brief, trace)]
                if not any(same(wanted, params, brief.space) for params in tried):
                    return wanted, True
                why = f"{turn.key} = {shown(one.value)} was tried on this configuration"
        draft.refuse("", why)
    value = _number(brief, trace, turn)
    if advice is not None:
        draft.notes.append(f"{turn.key} = {shown(value)} is the search's own value")
    return {**start, turn.key: value}, False


def _number(brief: Brief, trace: Trace, turn: Round) -> Any:
    """The value that the numbers alone suggest."""
    start = turn.start.params
    own = Trial(start, turn.start.score.value if turn.start.score else None)
    trials = [own, *(trial for trial in turn.tried if not same(trial.params, start, brief.space))]
    ordered = rounds.parameter_of(brief, turn.key).kind != "choice"
    # Numbers that an earlier pass tried, with other values of the rest, bound where to look: a later pass is finer.
    known = [one.trial for one in known_of(brief, trace)] if ordered else trials
    values = [trial.params.get(turn.key) for trial in [*trials, *known]]
    left = plan_of(brief).rounds_per_parameter - turn.number + 1
    return univariate.suggest(brief.space, trace.direction, trials, turn.key, values, left, trace.seed)


def _in_words(brief: Brief, plan: str, turn: Round, params: dict[str, Any], advice: Advice | None) -> Hypothesis:
    start, key = turn.start, turn.key
    before = start.params.get(key)
    ordinal = _ORDINALS[turn.sweep - 1] if turn.sweep <= len(_ORDINALS) else f"{turn.sweep}th "
    many = plan_of(brief).rounds_per_parameter
    where = f"{ordinal + 'pass, ' if turn.sweep > 1 else ''}round {turn.number} of {many}"
    moved = f"{shown(before)} → {shown(params[key])}" if before != params[key] else f"stays {shown(before)}"
    base = "" if start.loop is not None or start.score is not None else words.changes(defaults(brief), start.params)
    scored = [trial for trial in turn.tried if trial.value is not None]
    own = (
        f"the next point along {key} after {len(scored)} measured value{'s' if len(scored) != 1 else ''}"
        if scored
        else f"a first value of {key}"
    )
    reason = " ".join(advice.reason.split()).rstrip(".") if advice and advice.reason.strip() else own
    why = f" Plan: {' '.join(plan.split()).rstrip('.')}." if plan else ""
    return Hypothesis(
        title=f"{key} {moved} ({where})" + (f"; base: {base}" if base else ""),
        reason=f"{reason}; {words.evidence(brief, start)}.{why}",
        parent=start.loop,
        kind="draft" if start.loop is None else "improve",
        expected_effect=(advice.expected_effect.strip() if advice else "") or words.expected(brief, start),
        params=params,
    )
