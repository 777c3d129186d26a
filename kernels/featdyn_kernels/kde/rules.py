"""Bandwidths by rule of thumb (D. W. Scott, Multivariate Density Estimation, 1992; B. W. Silverman, 1986)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import like, to_numpy
from featdyn_kernels._tiles.points import unit_of

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array


EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}


def scott(samples: Array) -> Array:
    """Return the factor ``n**(-1/(d+4)) L`` of samples ``(n, d)`` with sample covariance ``L L^T``: (d, d), float64.

    Raises ValueError for not more samples than columns, or a column that the others determine but for rounding.
    """
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
    d, unit = x.shape[1], unit_of(x)
    x = x / unit
    centred = x - x.mean(0)
    spread = np.sqrt(np.square(centred).sum(0) / (len(x) - 1))
    # Of a column that depends on those before, what they leave of its variance is rounding: the data's and our own.
    eps = EPS.get(str(samples.dtype).removeprefix("torch."), EPS["float64"])
    with np.errstate(divide="ignore", invalid="ignore"):
        rounding = 64 * d * EPS["float64"] + np.square(4 * eps * np.abs(x).max(0) / spread)
        unit_columns = centred / spread
    try:
        root = np.linalg.cholesky(unit_columns.T @ unit_columns / (len(x) - 1))
    except np.linalg.LinAlgError:
        root = np.zeros((d, d))
    require(
        bool((np.square(root.diagonal()) > rounding).all()),
        f"samples {x.shape} lie in a lower-dimensional space: project them first, or give a bandwidth",
    )
    factor: Array = like(scale * unit * spread[:, None] * root, samples)
    return factor
