"""Bandwidths by rule of thumb (D. W. Scott, Multivariate Density Estimation, 1992; B. W. Silverman, 1986)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import like, to_numpy

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array


_ROUNDING = 1e-12  # smallest eigenvalue of correlations that is more than rounding, also of float32 samples


def scott(samples: Array) -> Array:
    """Return the factor ``n**(-1/(d+4)) L`` of samples ``(n, d)`` with sample covariance ``L L^T``: (d, d), float64."""
    n, d = _shape(samples)
    return _factor(samples, n ** (-1.0 / (d + 4)))


def silverman(samples: Array) -> Array:
    """Return the factor ``(n (d+2)/4)**(-1/(d+4)) L`` of samples ``(n, d)``, as :func:`scott`."""
    n, d = _shape(samples)
    return _factor(samples, (n * (d + 2) / 4.0) ** (-1.0 / (d + 4)))


def _shape(samples: Any) -> tuple[int, int]:
    require_ndim(samples, "samples", 2, "(n, d)")
    n, d = samples.shape
    require(n > d > 0, f"samples must have more rows than columns for a covariance of full rank, got {(n, d)}")
    return n, d


def _factor(samples: Any, scale: float) -> Array:
    x = to_numpy(samples, "samples").astype(np.float64)
    require(bool(np.isfinite(x).all()), "samples must be finite")
    x = x - x.mean(axis=0)
    units = np.abs(x).max(axis=0)
    x = x / np.where(units > 0, units, 1.0)  # squares of any units are in range
    covariance = np.atleast_2d(np.cov(x, rowvar=False))
    deviations = np.sqrt(np.diag(covariance))
    correlations = (
        covariance / np.where(deviations > 0, deviations, 1.0) / np.where(deviations > 0, deviations, 1.0)[:, None]
    )
    require(  # a factor of what is singular but for rounding is rounding
        float(np.linalg.eigvalsh(correlations)[0]) > _ROUNDING,
        f"samples {x.shape} lie in a lower-dimensional space: project them first, or give a bandwidth",
    )
    factor: Array = like(scale * units[:, None] * np.linalg.cholesky(covariance), samples)
    return factor
