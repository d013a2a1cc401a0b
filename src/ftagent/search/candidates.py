"""Where the acquisition is looked at: all over the cube, one-at-a-time moves, and the neighbourhood of the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftagent.search.coordinates import Cube

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_RANDOM = 400
_NEAR = 40
_SCALES = (0.05, 0.15, 0.3)


def candidates(cube: Cube, best: Array, level: int, rng: np.random.Generator) -> Array:
    """(candidates, dimensions). `best` (k, dimensions) are the points whose neighbourhood is worth a closer look."""
    import numpy as np

    found = [cube.random(_RANDOM, level, rng)]
    found += [moves(cube, point, level) for point in best]
    found += [near(cube, point, _NEAR, scale, level, rng) for point in best for scale in _SCALES]
    return np.unique(np.concatenate(found), axis=0)


def moves(cube: Cube, point: Array, level: int) -> Array:
    """`point` with one coordinate changed, for every coordinate and every value of its grid."""
    import numpy as np

    moved = []
    for index, axis in enumerate(cube.axes):
        grid = axis.grid(level)
        block = np.tile(point, (len(grid), 1))
        block[:, index] = grid
        moved.append(block)
    return np.concatenate(moved)


def near(cube: Cube, point: Array, count: int, scale: float, level: int, rng: np.random.Generator) -> Array:
    """`point` with about two coordinates disturbed: normally by `scale`, or to another category."""
    import numpy as np

    dimensions = len(cube.axes)
    chosen = rng.random((count, dimensions)) < min(1.0, 2.0 / dimensions)
    moved = np.where(chosen, point + scale * rng.standard_normal((count, dimensions)), point)
    elsewhere = cube.random(count, level, rng)
    for index, axis in enumerate(cube.axes):
        if axis.categorical:
            moved[:, index] = np.where(chosen[:, index], elsewhere[:, index], point[index])
    return cube.snap(moved, level)
