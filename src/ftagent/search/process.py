"""A Gaussian process whose hyperparameters are sampled, not optimised.

Matérn 5/2 with a length for each dimension (automatic relevance determination); categories are at distance 0 or 1.
Averaging over hyperparameters (Snoek, Larochelle and Adams, NIPS 2012) keeps a search of ten trials from being sure of
what it cannot know. They are drawn by elliptical slice sampling (Murray, Adams and MacKay, AISTATS 2010), which needs
neither gradients nor step sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_JITTER = 1e-6
_BURN_IN = 40
_THINNING = 6


@dataclass(frozen=True)
class Prior:
    """Medians and spreads (of the logarithm) of the hyperparameters, for standardised values."""

    length: float = 0.6
    length_spread: float = 0.8
    amplitude: float = 1.0
    amplitude_spread: float = 0.4
    noise: float = 0.1
    noise_spread: float = 1.0
    mean_spread: float = 0.5
    """Of the constant mean, around 0."""


@dataclass(frozen=True)
class Process:
    """The posterior for one draw of the hyperparameters."""

    points: Array
    values: Array
    lengths: Array
    amplitude: float
    noise: float
    mean: float
    categorical: npt.NDArray[np.bool_]
    factor: Array
    """Lower Cholesky factor of the covariance of `values`, (n, n)."""
    weights: Array

    def predict(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the noiseless function, both (places,)."""
        import numpy as np

        cross = self.amplitude**2 * matern(squares(places, self.points, self.categorical), self.lengths)
        solved = np.linalg.solve(self.factor, cross.T)
        variance = self.amplitude**2 - (solved**2).sum(axis=0)
        return self.mean + cross @ self.weights, np.sqrt(np.maximum(variance, 1e-12))


def squares(first: Array, second: Array, categorical: npt.NDArray[np.bool_]) -> Array:
    """Squared distances by dimension, (dimensions, first, second)."""
    import numpy as np

    difference = first.T[:, :, None] - second.T[:, None, :]
    difference[categorical] = (difference[categorical] != 0).astype(float)
    return np.square(difference)


def matern(by_dimension: Array, lengths: Array) -> Array:
    """Correlations from squared distances by dimension."""
    import numpy as np

    scaled = math.sqrt(5.0) * np.sqrt(np.tensordot(lengths**-2.0, by_dimension, axes=1))
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)


def fit(
    points: Array, values: Array, categorical: npt.NDArray[np.bool_], count: int, rng: np.random.Generator, prior: Prior
) -> list[Process]:
    """`count` draws from the posterior of the hyperparameters. `points` (n, dimensions), `values` (n,)."""
    import numpy as np

    dimensions = points.shape[1]
    center = np.log([*[prior.length] * dimensions, prior.amplitude, prior.noise, 1.0])
    spread = np.array(
        [*[prior.length_spread] * dimensions, prior.amplitude_spread, prior.noise_spread, prior.mean_spread]
    )
    distances = squares(points, points, categorical)

    def process(draw: Array) -> tuple[float, Process]:
        state = center + spread * draw
        lengths, (amplitude, noise) = np.exp(state[:dimensions]), np.exp(state[dimensions:-1])
        covariance = amplitude**2 * matern(distances, lengths)
        covariance[np.diag_indices(len(values))] += noise**2 + _JITTER
        factor = np.linalg.cholesky(covariance)
        half = np.linalg.solve(factor, values - state[-1])
        weights = np.linalg.solve(factor.T, half)
        likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
        return likelihood, Process(
            points, values, lengths, float(amplitude), float(noise), float(state[-1]), categorical, factor, weights
        )

    draw = np.zeros(len(center))
    likelihood, current = process(draw)
    draws = []
    for step in range(_BURN_IN + _THINNING * count):
        threshold, other = likelihood + math.log(1.0 - rng.random()), rng.standard_normal(len(center))
        angle = rng.random() * 2 * math.pi
        low, high = angle - 2 * math.pi, angle
        while True:
            proposed = draw * math.cos(angle) + other * math.sin(angle)
            likelihood, current = process(proposed)
            if likelihood > threshold or abs(angle) < 1e-9:
                draw = proposed
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = low + rng.random() * (high - low)
        if step >= _BURN_IN and (step - _BURN_IN) % _THINNING == _THINNING - 1:
            draws.append(current)
    return draws
