"""A Gaussian process whose hyperparameters are sampled, not optimised.

Matérn 5/2 with a length for each dimension (automatic relevance determination); categories are at distance 0 or 1.
Averaging over hyperparameters (Snoek, Larochelle and Adams, NIPS 2012) keeps a search of ten trials from being sure of
what it cannot know. They are drawn by elliptical slice sampling (Murray, Adams and MacKay, AISTATS 2010), which needs
neither gradients nor step sizes; independent chains run side by side, each gives one draw.
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
_STEPS = 15
_SHRINKS = 12


@dataclass(frozen=True)
class Prior:
    """Medians and spreads (of the logarithm) of the hyperparameters, for standardised values."""

    length: float = 0.6
    length_spread: float = 0.8
    amplitude: float = 1.0
    amplitude_spread: float = 0.4
    noise: float = 0.2
    noise_spread: float = 1.0
    mean_spread: float = 0.5
    """Of the constant mean, around 0."""


@dataclass(frozen=True)
class Process:
    """The posterior for each draw of the hyperparameters; arrays have the draws first."""

    points: Array
    """(n, dimensions)"""
    categorical: npt.NDArray[np.bool_]
    lengths: Array
    amplitude: Array
    noise: Array
    mean: Array
    whitening: Array
    """Inverse of the lower Cholesky factor of the covariance, (draws, n, n)."""
    residuals: Array
    """The whitened values, (draws, n)."""

    def predict(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the noiseless function, both (draws, places)."""
        import numpy as np

        scale = self.amplitude[:, None] ** 2
        cross = scale[..., None] * matern(squares(self.points, places, self.categorical), self.lengths)
        white = self.whitening @ cross
        mean = self.mean[:, None] + (self.residuals[:, None, :] @ white)[:, 0]
        return mean, np.sqrt(np.maximum(scale - np.square(white).sum(axis=1), 1e-12))


def squares(first: Array, second: Array, categorical: npt.NDArray[np.bool_]) -> Array:
    """Squared distances by dimension, (dimensions, first, second)."""
    import numpy as np

    difference = first.T[:, :, None] - second.T[:, None, :]
    difference[categorical] = difference[categorical] != 0
    return np.square(difference)


def matern(by_dimension: Array, lengths: Array) -> Array:
    """Correlations (draws, first, second) from squared distances by dimension and `lengths` (draws, dimensions)."""
    import numpy as np

    scaled = np.sqrt(5.0 * np.tensordot(lengths**-2.0, by_dimension, axes=1))
    result: Array = (1.0 + scaled + np.square(scaled) / 3.0) * np.exp(-scaled)
    return result


def fit(
    points: Array, values: Array, categorical: npt.NDArray[np.bool_], draws: int, rng: np.random.Generator, prior: Prior
) -> Process:
    """`draws` from the posterior of the hyperparameters. `points` (n, dimensions), `values` (n,)."""
    import numpy as np

    dimensions = points.shape[1]
    center = np.array([*[math.log(prior.length)] * dimensions, math.log(prior.amplitude), math.log(prior.noise), 0.0])
    spread = [*[prior.length_spread] * dimensions, prior.amplitude_spread, prior.noise_spread, prior.mean_spread]
    distances = squares(points, points, categorical)

    def posterior(state: Array) -> tuple[Array, Process]:
        """Log likelihoods of standard normal `state` (draws, hyperparameters), and what follows from it."""
        found = center + state * spread
        lengths, amplitude, noise = np.exp(found[:, :dimensions]), np.exp(found[:, -3]), np.exp(found[:, -2])
        covariance = amplitude[:, None, None] ** 2 * matern(distances, lengths)
        covariance += (noise**2 + _JITTER)[:, None, None] * np.eye(len(values))
        factor = np.linalg.cholesky(covariance)
        whitening = np.linalg.inv(factor)
        residuals = (whitening @ (values - found[:, -1:])[..., None])[..., 0]
        logs = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        process = Process(points, categorical, lengths, amplitude, noise, found[:, -1], whitening, residuals)
        return -0.5 * np.square(residuals).sum(axis=1) - logs, process

    state = rng.standard_normal((draws, len(center)))
    likelihood, process = posterior(state)
    for _ in range(_STEPS):
        threshold, other = likelihood + np.log1p(-rng.random(draws)), rng.standard_normal(state.shape)
        angle = rng.random(draws) * 2 * math.pi
        low, high = angle - 2 * math.pi, angle
        for _ in range(_SHRINKS):
            proposed = state * np.cos(angle)[:, None] + other * np.sin(angle)[:, None]
            likelihood, process = posterior(proposed)
            refused = likelihood <= threshold
            if not refused.any():
                break
            low, high = np.where(refused & (angle < 0), angle, low), np.where(refused & (angle >= 0), angle, high)
            angle = np.where(refused, low + rng.random(draws) * (high - low), angle)
        else:
            # Chains that found nothing stay where they were.
            proposed = np.where(refused[:, None], state, proposed)
            likelihood, process = posterior(proposed)
        state = proposed
    return process
