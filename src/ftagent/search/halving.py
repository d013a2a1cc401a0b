"""Which trials are not worth their end: asynchronous successive halving (Li et al., MLSys 2020), made cautious.

Plain successive halving stops whatever is not among the best 1/reduction at a rung. That loses slow starters: small
learning rates, long warm-ups. Here a trial is stopped only where, besides, it is farther behind the incumbent than any
finished trial ever was behind one that it then overtook.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftagent.core.types import Direction
from ftagent.search import outputs
from ftagent.search.trial import Rung, Trial

_FEWEST = 4
"""Finished trials before the first one is stopped: fewer show no overtaking."""
_SLACK = 1.25
"""How much farther behind than the greatest lag that was ever made good."""


def stopping(trials: Sequence[Trial], direction: Direction, reduction: float, rungs: int) -> tuple[Rung, ...]:
    """The rules for the next trial, from the live metrics of earlier ones; none while they show too little.

    Rungs are at 1/reduction, 1/reduction² … of the incumbent's training, at steps where its live metric was seen.
    Raises ValueError for a reduction of 1 or less.
    """
    if reduction <= 1:
        raise ValueError(f"reduction {reduction}: must be above 1")
    sign = 1.0 if direction == "maximize" else -1.0
    done = sorted(
        (trial for trial in trials if outputs.winner(trial) and trial.curve),
        key=lambda trial: outputs.signed(trial, direction),
        reverse=True,
    )
    if len(done) < _FEWEST:
        return ()
    found = []
    for step in _steps(done[0], reduction, rungs):
        everyone = [sign * live for trial in trials if (live := outputs.at(trial.curve, step)) is not None]
        everyone.sort(reverse=True)
        ranked = [live for trial in done if (live := outputs.at(trial.curve, step)) is not None]
        best = sign * ranked[0]
        top = everyone[math.ceil(len(everyone) / reduction) - 1]
        needs = min(top, best - _SLACK * _greatest_lag([sign * live for live in ranked]))
        found.append(Rung(step, sign * needs))
    return tuple(found)


def _steps(incumbent: Trial, reduction: float, rungs: int) -> list[int]:
    """Ascending; the first seen ones that are not before the geometric ones, without the last."""
    seen = [step for step, live in incumbent.curve if math.isfinite(live)]
    wanted = [seen[-1] / reduction**power for power in range(1, rungs + 1)] if seen else []
    return sorted({next(step for step in seen if step >= place) for place in wanted} - {*seen[-1:]})


def _greatest_lag(ranked: Sequence[float]) -> float:
    """How far (at a step) the better one of two trials was ever behind, over those that ended in the better half.

    `ranked` are live metrics, larger is better, those of the trials that ended best first.
    """
    better = ranked[: max(2, math.ceil(len(ranked) / 2))]
    return max(
        (other - live for index, live in enumerate(better) for other in ranked[index + 1 :] if other > live),
        default=0.0,
    )
