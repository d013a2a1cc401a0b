"""Which trials are not worth their end: asynchronous successive halving (Li et al., MLSys 2020), made cautious."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftagent.core.types import Direction
from ftagent.search import outputs
from ftagent.search.trial import Rung, Trial


def stopping(trials: Sequence[Trial], direction: Direction, reduction: float, rungs: int) -> tuple[Rung, ...]:
    """The rules for the next trial, from the live metrics of earlier ones; none before a trial was finished.

    Rungs are at 1/reduction, 1/reduction² … of the longest training seen. A trial goes on where it is among the best
    1/reduction there, and in any case where it is not worse than the incumbent was.
    """
    if reduction <= 1:
        raise ValueError(f"reduction {reduction}: must be above 1")
    done = [trial for trial in trials if outputs.winner(trial) and trial.curve]
    if not done:
        return ()
    sign = 1.0 if direction == "maximize" else -1.0
    incumbent = max(done, key=lambda trial: outputs.signed(trial, direction))
    longest = max(trial.curve[-1][0] for trial in done)
    steps = sorted({round(longest / reduction**power) for power in range(1, rungs + 1)} - {0})
    found = []
    for step in steps:
        seen = sorted((sign * v for t in trials if (v := outputs.at(t.curve, step)) is not None), reverse=True)
        mark = outputs.at(incumbent.curve, step)
        if mark is None or not seen:
            continue
        needs = min(seen[math.ceil(len(seen) / reduction) - 1], sign * mark)
        found.append(Rung(step, sign * needs))
    return tuple(found)
