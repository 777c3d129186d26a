"""Intervals: of proportions, and from resampled observations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mean = NDArray[np.float64]

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def wilson(shares: ArrayLike, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % Wilson score interval (lower, upper) of proportions seen in ``size`` observations.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209. It also covers the mean of several proportions over the same
    observations, which varies no more than one proportion of that size does.
    """
    p = np.asarray(shares, dtype=np.float64)
    shrink = 1 + Z95**2 / size
    centre = (p + Z95**2 / (2 * size)) / shrink
    half = Z95 / shrink * np.sqrt(p * (1 - p) / size + Z95**2 / (4 * size**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def bootstrap_weights(size: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Return ``(draws, size)`` weights of observations: how often each draw with replacement holds each, over ``size``.

    A weighted mean is then a matrix product, and statistics of the same observations are resampled together.
    """
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), draws)
    return (counts / size).astype(np.float32)


def bootstrap_bounds(
    values: NDArray[np.floating] | NDArray[np.bool_], weights: NDArray[np.float32]
) -> tuple[Mean, Mean]:
    """Return 95 % percentile bounds (lower, upper) ``(...)`` of the mean of ``values (..., size)``.

    Give differences of paired observations to bound the difference of their means.

    Parameters
    ----------
    weights
        ``(draws, size)``, of :func:`bootstrap_weights`.
    """
    drawn = values.astype(np.float32) @ weights.T
    low, high = np.quantile(drawn.astype(np.float64), (0.025, 0.975), axis=-1)
    return low, high
