"""Configurations as points of the unit cube: logarithms where a parameter says so, ranks for ordered choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftagent.core.types import Parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_DIGITS = 4
_GRID = 33
"""Values of a dimension that one-at-a-time moves look at, at most."""


@dataclass(frozen=True)
class Axis:
    """One tunable parameter. Numbers and ordered choices lie in 0 … 1; other choices are their index."""

    parameter: Parameter

    @property
    def categorical(self) -> bool:
        """Whether values have no order, so that two of them are either the same or different."""
        return self.parameter.kind == "choice" and not self._ordered

    @property
    def _ordered(self) -> bool:
        choices = self.parameter.choices
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in choices)
        return len(choices) > 2 and numbers and list(choices) in (sorted(choices), sorted(choices, reverse=True))

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.parameter.kind == "choice":
            return len(self.parameter.choices)
        low, high = self._bounds
        return high - low + 1 if self.parameter.kind == "int" else (math.inf if high > low else 1)

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = self.parameter.low, self.parameter.high
        if low is None or high is None:
            raise ValueError(f"{self.parameter.name}: a {self.parameter.kind} needs low and high")
        return low, high

    def place(self, value: Any) -> float:
        """The coordinate of `value`: the nearer end for one outside the range, the default for an unknown choice."""
        if self.parameter.kind == "choice":
            choices = self.parameter.choices
            known = [option for option in (value, self.parameter.default) if option in choices]
            index = choices.index(known[0]) if known else 0
            return float(index) if self.categorical else index / max(1, len(choices) - 1)
        low, high = self._bounds
        number: float = min(max(float(value), low), high)
        if high <= low:
            return 0.0
        return math.log(number / low) / math.log(high / low) if self._logarithmic else (number - low) / (high - low)

    def value(self, place: float) -> Any:
        """The nearest value that the parameter can have, as a plain one; floats have four significant digits."""
        if self.parameter.kind == "choice":
            last = len(self.parameter.choices) - 1
            return self.parameter.choices[round(min(max(place if self.categorical else place * last, 0), last))]
        low, high = self._bounds
        place = min(max(place, 0.0), 1.0)
        value = low * math.exp(math.log(high / low) * place) if self._logarithmic else low + (high - low) * place
        if self.parameter.kind == "int":
            return min(max(round(value), math.ceil(low)), math.floor(high))
        return min(max(float(f"{value:.{_DIGITS}g}"), float(low)), float(high))

    @property
    def _logarithmic(self) -> bool:
        return self.parameter.log and self._bounds[0] > 0

    def grid(self) -> list[float]:
        """Coordinates all over the dimension: of all values where they are few."""
        if self.parameter.kind == "choice":
            return [self.place(value) for value in self.parameter.choices]
        if self.parameter.kind == "int" and self.size <= _GRID:
            low = math.ceil(self._bounds[0])
            return [self.place(low + step) for step in range(int(self.size))]
        return [step / (_GRID - 1) for step in range(_GRID)]


@dataclass(frozen=True)
class Cube:
    """The tunable parameters of a space as the unit cube, and the fixed values of the others."""

    axes: tuple[Axis, ...]
    fixed: Mapping[str, Any]

    @classmethod
    def of(cls, space: Sequence[Parameter], defaults: Mapping[str, Any]) -> Cube:
        """`defaults` (the first trial's parameters) say what cannot be tuned."""
        axes = tuple(Axis(p) for p in space if p.tunable)
        return cls(axes, {p.name: defaults.get(p.name, p.default) for p in space if not p.tunable})

    @property
    def size(self) -> float:
        """How many different configurations there are."""
        return math.prod(axis.size for axis in self.axes)

    def place(self, params: Mapping[str, Any]) -> Array:
        """(dimensions,)"""
        import numpy as np

        return np.array([a.place(params.get(a.parameter.name, a.parameter.default)) for a in self.axes], float)

    def places(self, configurations: Sequence[Mapping[str, Any]]) -> Array:
        """(configurations, dimensions)"""
        import numpy as np

        return np.array([self.place(params) for params in configurations], float).reshape(-1, len(self.axes))

    def params(self, place: Sequence[float] | Array) -> dict[str, Any]:
        values = {axis.parameter.name: axis.value(float(at)) for axis, at in zip(self.axes, place, strict=True)}
        return {**values, **self.fixed}

    def snap(self, places: Array) -> Array:
        """The same points, each moved to the nearest configuration that exists."""
        import numpy as np

        snapped = np.clip(places, 0.0, [len(a.parameter.choices) - 1 if a.categorical else 1.0 for a in self.axes])
        for index, axis in enumerate(self.axes):
            if axis.categorical:
                snapped[:, index] = np.round(snapped[:, index])
            elif axis.size < math.inf:
                snapped[:, index] = [axis.place(axis.value(float(at))) for at in snapped[:, index]]
        return snapped

    def random(self, count: int, rng: np.random.Generator) -> Array:
        """(count, dimensions), uniform in the coordinates."""
        import numpy as np

        columns = [
            rng.integers(len(a.parameter.choices), size=count).astype(float) if a.categorical else rng.random(count)
            for a in self.axes
        ]
        return self.snap(np.stack(columns, axis=1))
