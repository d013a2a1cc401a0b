"""Expected improvement (Jones, Schonlau and Welch 1998), as a logarithm that does not vanish (Ament et al. 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ftagent.search.process import Process

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807,
    -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223,
)  # fmt: skip


_LEAST = -50.0


def log_improvement(mean: Array, deviation: Array, best: Array) -> Array:
    """log E max(0, f - best) for f normal."""
    import numpy as np

    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = normal_below(z)
    near = np.log(np.maximum(density + z * below, 1e-300))
    far = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))
    result: Array = np.where(z > -5.0, near, far) + np.log(deviation)
    return result


def normal_below(z: Array) -> Array:
    """The normal distribution function: Numerical Recipes' `erfcc`, whose relative error is below 1.2e-7."""
    import numpy as np

    x = np.abs(z) / math.sqrt(2)
    t = 1.0 / (1.0 + 0.5 * x)
    tail = 0.5 * t * np.exp(-np.square(x) + np.polyval(_ERFC, t))
    result: Array = np.where(z > 0, 1.0 - tail, tail)
    return result


def average_improvement(process: Process, places: Array, incumbents: Array) -> Array:
    """log of the expected improvement over the best of `incumbents` (points), averaged over hyperparameters.

    The average is that of the logarithms: one draw that expects wonders far away does not outvote the others.
    """
    import numpy as np

    best = process.predict(incumbents)[0].max(axis=1, keepdims=True)
    logs = np.maximum(log_improvement(*process.predict(places), best), _LEAST)
    average: Array = logs.mean(axis=0)
    return average
