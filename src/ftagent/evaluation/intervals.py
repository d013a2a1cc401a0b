"""A mean over items with its standard error and 95 % interval.

Wilson's score interval (Wilson 1927), with the effective number of items in place of n when an item has
several samples or partial credit (Korn and Graubard 1998): it stays inside [0, 1] and is never empty when all
items agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ftagent.core.types import Direction, Score

Z95 = 1.959963984540054


def wilson(mean: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a proportion `mean` in [0, 1] over `n` independent items (n may be fractional)."""
    if n <= 0:
        return (0.0, 1.0)
    square = Z95 * Z95
    centre = (mean + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(max(0.0, mean * (1 - mean) / n + square / (4 * n * n)))
    return (max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def mean_interval(values: Sequence[float]) -> tuple[float, float, tuple[float, float]]:
    """Mean, standard error and 95 % interval of per-item values in [0, 1].

    The standard error is that of independent items; samples of one item are averaged before they come here,
    which makes items the clusters. For 0/1 values this is sqrt(p(1-p)/n) and Wilson's interval exactly.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no items")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / n
    stderr = math.sqrt(variance / n)
    # Values are bounded, so the variance of the mean never exceeds the binomial one: at least n items' worth.
    effective = mean * (1 - mean) / (stderr * stderr) if stderr > 0 else float(n)
    return mean, stderr, wilson(mean, max(float(n), effective))


def score_of(
    metric: str,
    outcomes: Mapping[str, float],
    *,
    direction: Direction = "maximize",
    samples: int = 1,
    details: Mapping[str, float] | None = None,
    errors: Mapping[str, int] | None = None,
) -> Score:
    """The core `Score` of per-item outcomes in [0, 1]. Raises ValueError when there are none."""
    mean, stderr, interval = mean_interval(list(outcomes.values()))
    return Score(
        metric=metric,
        value=mean,
        n=len(outcomes),
        stderr=stderr,
        ci95=interval,
        direction=direction,
        samples=samples,
        outcomes=dict(outcomes),
        details=dict(details or {}),
        errors=dict(errors or {}),
    )
