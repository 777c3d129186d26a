"""Distances between two samples, from all their pairs, with none of the N x N matrices kept.

:func:`mmd2` and :func:`energy_distance` are U-statistics: unbiased, so that they scatter around zero, and can be
negative, when the two laws agree. The ``_many`` forms evaluate one pooled sample under many labellings and compute each
pair once: what a permutation test needs. Values are float64 arrays (0-d, or one entry a labelling) of the kind that the
first argument is.

float16, bfloat16 and float32 points are computed in float32 and summed in float64, float64 and integer points in
float64; coordinates are centred first. Statistics are those of the data at any scale, 1e200 and 1e-200 too. Neither the
number of threads nor what else runs changes a bit. NaN and infinite input is refused. No gradients flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, implementation, like, to_numpy
from featdyn_kernels._tiles.points import pair, unit_of
from featdyn_kernels.pairwise.bandwidth import median_bandwidth
from featdyn_kernels.pairwise.labels import labellings
from featdyn_kernels.pairwise.sliced import sliced_wasserstein, sliced_wasserstein_many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featdyn_kernels._dispatch import Array, Backend

__all__ = [
    "energy_distance",
    "energy_distance_many",
    "median_bandwidth",
    "mmd2",
    "mmd2_many",
    "sliced_wasserstein",
    "sliced_wasserstein_many",
]


def mmd2(
    x: Array, y: Array, bandwidth: float | Sequence[float] | None = None, *, backend: Backend | None = None
) -> Array:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13, lemma 6).

    Parameters
    ----------
    x, y : (N, d), (M, d)
        The samples, N and M >= 2.
    bandwidth
        Of the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``. Several are summed (``s * 2.0 ** np.arange(-2, 3)`` are
        five octaves). By default :func:`median_bandwidth` of both samples, on a subset of 1000 points.
    backend
        ``"reference"``, ``"cpu"`` or ``"gpu"``; by default the device of the arrays decides.

    Raises
    ------
    ValueError
        If shapes do not match, a sample has fewer than two points, values are not finite or a bandwidth is not
        positive.
    """
    return _contrast(x, y, lambda a, b: _bandwidths(bandwidth, a, b), backend)


def energy_distance(x: Array, y: Array, *, backend: Backend | None = None) -> Array:
    """Return the unbiased estimate of ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` (Székely and Rizzo 2013).

    In the units of the data, not their root (``scipy.stats.energy_distance`` is the square root of the biased form).
    Samples, backend and errors are as for :func:`mmd2`.
    """
    return -_contrast(x, y, lambda a, b: None, backend)


def mmd2_many(
    points: Array, members: Array, bandwidth: float | Sequence[float] | None = None, *, backend: Backend | None = None
) -> Array:
    """Return :func:`mmd2` of the points that a labelling marks against the rest, (R,), for many labellings at once.

    Parameters
    ----------
    points : (N, d)
        Both samples, pooled.
    members : (R, N) of bool
        Each row marks the first sample; at least two points are marked and two are not. For a permutation test the
        first row is the true labelling and the others shuffle it; paired samples are swapped within pairs.
    bandwidth, backend
        As for :func:`mmd2`; by default :func:`median_bandwidth` of the points, which no labelling changes.
    """
    return _contrast_many(points, members, lambda a: _bandwidths(bandwidth, a), backend)


def energy_distance_many(points: Array, members: Array, *, backend: Backend | None = None) -> Array:
    """Return :func:`energy_distance` for many labellings of pooled points; arguments as for :func:`mmd2_many`."""
    return -_contrast_many(points, members, lambda a: None, backend)


def _bandwidths(bandwidth: Any, *samples: Any) -> np.ndarray[Any, Any]:
    if bandwidth is None:
        return np.array([median_bandwidth(*samples)])
    found = np.atleast_1d(to_numpy(bandwidth, "bandwidth").astype(np.float64))
    require(found.ndim == 1 and found.size > 0, f"bandwidth must be a number or a sequence, got shape {found.shape}")
    require(bool((np.isfinite(found) & (found > 0)).all()), f"bandwidth must be positive and finite, got {found}")
    return found


def _contrast(x: Array, y: Array, bandwidths: Callable[[Any, Any], Any], backend: Backend | None) -> Array:
    chosen = choose(backend, x, y)
    a, b = pair(x, y, ("x", "y"), chosen)
    n, m = len(a), len(b)
    require(n > 1 and m > 1, f"x and y must hold at least two points each, got {tuple(a.shape)} and {tuple(b.shape)}")
    h, unit = bandwidths(a, b), unit_of(a, b)
    xx, yy, xy = implementation("pairwise", "pair_sums", chosen)(*_over(unit, a, b, h))
    value: Array = like(_difference(xx, yy, xy, n, m) * (unit if h is None else 1.0), x)
    return value.reshape(())  # like() may add an axis


def _contrast_many(points: Array, members: Array, bandwidths: Callable[[Any], Any], backend: Backend | None) -> Array:
    chosen = choose(backend, points)
    a, _ = pair(points, points, ("points", "points"), chosen)
    labels = labellings(members, len(a))
    # Both sides count alike. The marked one is summed directly, the other is what remains: precise if that is more.
    labels = labels ^ (2 * labels.sum(1, keepdims=True) > len(a))
    h, unit = bandwidths(a), unit_of(a)
    a, h = _over(unit, a, h)
    xx, yy, xy = implementation("pairwise", "labelled_sums", chosen)(a, labels, h)
    n = like(labels.sum(1).astype(np.float64), a)
    values: Array = like(_difference(xx, yy, xy, n, len(a) - n) * (unit if h is None else 1.0), points)
    return values


def _over(unit: float, *lengths: Any) -> list[Any]:
    """Return lengths, or None, divided by their unit."""
    return [x if x is None or unit == 1.0 else x / unit for x in lengths]


def _difference(xx: Any, yy: Any, xy: Any, n: Any, m: Any) -> Any:
    """Return the mean within minus twice the mean between, from sums over ordered pairs."""
    return xx / (n * (n - 1.0)) + yy / (m * (m - 1.0)) - 2.0 * xy / (n * m)
