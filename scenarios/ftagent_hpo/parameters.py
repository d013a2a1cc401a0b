"""How a parameter is written down, in hpo.yaml and in space.yaml alike, and what it is for an agent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftagent.core.types import Parameter
from ftagent_hpo.values import in_space


class ParameterSpec(BaseModel):
    """`{type: float, range: [1e-6, 1e-3], scale: log}` or `{type: choice, choices: [a, b]}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["float", "int", "choice"]
    range: tuple[float, float] | None = None
    scale: Literal["linear", "log"] = "linear"
    choices: tuple[Any, ...] = ()
    default: Any = None
    tunable: bool = True
    description: str = ""
    cost: str = Field("", description="what a larger value costs")

    @model_validator(mode="after")
    def _complete(self) -> ParameterSpec:
        if self.type == "choice":
            if not self.choices:
                raise ValueError("type choice needs choices, a list of values")
            if self.range is not None:
                raise ValueError("type choice has choices, not a range")
            twice = [
                choice for number, choice in enumerate(self.choices) if str(choice) in map(str, self.choices[:number])
            ]
            if twice:
                raise ValueError(f"choice {twice[0]} stands twice")
            return self
        if self.choices:
            raise ValueError(f"type {self.type} has a range, not choices")
        if self.range is None:
            raise ValueError(f"type {self.type} needs range: [LOWEST, HIGHEST]")
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range [{low:g}, {high:g}] must be two numbers, the lower one first")
        if self.scale == "log" and low <= 0:
            raise ValueError(f"scale log needs a range above 0, not from {low:g}")
        if self.type == "int" and (low != int(low) or high != int(high)):
            raise ValueError(f"range [{low:g}, {high:g}] of an int must be whole numbers")
        return self


def to_parameter(name: str, spec: ParameterSpec, default: Any) -> Parameter:
    """Raises ValueError, one line without the name, for a default that the parameter cannot have."""
    low, high = spec.range or (None, None)
    found = Parameter(name, spec.type, default, low=low, high=high, log=spec.scale == "log", choices=spec.choices,
                      description=spec.description, tunable=spec.tunable, cost=spec.cost)  # fmt: skip
    return replace(found, default=in_space(found, default))
