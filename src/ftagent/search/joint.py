"""All parameters at once: Bayesian optimisation that starts from the default configuration."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftagent.core.types import Direction, Parameter
from ftagent.search import outputs
from ftagent.search.acquisition import average_improvement
from ftagent.search.candidates import candidates
from ftagent.search.coordinates import Cube
from ftagent.search.process import Prior, Process, fit
from ftagent.search.repetition import repeats
from ftagent.search.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_START = 4
"""Trials, the default included, before a model decides."""
_REACH = 0.6
"""How far the first trials go from the default, as a share of the way to the end of each range."""
_DRAWS = 8
_BEST = 5
_PATIENCE = 1.0
"""A finer grid's point must promise e times more than the coarse grid's."""
_EARLY_PATIENCE = 3.0
"""The same in the first trials, when the model knows too little to tell neighbours apart."""
_EARLY = 20


def suggest(
    space: Sequence[Parameter],
    direction: Direction,
    trials: Sequence[Trial],
    seed: int,
    pending: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The next configuration. `trials[0]` is the default one; `pending` are being tried and are not suggested again.

    A configuration is repeated only when all that the space has were tried. Raises ValueError for a space without
    anything tunable.
    """
    import numpy as np

    cube = Cube.of(space, trials[0].params)
    if not cube.axes:
        raise ValueError("no parameter is tunable")
    number = len(trials) + len(pending)
    rng = np.random.default_rng([seed, number])
    tried = cube.places([*(trial.params for trial in trials), *pending])
    start = number < _START
    places = _start(cube, tried, number, seed) if start else _by_model(cube, trials, direction, tried, rng)
    return _first_new(cube, places, trials, pending, rng)


def recommend(space: Sequence[Parameter], direction: Direction, trials: Sequence[Trial]) -> int:
    """Index of the best trial by the model's mean, which a lucky measurement moves less than the metric itself.

    Only finished trials within the constraints; 0 (the default) where there is none.
    """
    import numpy as np

    allowed = [index for index, trial in enumerate(trials) if outputs.winner(trial)]
    cube = Cube.of(space, trials[0].params)
    if len(allowed) < 2 or not cube.axes:
        return allowed[0] if allowed else 0
    places = cube.places([trial.params for trial in trials])
    process = _fit(cube, places, outputs.learnable(trials, direction), np.random.default_rng(0))
    means = process.predict(places[allowed])[0].mean(axis=0)
    return allowed[int(np.argmax(means))]


def _start(cube: Cube, tried: Array, number: int, seed: int) -> Array:
    """Points around the default that are far from each other, best spread first."""
    import numpy as np

    rng = np.random.default_rng([seed, number, 1])
    everywhere = cube.random(200, 0, rng)
    default = tried[0]
    numeric = ~_categorical(cube)
    everywhere[:, numeric] = default[numeric] + _REACH * (everywhere[:, numeric] - default[numeric])
    places = cube.snap(everywhere, 0)
    distance = np.abs(places[:, None, :] - tried[None, :, :])
    distance[..., ~numeric] = distance[..., ~numeric] != 0
    return places[np.argsort(-distance.mean(axis=2).min(axis=1), kind="stable")]


def _by_model(
    cube: Cube, trials: Sequence[Trial], direction: Direction, tried: Array, rng: np.random.Generator
) -> Array:
    """Candidates, most promising first."""
    import numpy as np

    seen, values = tried[: len(trials)], outputs.learnable(trials, direction)
    process = _fit(cube, seen, values, rng)
    means = process.predict(seen)[0].mean(axis=0)
    if len(tried) > len(seen):
        believed = process.predict(tried[len(seen) :])[0].mean(axis=0)
        process = _fit(cube, tried, np.concatenate([values, believed]), rng)
    best = seen[np.argsort(-means, kind="stable")[:_BEST]]
    early = len(tried) < _EARLY
    levels = [candidates(cube, best, level, rng) for level in range(2 + (len(tried) >= 3 * _EARLY))]
    places = np.concatenate(levels)
    finer = np.repeat(np.arange(len(levels)), [len(level) for level in levels])
    repeated = np.concatenate([repeats(cube, level, tried, index) for index, level in enumerate(levels)])
    scores = average_improvement(process, places, seen)
    scores -= (_EARLY_PATIENCE if early else _PATIENCE) * finer + 1e6 * repeated
    if len(tried) % 3 == 2:
        scores -= 1e3 * ~_turns(places, best[0], seen)
    return places[np.argsort(-scores, kind="stable")]


def _turns(places: Array, best: Array, seen: Array) -> npt.NDArray[np.bool_]:
    """Which of `places` change nothing but one coordinate of the best point: the one that was changed least so far.

    A model that takes an effect of one parameter for that of another one never looks; so every third trial does.
    """

    changed = places != best
    alone = changed.sum(axis=1) == 1
    around = seen != best
    counts = around[around.sum(axis=1) == 1].sum(axis=0)
    least = counts == min((counts[axis] for axis in range(len(best)) if changed[alone, axis].any()), default=0)
    result: npt.NDArray[np.bool_] = alone & (changed & least).any(axis=1)
    return result


def _fit(cube: Cube, places: Array, values: Array, rng: np.random.Generator) -> Process:
    return fit(places, values, _categorical(cube), _DRAWS, rng, Prior())


def _categorical(cube: Cube) -> npt.NDArray[np.bool_]:
    import numpy as np

    return np.array([axis.categorical for axis in cube.axes])


def _first_new(
    cube: Cube,
    places: Array,
    trials: Sequence[Trial],
    pending: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The first of `places` that was not tried; the first of all where nothing else is left."""
    names = [axis.parameter.name for axis in cube.axes]
    default = {axis.parameter.name: axis.parameter.default for axis in cube.axes}
    known = {tuple(params.get(n, default[n]) for n in names) for params in [*(t.params for t in trials), *pending]}
    for place in itertools.chain(places, cube.random(1000, 2, rng)):
        params = cube.params(place)
        if tuple(params[name] for name in names) not in known:
            return params
    return cube.params(places[0])
