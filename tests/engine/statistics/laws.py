"""Laws that the tests draw from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gaussian(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.standard_normal((n, p))


def elliptical(rng: np.random.Generator, n: int, p: int, df: float = 5) -> Array:
    """Multivariate t: isotropic, lengths vary as a whole."""
    return rng.standard_normal((n, p)) / np.sqrt(rng.chisquare(df, (n, 1)) / df)


def heavy_coordinates(rng: np.random.Generator, n: int, p: int, df: float = 5) -> Array:
    """Independent t coordinates: isotropic covariance."""
    return rng.standard_t(df, (n, p))


def planted(
    rng: np.random.Generator, n: int, p: int, k: int, excess: float, df: float | None = None, bulk: float = 1.0
) -> Array:
    """Return noise with k random directions whose variance exceeds the others' by ``excess`` of theirs."""
    basis = np.linalg.qr(rng.standard_normal((p, k)))[0]
    x = bulk * rng.standard_normal((n, p)) + np.sqrt(excess) * rng.standard_normal((n, k)) @ basis.T
    return x if df is None else x / np.sqrt(rng.chisquare(df, (n, 1)) / df)
