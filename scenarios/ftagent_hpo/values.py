"""Whether a value is one that a parameter can have."""

from __future__ import annotations

import math
from typing import Any

from ftagent.core.types import Parameter


def in_space(parameter: Parameter, value: Any) -> Any:
    """`value` as the parameter has it; 3e-5, which YAML takes for a word, is a number.

    Raises ValueError, one line without the name.
    """
    if parameter.kind == "choice":
        for choice in parameter.choices:
            if (value == choice and isinstance(value, bool) == isinstance(choice, bool)) or str(value) == str(choice):
                return choice
        raise ValueError(f"{value!r} is none of its choices: {', '.join(map(str, parameter.choices))}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    if not low <= number <= high:
        raise ValueError(f"{number:g} is outside its range {low:g} to {high:g}")
    if parameter.kind == "int" and number != int(number):
        raise ValueError(f"{number:g} is no whole number")
    return int(number) if parameter.kind == "int" else number
