"""CMA-ES (Hansen 2016, the implementation behind Optuna's), rebuilt from trials that need not be its own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftagent.agents.tuning.trials import Known
from ftagent.core.types import Direction, Parameter
from ftagent.search.coordinates import Axis

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_SIGMA = 1 / 6
"""Of the first generation, as a share of each range; Optuna's."""


def suggest(space: Sequence[Parameter], direction: Direction, known: Sequence[Known], seed: str) -> dict[str, Any]:
    """One point of the distribution to which the finished generations have moved; it starts around `known[0]`.

    Choices without an order are drawn evenly: the distribution is over numbers.
    """
    import numpy as np

    rng = random.Random(seed)
    axes = [Axis(parameter) for parameter in space]
    numeric = [axis for axis in axes if not axis.categorical]
    drawn = {axis.parameter.name: rng.choice(axis.parameter.choices) for axis in axes if axis.categorical}
    if not numeric:
        return drawn
    # The implementation wants two dimensions at least; what the second one does then changes nothing.
    spare = [0.5] * (len(numeric) < 2)

    def point(one: Known) -> Array:
        values = [axis.place(one.trial.params.get(axis.parameter.name, axis.parameter.default)) for axis in numeric]
        return np.array([*values, *spare], float)

    optimizer = _optimizer(point(known[0]), rng.getrandbits(32))
    size = optimizer.population_size
    ended = [one for one in known if one.state != "running"]
    for start in range(0, len(ended) - size + 1, size):
        optimizer.tell([(point(one), _loss(one, direction, ended)) for one in ended[start : start + size]])
    found = optimizer.ask()
    numbers = {axis.parameter.name: axis.value(float(at)) for axis, at in zip(numeric, found, strict=False)}
    return {**drawn, **numbers}


def _optimizer(mean: Array, seed: int) -> Any:
    import cmaes  # type: ignore[import-untyped]  # it has no types
    import numpy as np

    bounds = np.array([[0.0, 1.0]] * len(mean))
    return cmaes.CMA(mean=mean, sigma=_SIGMA, bounds=bounds, seed=seed)


def _loss(one: Known, direction: Direction, ended: Sequence[Known]) -> float:
    """Smaller is better: after what keeps the constraints what exceeds them, then what has no metric."""
    sign = -1.0 if direction == "maximize" else 1.0
    if one.state != "finished" or one.trial.value is None:
        return math.inf
    if one.trial.violation > 0:
        worst = max(sign * other.trial.value for other in ended if other.trial.value is not None)
        return worst + 1.0 + one.trial.violation
    return sign * one.trial.value
