"""Replaying a strategy against a table: what it proposes is looked up, snapped to the nearest cell, instead of trained.

Every replay begins with the default configuration. Two modes: `exact` gives the value averaged over seeds, `noisy` that
of one seed, another one at each visit of a cell. A repeated cell costs a trial as any other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, quantiles
from typing import Any, Literal, Protocol

import numpy as np
from tables import Cell, Table

from ftagent.search import Trial

Mode = Literal["exact", "noisy"]
MODES: tuple[Mode, ...] = ("exact", "noisy")
CHECKPOINTS = (5, 10, 20, 40)
"""Trials, the default included, after which regret is read."""
REACHED = 0.01
"""Regret at which 99 % of the attainable gain is reached."""
SHARES = (0.1, 0.05, REACHED)
"""Regrets to which trials are counted: on a fine grid, chance decides which single cell has the last percents."""

Curve = tuple[tuple[int, float], ...]
"""(percent of the training, live metric), ascending."""


class Search(Protocol):
    """One replay of an arm."""

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        """The next parameters; `trials` are all before, the default first, with the parameters of their cells."""
        ...

    def stops(self, trials: Sequence[Trial], curve: Curve) -> bool:
        """Whether the trial that runs should end after what its curve shows so far."""
        ...

    def recommend(self, trials: Sequence[Trial]) -> int:
        """Index of the trial whose parameters it would hand out now."""
        ...


class Arm(Protocol):
    name: str

    def start(self, table: Table, seed: int) -> Search: ...


@dataclass(frozen=True)
class Replayed:
    """By trial: regret of what is recommended after it, and what was spent until then."""

    regret: list[float]
    seconds: list[float]
    """CPU-seconds of training and of the evaluations that the live metric takes."""
    training: list[float]
    """Without those evaluations."""
    stopped: int = 0

    def reached(self, least: float = REACHED) -> int | None:
        """Index of the first trial after which what is recommended has at most this regret."""
        return next((index for index, regret in enumerate(self.regret) if regret <= least), None)


@dataclass
class World:
    """The table as a replay sees it: which seed a visit gets depends on the cell and the replay alone."""

    table: Table
    mode: Mode
    seed: int
    visits: Counter[Cell] = field(default_factory=Counter)

    def visit(self, cell: Cell) -> tuple[Curve, list[float], list[float]]:
        """The curve until the first value that is not finite, and (seconds, training seconds) until each point."""
        values, seconds, evaluation = self.table.values[cell], self.table.seconds[cell], self.table.evaluation[cell]
        if self.mode == "exact":
            values, seconds, evaluation = values.mean(axis=0), seconds.mean(axis=0), evaluation.mean()
        else:
            order = np.random.default_rng([self.seed, *cell]).permutation(len(values))
            which = order[self.visits[cell] % len(order)]
            values, seconds, evaluation = values[which], seconds[which], evaluation[which]
        self.visits[cell] += 1
        points = range(1, len(values) + 1)
        curve = tuple((100 * k // len(values), float(v)) for k, v in zip(points, values, strict=True))
        finite = next((index for index, (_, value) in enumerate(curve) if not math.isfinite(value)), len(curve))
        training = [float(second) for second in seconds]
        return curve[:finite], [s + k * float(evaluation) for k, s in zip(points, training, strict=True)], training


def replay(table: Table, arm: Arm, mode: Mode, seed: int, trials: int) -> Replayed:
    """At most `trials` trials; it ends early once 99 % is reached and all of `CHECKPOINTS` are read."""
    world, search = World(table, mode, seed), arm.start(table, seed)
    seen: list[Trial] = []
    cells: list[Cell] = []
    result = Replayed([], [], [])
    stopped = 0
    for number in range(trials):
        proposal = table.spec.default if number == 0 else search.suggest(seen)
        cell = table.snap(proposal)
        curve, seconds, training = world.visit(cell)
        length = next((k for k in range(1, len(curve)) if search.stops(seen, curve[:k])), len(curve))
        complete = length == len(seconds)
        early = length < len(curve)
        stopped += early
        seen.append(Trial(table.params(cell), curve[-1][1] if complete else None, curve=curve[:length], stopped=early))
        cells.append(cell)
        spent = length if complete or early else min(length + 1, len(seconds))
        for total, points in ((result.seconds, seconds), (result.training, training)):
            total.append((total[-1] if total else 0.0) + points[spent - 1])
        result.regret.append(table.regret(cells[search.recommend(seen)]))
        if number + 1 >= max(CHECKPOINTS) and result.reached() is not None:
            break
    return Replayed(result.regret, result.seconds, result.training, stopped)


@dataclass(frozen=True)
class Summary:
    """Over the replay seeds of one arm, table and mode. What was not reached counts as infinite."""

    seeds: int
    regret: dict[int, float]
    """After n trials, mean."""
    median_regret: dict[int, float]
    trials: tuple[float, float, float]
    """To reach 99 %: lower quartile, median, upper quartile."""
    seconds: tuple[float, float, float]
    training: tuple[float, float, float]
    missed: int
    """Replays that did not reach it."""
    earlier: dict[float, float]
    """Regret → trials to reach it, median."""
    stopped: float
    """Share of trials that were stopped early."""


def summary(replays: Sequence[Replayed]) -> Summary:
    def at(replayed: Replayed, count: int) -> float:
        return replayed.regret[min(count, len(replayed.regret)) - 1]

    found = [replayed.reached() for replayed in replays]

    def spread(values: Sequence[float]) -> tuple[float, float, float]:
        return _quartiles([math.inf if index is None else value for value, index in zip(values, found, strict=True)])

    def trials(least: float) -> list[float]:
        return [math.inf if (index := one.reached(least)) is None else index + 1 for one in replays]

    return Summary(
        len(replays),
        {count: mean(at(one, count) for one in replays) for count in CHECKPOINTS},
        {count: median(at(one, count) for one in replays) for count in CHECKPOINTS},
        spread(trials(REACHED)),
        spread([one.seconds[index or 0] for one, index in zip(replays, found, strict=True)]),
        spread([one.training[index or 0] for one, index in zip(replays, found, strict=True)]),
        found.count(None),
        {least: _quartiles(trials(least))[1] for least in SHARES},
        sum(one.stopped for one in replays) / sum(len(one.regret) for one in replays),
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Infinity beyond what was reached, never a mixture of it and a number."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    finite = [min(value, 1e300) for value in values]
    low, middle, high = (math.inf if value > 1e200 else value for value in quantiles(finite, method="inclusive"))
    return low, middle, high
