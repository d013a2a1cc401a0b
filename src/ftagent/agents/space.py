"""A scenario's search space as agents need it: its default configuration, and values that a model suggests for it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.core.types import Brief, Parameter


@dataclass(frozen=True)
class Read:
    """A value that a parameter can have, and what had to be changed for it; `note` is empty where nothing was."""

    value: Any
    note: str = ""


def defaults(brief: Brief) -> dict[str, Any]:
    """The default configuration."""
    return {p.name: brief.baseline_params.get(p.name, p.default) for p in brief.space}


def tunable(brief: Brief) -> tuple[Parameter, ...]:
    """The parameters that may change, their defaults those of the brief."""
    return tuple(p for p in brief.space if p.tunable)


def refusal(brief: Brief, name: str) -> str:
    """Why a parameter of this name cannot be tuned; empty where it can."""
    found = next((p for p in brief.space if p.name == name), None)
    if found is not None:
        return "" if found.tunable else f"{name} is protected and never changed"
    names = [p.name for p in tunable(brief)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{name[:80]!r} is no parameter; {hint}valid: {', '.join(names)}"


def read(parameter: Parameter, value: Any) -> Read:
    """`value` as the parameter's type and within its range. Raises ValueError where it means no value of it."""
    if parameter.kind == "choice":
        return _choice(parameter, value)
    number = _number(parameter, value)
    note = "" if isinstance(value, int | float) else f"{parameter.name}: {_shown(value)} read as the number {number:g}"
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    inside = min(max(number, low), high)
    if inside != number:
        end = "lowered to its highest value" if inside < number else "raised to its lowest value"
        note = f"{parameter.name}: {_shown(value)} {end}, {inside:g}"
    if parameter.kind == "float":
        return Read(float(inside), note)
    whole = min(max(round(inside), math.ceil(low) if low > -math.inf else round(inside)),
                math.floor(high) if high < math.inf else round(inside))  # fmt: skip
    return Read(whole, note if whole == inside else f"{parameter.name}: {_shown(value)} rounded to {whole}")


def _choice(parameter: Parameter, value: Any) -> Read:
    same = [one for one in parameter.choices if type(one) is type(value) and one == value]
    if same:
        return Read(same[0])
    alike = [one for one in parameter.choices if str(one).casefold() == str(value).strip().casefold()]
    if alike and not isinstance(value, dict | list):
        return Read(alike[0], f"{parameter.name}: {_shown(value)} read as {_shown(alike[0])}")
    if all(_is_number(one) for one in parameter.choices) and parameter.choices:
        number = _number(parameter, value)
        nearest = min(parameter.choices, key=lambda one: (abs(one - number), one))
        return Read(nearest, f"{parameter.name}: {_shown(value)} moved to {nearest}, the nearest choice")
    raise ValueError(f"{parameter.name}: {_shown(value)} is none of {', '.join(map(str, parameter.choices))}")


def _number(parameter: Parameter, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, str) or _is_number(value) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{parameter.name}: {_shown(value)} is no number")
    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def same(one: Mapping[str, Any], other: Mapping[str, Any], space: Sequence[Parameter]) -> bool:
    """Whether two configurations give every parameter of `space` the same value."""
    return all(one.get(p.name, p.default) == other.get(p.name, p.default) for p in space)


def shown(value: Any) -> str:
    """A value in a title."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
