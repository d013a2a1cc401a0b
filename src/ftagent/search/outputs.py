"""What the trials say, as numbers that a Gaussian process can learn from: larger is better, no outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftagent.core.types import Direction
from ftagent.search.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


_UNIT = 0.25
"""The distance to the best within which distances count as they are: that of the best quarter."""


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
    """One number for each trial, larger is better, standardised.

    The distance to the best counts by its logarithm (as the log warping of Vizier, Song et al. 2024): how bad a bad
    configuration is tells little about the best. Feasible before infeasible (Deb 2000) before failed.
    """
    import numpy as np

    known = np.array([_known(trial, trials, direction) for trial in trials])
    good = np.isfinite(known)
    if not good.any():
        return np.array([-trial.violation if trial.violation > 0 else 0.0 for trial in trials])
    gaps = known[good].max() - known
    unit = float(np.quantile(gaps[good & (gaps > 0)], _UNIT)) if (gaps[good] > 0).any() else 1.0
    result = -np.log1p(gaps / unit)
    floor = float(result[good].min())
    bad = sorted({_badness(trial) for trial, fine in zip(trials, good, strict=True) if not fine})
    for index in range(len(trials)):
        if not good[index]:
            result[index] = floor - (1 + bad.index(_badness(trials[index]))) / len(bad)
    spread = float(result.std())
    standardised: Array = (result - result.mean()) / (spread if spread > 0 else 1.0)
    return standardised


def _known(trial: Trial, trials: Sequence[Trial], direction: Direction) -> float:
    """Larger is better; NaN for a failure and for what breaks a constraint."""
    if trial.violation > 0:
        return math.nan
    value = signed(trial, direction) if finished(trial) else expected(trial, trials, direction)
    return math.nan if value is None else value


def _badness(trial: Trial) -> float:
    return trial.violation if trial.violation > 0 else math.inf
