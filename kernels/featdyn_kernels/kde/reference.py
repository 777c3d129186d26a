"""What the kernel density estimate means: float64, every pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from featdyn_kernels._dispatch import to_numpy

Array = np.ndarray[Any, Any]

HELD = 2**22  # numbers held at once


def _log_kernel(queries: Array, samples: Array, bandwidth: Any) -> Array:
    """Return ``log N(query; sample, H H^T)`` as (M, N)."""
    d = samples.shape[1]
    h = to_numpy(bandwidth).astype(np.float64)
    difference = queries.astype(np.float64)[:, None, :] - samples.astype(np.float64)
    if h.ndim == 2:
        scaled = np.linalg.solve(h, difference.reshape(-1, d).T).T.reshape(difference.shape)
        log_det = np.linalg.slogdet(h)[1]
    else:
        scaled, log_det = difference / h, np.log(np.broadcast_to(h, (d,))).sum()
    return np.asarray(-0.5 * (np.square(scaled).sum(-1) + d * np.log(2.0 * np.pi)) - log_det)


def log_density(queries: Array, samples: Array, bandwidth: Any, weights: Array | None) -> Array:
    """See :func:`featdyn_kernels.kde.log_density`."""
    weights = np.ones(len(samples)) if weights is None else weights
    return np.asarray(log_density_many(queries, samples, bandwidth, weights[None])[0])


def log_density_many(queries: Array, samples: Array, bandwidth: Any, weights: Array) -> Array:
    """See :func:`featdyn_kernels.kde.log_density_many`."""
    with np.errstate(divide="ignore"):
        log_w = np.log(weights.astype(np.float64))
    result = np.empty((len(weights), len(queries)))
    step = max(1, HELD // samples.size)  # queries, few enough that their differences from all samples fit memory
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        log_kernel = _log_kernel(queries[rows], samples, bandwidth)
        for r, one in enumerate(log_w):
            result[r, rows] = logsumexp(log_kernel + one, axis=1) - logsumexp(one)
    return result
