"""Which suggestions would only repeat what was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftagent.search.coordinates import Cube

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

_SAME = 0.49
"""Share of a grid's step within which two values of a parameter are taken for the same."""


def repeats(cube: Cube, places: Array, tried: Array, level: int) -> Flags:
    """Which of `places` (on the grid of `level`) are a tried point, or would become one.

    Whoever trains may round what it is told (a batch size to a multiple of 8). Then trials hold the same point twice,
    although it was not asked for twice: around such a point, values that no trial ever had count as the nearest that
    one had, the farther off the more often it came back.
    """
    import numpy as np

    same: Flags = within(places, tried, _SAME * steps(cube, level))
    points, counts = np.unique(tried, axis=0, return_counts=True)
    for times in range(2, int(counts.max()) + 1):
        rounded = rounding(places, tried, (times - 1.0) * steps(cube, 0))
        same = np.logical_or(same, within(rounded, points[counts >= times], 1e-9))
    return same


def within(places: Array, points: Array, reach: Array | float) -> Flags:
    """Which of `places` are no farther than `reach` from one of `points` in every coordinate."""
    import numpy as np

    near = np.abs(places[:, None, :] - points[None, :, :]) <= reach
    result: Flags = np.logical_or.reduce(np.logical_and.reduce(near, axis=2), axis=1)
    return result


def rounding(places: Array, tried: Array, reach: Array) -> Array:
    """`places`, each coordinate moved to the nearest one that was tried, where that is within `reach` (dimensions,)."""
    import numpy as np

    moved = places.copy()
    for index, far in enumerate(reach):
        # Between two equally near ones the upper one: whichever it is, the other remains to be tried.
        known = np.unique(tried[:, index])[::-1]
        nearest = known[np.abs(places[:, index, None] - known).argmin(axis=1)]
        close = np.abs(nearest - places[:, index]) <= far * 1.001
        moved[:, index] = np.where(close, nearest, places[:, index])
    return moved


def steps(cube: Cube, level: int) -> Array:
    """The largest step of each axis' grid; 0 where values have no order."""
    import numpy as np

    return np.array([0.0 if axis.categorical else max(np.diff(axis.grid(level)), default=0.0) for axis in cube.axes])
