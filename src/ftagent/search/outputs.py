"""What the trials say, as numbers that a Gaussian process can learn from: larger is better, no outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from ftagent.core.types import Direction
from ftagent.search.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


def finished(trial: Trial) -> bool:
    """Whether its metric is known."""
    return trial.value is not None and math.isfinite(trial.value) and not trial.stopped


def winner(trial: Trial) -> bool:
    """Whether it may be recommended."""
    return finished(trial) and trial.violation <= 0


def signed(trial: Trial, direction: Direction) -> float:
    """The metric of a finished trial, larger is better."""
    assert trial.value is not None
    return trial.value if direction == "maximize" else -trial.value


def expected(trial: Trial, trials: Sequence[Trial], direction: Direction) -> float | None:
    """What a stopped trial would have reached (larger is better): as it stood among the finished ones at its last step.

    None without a curve or without finished trials to compare with. Never better than the best finished one.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    if not trial.curve:
        return None
    step, live = trial.curve[-1]
    known = [(at(other.curve, step), signed(other, direction)) for other in trials if winner(other)]
    pairs = sorted((sign * seen, value) for seen, value in known if seen is not None)
    if not pairs:
        return None
    below = [value for seen, value in pairs if seen <= sign * live]
    return min(below[-1] if below else pairs[0][1], max(value for _, value in pairs))


def at(curve: Sequence[tuple[int, float]], step: int) -> float | None:
    """The live metric at the last point that is not after `step`."""
    seen = [value for place, value in curve if place <= step and math.isfinite(value)]
    return seen[-1] if seen else None


def learnable(trials: Sequence[Trial], direction: Direction) -> Array:
    """One number for each trial, the best near 1 to 2, the median at 0, the worst not much below -2.

    Feasible before infeasible before failed (Deb 2000). Above the median distances count, below only ranks do, as in
    the half-rank warping of Vizier (Song et al. 2024): how bad a bad configuration is tells nothing about the best.
    """
    import numpy as np

    raw = np.full(len(trials), -np.inf)
    for index, trial in enumerate(trials):
        if trial.violation <= 0:
            if finished(trial):
                raw[index] = signed(trial, direction)
            elif trial.stopped and (value := expected(trial, trials, direction)) is not None:
                raw[index] = value
    known = np.isfinite(raw)
    order = [
        (bool(known[i]), float(raw[i]) if known[i] else -t.violation, t.violation > 0) for i, t in enumerate(trials)
    ]
    values = np.array([value if good else math.nan for good, value, _ in order])
    if not known.any():
        return np.zeros(len(trials))
    median, best = float(np.median(values[known])), float(values[known].max())
    above = values[known & (values >= median)] - median
    scale = math.sqrt(float(np.mean(np.square(above)))) if best > median else 1.0
    distinct = sorted(
        {(good, value if good or bad else -math.inf) for good, value, bad in order if not (good and value >= median)}
    )
    result = np.zeros(len(trials))
    for index, (good, value, bad) in enumerate(order):
        if good and value >= median:
            result[index] = (value - median) / scale
        else:
            rank = distinct.index((good, value if good or bad else -math.inf))
            result[index] = NormalDist().inv_cdf(0.5 * (rank + 0.5) / len(distinct))
    return result
