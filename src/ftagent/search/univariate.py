"""One parameter at a time: which ones first, and the next value of one."""

from __future__ import annotations

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
    """The next value of `key`, the other parameters being those of the best trial."""
    axis = Axis(next(parameter for parameter in space if parameter.name == key))
    line = _line(axis, key, direction, trials)
    taken = {axis.place(value) for value in tried_values} | set(line)
    place = _next_category(axis, taken) if axis.categorical else _next_place(axis, line, taken)
    return axis.value(place)


def _line(axis: Axis, key: str, direction: Direction, trials: Sequence[Trial]) -> dict[float, float]:
    """Coordinate → metric (larger is better) of the trials that differ from the best in nothing but `key`."""
    reference = best(trials, direction).params
    found: dict[float, float] = {}
    for trial in trials:
        if all(trial.params.get(name) == value for name, value in reference.items() if name != key):
            value = outputs.signed(trial, direction) if outputs.winner(trial) else float("-inf")
            place = axis.place(trial.params.get(key, axis.parameter.default))
            found[place] = max(value, found.get(place, value))
    return found


def _next_category(axis: Axis, taken: set[float]) -> float:
    free = [place for place in axis.grid() if place not in taken]
    return free[0] if free else axis.place(axis.parameter.default)


def _next_place(axis: Axis, line: Mapping[float, float], taken: set[float]) -> float:
    """Walk uphill with growing steps until the best is enclosed; then the golden section of the longer side."""
    top = max(line, key=lambda place: line[place])
    below = max((place for place in taken if place < top), default=None)
    above = min((place for place in taken if place > top), default=None)
    if below is None and above is None:
        wanted = top + (_STEP if top <= 0.5 else -_STEP)
    elif below is None and above is not None:
        wanted = max(0.0, top - max(_STEP, (above - top) / _GOLDEN * (1 - _GOLDEN)))
    elif above is None and below is not None:
        wanted = min(1.0, top + max(_STEP, (top - below) / _GOLDEN * (1 - _GOLDEN)))
    else:
        assert below is not None
        assert above is not None
        side = above if above - top >= top - below else below
        wanted = top + _GOLDEN * (side - top)
    return _nearest_free(axis, wanted, taken)


def _nearest_free(axis: Axis, wanted: float, taken: set[float]) -> float:
    """`wanted`, or where that value was tried the nearest one that was not."""
    tried = {axis.value(place) for place in taken}
    free = [place for place in [wanted, *axis.grid()] if axis.value(place) not in tried]
    return min(free, key=lambda place: abs(place - wanted)) if free else wanted
