"""Expected improvement (Jones, Schonlau and Welch 1998), as a logarithm that does not vanish (Ament et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftagent.search.process import Process

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


def log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """log E max(0, f - best) for f normal."""
    import numpy as np

    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = 0.5 * np.vectorize(math.erfc, otypes=[float])(-z / math.sqrt(2))
    near = np.log(np.maximum(density + z * below, 1e-300))
    far = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))
    result: Array = np.where(z > -5.0, near, far) + np.log(deviation)
    return result


def average_improvement(processes: Sequence[Process], places: Array, incumbents: Array) -> Array:
    """log of the expected improvement over the best of `incumbents` (points), averaged over hyperparameters."""
    import numpy as np

    logs = []
    for process in processes:
        best = float(process.predict(incumbents)[0].max())
        logs.append(log_improvement(*process.predict(places), best))
    stacked = np.stack(logs)
    top = stacked.max(axis=0)
    result: Array = top + np.log(np.exp(stacked - top).mean(axis=0))
    return result
