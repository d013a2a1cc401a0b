"""Several objectives: which trials no other beats, and one number for each that leads a search along that front."""

from __future__ import annotations

from collections.abc import Sequence

from ftagent.core.types import Direction

_AUGMENTED = 0.05


def front(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Indices of the points that no other point dominates: as good in all objectives and better in one."""
    signed = [_signed(point, directions) for point in points]
    return [
        index
        for index, point in enumerate(signed)
        if not any(other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in signed)
    ]


def scalarise(points: Sequence[Sequence[float]], directions: Sequence[Direction], seed: int) -> list[float]:
    """Larger is better: augmented Chebyshev with random weights, drawn anew for each `seed` (ParEGO, Knowles 2006).

    Objectives are scaled to 0 … 1 over `points` first. Give the values to `joint.suggest` as the trials' and
    "maximize"; with another seed for every trial the suggestions cover the front.
    """
    import numpy as np

    if not points:
        return []
    weights = np.random.default_rng([seed, 2]).dirichlet(np.ones(len(directions)))
    values = np.array([_signed(point, directions) for point in points], float)
    low, high = values.min(axis=0), values.max(axis=0)
    behind = (high - values) / np.where(high > low, high - low, 1.0) * weights
    return [float(value) for value in -(behind.max(axis=1) + _AUGMENTED * behind.sum(axis=1))]


def _signed(point: Sequence[float], directions: Sequence[Direction]) -> tuple[float, ...]:
    return tuple(v if d == "maximize" else -v for v, d in zip(point, directions, strict=True))
