"""The part of a search space that a model leaves to the sampler: narrowed ranges, fewer choices, fixed values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftagent.agents.space import read, refusal, shown, tunable
from ftagent.agents.tuning.forms import StructureReply
from ftagent.agents.tuning.trials import Known
from ftagent.core.types import Brief, Parameter


@dataclass(frozen=True)
class Structure:
    """All of it valid for the space it was read for. Empty: nothing is narrowed."""

    important: tuple[str, ...] = ()
    """The parameters that are varied; the others keep the best configuration's values. Empty: all."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    def document(self) -> dict[str, Any]:
        """For `Hypothesis.plan`."""
        return {
            "important": list(self.important),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "choices": {name: list(values) for name, values in self.choices.items()},
            "fixed": dict(self.fixed),
            "why": self.why,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Structure:
        """What `document` wrote."""
        return cls(
            tuple(document.get("important", ())),
            {name: (float(low), float(high)) for name, (low, high) in document.get("ranges", {}).items()},
            {name: tuple(values) for name, values in document.get("choices", {}).items()},
            dict(document.get("fixed", {})),
            str(document.get("why", "")),
        )

    def text(self) -> str:
        """In plain words, one part a line; empty where nothing is narrowed."""
        lines = [f"varied: {', '.join(self.important)}"] if self.important else []
        lines += [f"{name} from {low:g} to {high:g}" for name, (low, high) in self.ranges.items()]
        lines += [f"{name} one of {', '.join(map(shown, values))}" for name, values in self.choices.items()]
        lines += [f"{name} fixed at {shown(value)}" for name, value in self.fixed.items()]
        return "\n".join(lines)


def read_structure(brief: Brief, said: StructureReply) -> tuple[Structure, list[str]]:
    """What can be used of a reply, and a note for each part that was changed or dropped."""
    notes: list[str] = []
    space = {parameter.name: parameter for parameter in tunable(brief)}

    def keep(what: str, name: str, make: Callable[[Parameter], Any], into: dict[str, Any]) -> None:
        try:
            if why := refusal(brief, name):
                raise ValueError(why)
            into[name] = make(space[name])
        except ValueError as error:
            notes.append(f"dropped: {what}: {error}")

    important: dict[str, Any] = {}
    ranges: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name in said.important:
        keep("important", name, lambda _: True, important)
    for one in said.fixed:
        keep("fixed", one.parameter, lambda p, one=one: _value(p, one.value, notes), fixed)  # type: ignore[misc]
    for span in said.ranges:
        keep("range", span.parameter, lambda p, span=span: _range(p, span.low, span.high, notes), ranges)  # type: ignore[misc]
    for few in said.choices:
        keep("choices", few.parameter, lambda p, few=few: _choices(p, few.values, notes), choices)  # type: ignore[misc]
    varied = [name for name in important or space if name not in fixed]
    if not varied:
        notes.append("dropped: fixed: nothing would be left to vary")
        fixed = {}
    return Structure(tuple(n for n in important if n not in fixed), ranges, choices, fixed, said.why.strip()), notes


def narrowed(brief: Brief, structure: Structure, best: Mapping[str, Any]) -> tuple[list[Parameter], dict[str, Any]]:
    """The parameters that a sampler varies, in their narrowed form, and the values of all others.

    `best`: the best configuration; it gives the values of what is not varied, and where the narrowed space starts.
    """
    space: list[Parameter] = []
    rest = {**best, **structure.fixed}
    for parameter in tunable(brief):
        name = parameter.name
        varied = not structure.important or name in structure.important
        if name in structure.fixed or not varied:
            continue
        if name in structure.ranges:
            low, high = structure.ranges[name]
            inside = replace(parameter, low=low, high=high)
        else:
            inside = replace(parameter, choices=structure.choices.get(name, parameter.choices))
        start = best.get(name, parameter.default)
        if inside.kind == "choice":
            start = start if start in inside.choices else inside.choices[0]
        else:
            start = read(inside, start).value
        space.append(replace(inside, default=start))
        rest.pop(name, None)
    return space, rest


def inside(space: Sequence[Parameter], fixed: Mapping[str, Any], known: Sequence[Known]) -> list[Known]:
    """The trials that lie in a narrowed space.

    What is held without being fixed is taken not to matter: trials with other values of it count.
    """

    def lies(parameter: Parameter, value: Any) -> bool:
        if parameter.kind == "choice":
            return value in parameter.choices
        low, high = parameter.low, parameter.high
        return (low is None or low <= value) and (high is None or value <= high)

    def belongs(params: Mapping[str, Any]) -> bool:
        held = all(params.get(name, value) == value for name, value in fixed.items())
        return held and all(lies(p, params.get(p.name, p.default)) for p in space)

    return [one for one in known if belongs(one.trial.params)]


def _value(parameter: Parameter, value: Any, notes: list[str]) -> Any:
    found = read(parameter, value)
    notes += [found.note] if found.note else []
    return found.value


def _range(parameter: Parameter, low: Any, high: Any, notes: list[str]) -> tuple[float, float]:
    if parameter.kind == "choice":
        raise ValueError(f"{parameter.name} has choices, no range")
    ends = (_value(parameter, low, notes), _value(parameter, high, notes))
    if not ends[0] < ends[1] or not math.isfinite(ends[1] - ends[0]):
        raise ValueError(f"{parameter.name}: {shown(ends[0])} to {shown(ends[1])} is no range")
    return ends


def _choices(parameter: Parameter, values: list[Any], notes: list[str]) -> tuple[Any, ...]:
    if parameter.kind != "choice":
        raise ValueError(f"{parameter.name} has a range, no choices")
    kept: list[Any] = []
    for value in values:
        try:
            kept.append(_value(parameter, value, notes))
        except ValueError as error:
            notes.append(f"dropped: choices: {error}")
    chosen = [one for one in parameter.choices if one in kept]
    if not chosen:
        raise ValueError(f"{parameter.name}: none of the values is one of its choices")
    return tuple(chosen)
