"""Gaussian kernel density estimates: log-densities of queries under samples, in memory linear in both.

``bandwidth`` means the same everywhere: a scalar ``h`` (every axis), ``(d,)`` (one ``h`` an axis), or a ``(d, d)``
factor ``H`` of the kernel's covariance ``H @ H.T``: any invertible matrix, such as a lower Cholesky factor or a
symmetric root. It is a standard deviation, never a variance. :func:`scott` and :func:`silverman` return such a factor.

float16, bfloat16 and float32 arrays are computed in float32 and give float32; float64 and integer arrays are computed
and returned in float64. Sums are taken relative to the nearest sample, so a query far from every sample gets its
finite, correct log-density. In float32 a log is right to about ``2e-5 + 2e-6 |log|``. Where samples reach further than
150 bandwidths from their centre, float32 coordinates would not do and float64 is used inside. NaN and infinite input is
refused. No gradients flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, implementation, is_tensor, like
from featdyn_kernels._tiles.points import pair, real, single_precision
from featdyn_kernels.kde.rules import scott, silverman

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

__all__ = ["log_density", "log_density_many", "scott", "silverman"]


def log_density(
    queries: Array, samples: Array, bandwidth: Any, weights: Array | None = None, *, backend: Backend | None = None
) -> Array:
    """Return the natural log of the Gaussian kernel density estimate at each query.

    ``log sum_j w_j N(queries[i]; samples[j], H H^T)``, the weights divided by their sum: (M,), the kind of array that
    ``queries`` is.

    Parameters
    ----------
    queries : (M, d)
        Where to evaluate.
    samples : (N, d)
        What the density is estimated from, N >= 1.
    bandwidth : scalar, (d,) or (d, d)
        Standard deviation of the kernel, or a factor of its covariance; see the module.
    weights : (N,), optional
        Nonnegative, not all zero; need not sum to one. Equal by default.
    backend
        ``"reference"``, ``"cpu"`` or ``"gpu"``; by default the device of the arrays decides.

    Raises
    ------
    ValueError
        If shapes do not match, values are not finite, or a bandwidth is not positive or not invertible.
    """
    chosen = choose(backend, queries, samples)
    x, y = pair(queries, samples, ("queries", "samples"), chosen)
    w = None if weights is None else _weights(weights, chosen, (len(y),))
    logs = implementation("kde", "log_density", chosen)(x, y, bandwidth, w)
    return _result(logs, single_precision(x, y), queries)


def log_density_many(
    queries: Array, samples: Array, bandwidth: Any, weights: Array, *, backend: Backend | None = None
) -> Array:
    """Return :func:`log_density` for many weight vectors at once, (R, M), as permutation nulls need it.

    Each kernel value is computed once and serves all weight vectors, (R, N): each row nonnegative and not all zero,
    divided by its sum. A sample of weight zero takes no part, so a vector of zeros and ones is a subset: for a null,
    the rows are random relabellings of pooled samples. All else is as for :func:`log_density`.
    """
    chosen = choose(backend, queries, samples)
    x, y = pair(queries, samples, ("queries", "samples"), chosen)
    w = _weights(weights, chosen, (None, len(y)))
    logs = implementation("kde", "log_density_many", chosen)(x, y, bandwidth, w)
    return _result(logs, single_precision(x, y), queries)


def _weights(weights: Any, backend: str, shape: tuple[int | None, ...]) -> Any:
    meaning = f"({', '.join('R' if n is None else str(n) for n in shape)}{',' if len(shape) == 1 else ''})"
    w = real(weights, "weights", backend, len(shape), meaning)
    require(w.shape[-1] == shape[-1], f"weights must have shape {meaning}, got {tuple(w.shape)}")
    require(not bool((w < 0).any()), f"weights {tuple(w.shape)} must not be negative")
    require(bool((w > 0).any(-1).all()), f"weights {tuple(w.shape)} must have a positive entry in every vector")
    return w.double() if is_tensor(w) else w.astype(np.float64, copy=False)


def _result(logs: Any, single: bool, example: Any) -> Array:
    if is_tensor(logs):
        logs = logs.float() if single else logs.double()
    elif single:
        with np.errstate(over="ignore"):  # a log beyond float32 is -inf
            logs = logs.astype(np.float32)
    result: Array = like(logs, example)
    return result
