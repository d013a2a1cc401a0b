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

    def grid(self, level: int) -> list[float]:
        """Coordinates of the values that people would try: the default, the ends, and steps of usual size between them.

        Steps are half decades, doublings where they are whole numbers, or 1, 2 or 5 times a power of ten; each level
        halves them: what matters is told apart before what hardly does.
        """
        if self.parameter.kind == "choice":
            return [self.place(value) for value in self.parameter.choices]
        low, high = self._bounds
        if high <= low:
            return [0.0]
        default = min(max(float(self.parameter.default), low), high)
        if self._logarithmic:
            width, center, step = math.log(high / low), math.log(default / low), self._factor
        else:
            width, center, step = high - low, default - low, _round_step((high - low) / 3)
        step /= 2**level
        inside = [center + k * step for k in range(-int(center / step + 1e-9), int((width - center) / step + 1e-9) + 1)]
        places = {0.0, 1.0, *(min(max(at / width, 0.0), 1.0) for at in inside)}
        return sorted({self.place(self.value(place)) for place in places})

    @property
    def _factor(self) -> float:
        """Logarithm of the first usual factor that the range holds twice."""
        low, high = self._bounds
        usual = (2.0, math.sqrt(2)) if self.parameter.kind == "int" else (math.sqrt(10), 2.0, math.sqrt(2))
        return math.log(next((factor for factor in usual if factor**2 <= high / low * 1.0001), math.sqrt(high / low)))


def _round_step(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power: float = 10.0 ** math.floor(math.log10(most) + 1e-9)
    return next(times for times in (5 * power, 2 * power, power) if times <= most * 1.0001)


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

    def snap(self, places: Array, level: int) -> Array:
        """The same points, each moved to the nearest of the grid of `level`."""
        import numpy as np

        snapped = places.copy()
        for index, axis in enumerate(self.axes):
            grid = np.array(axis.grid(level))
            snapped[:, index] = grid[np.abs(snapped[:, index, None] - grid).argmin(axis=1)]
        return snapped

    def random(self, count: int, level: int, rng: np.random.Generator) -> Array:
        """(count, dimensions), uniform over the grid of `level`."""
        import numpy as np

        return np.stack([rng.choice(axis.grid(level), size=count) for axis in self.axes], axis=1)
