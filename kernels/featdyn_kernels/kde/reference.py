"""What the kernel density estimate means: float64, every pair at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from featdyn_kernels._dispatch import to_numpy

Array = np.ndarray[Any, Any]


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


def _log_weights(weights: Array | None, n: int) -> Array:
    with np.errstate(divide="ignore"):
        return np.zeros(n) if weights is None else np.log(weights.astype(np.float64))


def log_density(queries: Array, samples: Array, bandwidth: Any, weights: Array | None) -> Array:
    """See :func:`featdyn_kernels.kde.log_density`."""
    log_w = _log_weights(weights, len(samples))
    return np.asarray(logsumexp(_log_kernel(queries, samples, bandwidth) + log_w, axis=1) - logsumexp(log_w))


def log_density_many(queries: Array, samples: Array, bandwidth: Any, weights: Array) -> Array:
    """See :func:`featdyn_kernels.kde.log_density_many`."""
    return np.stack([log_density(queries, samples, bandwidth, w) for w in weights])


def leave_one_out(samples: Array, bandwidth: Any, weights: Array | None) -> Array:
    """See :func:`featdyn_kernels.kde.leave_one_out`."""
    log_w = np.tile(_log_weights(weights, len(samples)), (len(samples), 1))
    np.fill_diagonal(log_w, -np.inf)
    return np.asarray(logsumexp(_log_kernel(samples, samples, bandwidth) + log_w, axis=1) - logsumexp(log_w, axis=1))
