"""One parameter at a time: which ones first, and the next value of one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.core.types import Direction, Parameter
from ftagent.search import outputs
from ftagent.search.coordinates import Axis
from ftagent.search.trial import Trial

_GOLDEN = 0.381966
_STEP = 0.25
"""Length of the first step, as a share of the range."""
_CLIFF = 6.0
"""How many times more than the other one side may seem to fall: behind a cliff the parabola would heed nothing else."""
_NEAR = 0.08
_FINE = 2


@dataclass(frozen=True)
class State:
    """The parameter that is being tuned now."""

    key: str
    base: Mapping[str, Any]
    """The best configuration before its first round; the others keep these values."""
    tried_values: tuple[Any, ...]
    """Of `key`, the base's first."""
    rounds_left: int


def state(
    space: Sequence[Parameter], direction: Direction, trials: Sequence[Trial], keys: Sequence[str], rounds: int
) -> State | None:
    """Where the search stands: `trials[0]` is the base, then `rounds` trials for each key (fewer where a key has no
    more values). The best configuration is fixed before the next key. None when all is done."""
    axes = {parameter.name: Axis(parameter) for parameter in space}
    begun = 1
    for key in keys:
        planned = int(min(rounds, axes[key].size - 1))
        used = min(planned, len(trials) - begun)
        if used < planned:
            base = best(trials[:begun], direction).params
            values = [base.get(key, axes[key].parameter.default), *(t.params.get(key) for t in trials[begun:])]
            return State(key, base, tuple(values), planned - used)
        begun += planned
    return None


def best(trials: Sequence[Trial], direction: Direction) -> Trial:
    """The best finished trial within the constraints; the first where there is none."""
    allowed = [trial for trial in trials if outputs.winner(trial)]
    return max(allowed, key=lambda trial: outputs.signed(trial, direction)) if allowed else trials[0]


def priorities(space: Sequence[Parameter], count: int) -> tuple[str, ...]:
    """At most `count` names, those first that usually matter most."""
    tunable = [p for p in space if p.tunable and Axis(p).size > 1]
    return tuple(p.name for p in sorted(tunable, key=_importance, reverse=True)[:count])


_WORDS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("learning_rate", "lr", "eta", "step_size"), 10.0),
    (("epoch", "max_steps", "num_steps", "iterations", "rounds", "n_estimators"), 8.0),
    (("batch",), 6.0),
    (("loss", "objective", "method", "optimizer"), 5.0),
    (("rank", "lora_r", "alpha", "depth", "leaves", "hidden", "layers"), 5.0),
    (("weight_decay", "regularization", "lambda", "l2", "dropout", "fraction"), 4.0),
    (("warmup", "scheduler", "schedule", "momentum", "beta"), 3.0),
    (("seed",), -10.0),
)


def _importance(parameter: Parameter) -> float:
    name = parameter.name.lower()
    score = next((weight for words, weight in _WORDS if any(_mentions(name, word) for word in words)), 3.5)
    return score + (1.0 if parameter.log else 0.0) + (0.5 if parameter.cost else 0.0)


def _mentions(name: str, word: str) -> bool:
    return word in name.split("_") if len(word) <= 3 else word in name


def suggest(
    space: Sequence[Parameter],
    direction: Direction,
    trials: Sequence[Trial],
    key: str,
    tried_values: Sequence[Any],
    rounds_left: int,
    seed: int,
) -> Any:
    """The next value of `key`, the other parameters being those of the best trial.

    `rounds_left` includes this one. `seed` decides in which order the choices without an order are tried.
    """
    axis = Axis(next(parameter for parameter in space if parameter.name == key))
    line = _line(axis, key, direction, trials)
    taken = {axis.place(value) for value in tried_values} | set(line)
    if axis.categorical:
        return axis.value(_next_category(axis, taken, seed))
    return axis.value(_nearest_free(axis, _next_place(line, taken, rounds_left), taken))


def _line(axis: Axis, key: str, direction: Direction, trials: Sequence[Trial]) -> dict[float, float]:
    """Coordinate → metric (larger is better) of the trials that differ from the best in nothing but `key`."""
    reference = best(trials, direction).params
    found: dict[float, float] = {}
    for trial in trials:
        if all(trial.params.get(name) == value for name, value in reference.items() if name != key):
            value = outputs.signed(trial, direction) if outputs.winner(trial) else -math.inf
            place = axis.place(trial.params.get(key, axis.parameter.default))
            found[place] = max(value, found.get(place, value))
    return found


def _next_category(axis: Axis, taken: set[float], seed: int) -> float:
    free = [place for place in axis.grid(0) if place not in taken]
    return random.Random(f"{seed}/{axis.parameter.name}").choice(free) if free else axis.place(axis.parameter.default)


def _next_place(line: Mapping[float, float], taken: set[float], rounds_left: int) -> float:
    """Walk uphill, with growing steps while rounds are left, until the best is enclosed; then look inside."""
    top = max(line, key=lambda place: line[place])
    below = max((place for place in taken if place < top), default=None)
    above = min((place for place in taken if place > top), default=None)
    growth = 1.0 / _GOLDEN - 1.0 if rounds_left > 1 else 1.0
    if below is None and above is None:
        return top + (_STEP if top <= 0.5 else -_STEP)
    if below is None and above is not None and top > _STEP / 2:
        return max(0.0, top - max(_STEP, growth * (above - top)))
    if above is None and below is not None and top < 1 - _STEP / 2:
        return min(1.0, top + max(_STEP, growth * (top - below)))
    return _inside(line, top, top if below is None else below, top if above is None else above)


def _inside(line: Mapping[float, float], top: float, below: float, above: float) -> float:
    """Between `below` and `above`: the top of the parabola, or the golden section of the longer side."""
    section = top + _GOLDEN * ((above if above - top >= top - below else below) - top)
    fall_below, fall_above = (line[top] - line.get(place, -math.inf) for place in (below, above))
    if not (0 < fall_below < math.inf and 0 < fall_above < math.inf):
        return section
    fall_below, fall_above = min(fall_below, _CLIFF * fall_above), min(fall_above, _CLIFF * fall_below)
    left, right = top - below, above - top
    vertex = top + 0.5 * (right**2 * fall_below - left**2 * fall_above) / (right * fall_below + left * fall_above)
    # A vertex beside the best tells nothing new.
    return vertex if abs(vertex - top) > _NEAR * (above - below) else section


def _nearest_free(axis: Axis, wanted: float, taken: set[float]) -> float:
    """`wanted`, or where that value was tried the nearest one that was not."""
    tried = {axis.value(place) for place in taken}
    free = [place for place in [wanted, *axis.grid(_FINE)] if axis.value(place) not in tried]
    return min(free, key=lambda place: abs(place - wanted)) if free else wanted
