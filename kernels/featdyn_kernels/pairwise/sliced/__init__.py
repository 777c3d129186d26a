"""Sliced Wasserstein distance: one-dimensional transport along random directions, by sorting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, implementation, like, to_numpy
from featdyn_kernels._tiles.points import pair, unit_of
from featdyn_kernels.pairwise.labels import labellings

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend


def sliced_wasserstein(
    x: Array, y: Array, *, p: float = 2.0, directions: int | Array = 256, seed: int = 0, backend: Backend | None = None
) -> Array:
    """Return the sliced Wasserstein distance ``(mean_u W_p^p(x @ u, y @ u))**(1/p)`` of two samples.

    Its p-th power is unbiased over the random directions u (uniform on the sphere), but not over the samples: like
    every plug-in Wasserstein distance it is positive even when the two laws agree, more so for small samples. Compare
    it with its values under relabelling, :func:`sliced_wasserstein_many`. It is in the units of the data.

    Parameters
    ----------
    x, y : (N, d), (M, d)
        The samples; N and M may differ, the transport is exact for any sizes.
    p
        Order, at least 1.
    directions
        How many random directions, or the directions themselves (s, d), which are brought to length one.
    seed
        Of the random directions; the same on every backend.
    backend
        ``"reference"``, ``"cpu"`` or ``"gpu"``; by default the device of the arrays decides.

    Raises
    ------
    ValueError
        If shapes do not match, a sample is empty, values are not finite or p < 1.
    """
    chosen = choose(backend, x, y)
    a, b = pair(x, y, ("x", "y"), chosen)
    require(len(a) > 0, f"x must hold at least one point, got {tuple(a.shape)}")
    require(p >= 1, f"p must be at least 1, got {p}")
    u = _directions(directions, a.shape[1], seed)
    unit = unit_of(a, b)
    a, b = (a, b) if unit == 1.0 else (a / unit, b / unit)
    powers = implementation("pairwise.sliced", "powers", chosen)(a, b, u, float(p))
    return _root(powers, p, unit, x)


def sliced_wasserstein_many(
    points: Array,
    members: Array,
    *,
    p: float = 2.0,
    directions: int | Array = 256,
    seed: int = 0,
    backend: Backend | None = None,
) -> Array:
    """Return :func:`sliced_wasserstein` of the points that a labelling marks against the rest, for many labellings.

    Each direction is sorted once for all labellings. ``points`` (N, d) are both samples, pooled; each row of
    ``members`` (R, N), boolean, marks the first one; the result is (R,). All else is as for :func:`sliced_wasserstein`.
    """
    chosen = choose(backend, points)
    a, _ = pair(points, points, ("points", "points"), chosen)
    require(p >= 1, f"p must be at least 1, got {p}")
    labels = labellings(members, len(a), 1)
    u = _directions(directions, a.shape[1], seed)
    unit = unit_of(a)
    a = a if unit == 1.0 else a / unit
    powers = implementation("pairwise.sliced", "labelled_powers", chosen)(a, labels, u, float(p))
    return _root(powers, p, unit, points)


def _directions(directions: Any, d: int, seed: int) -> np.ndarray[Any, Any]:
    if isinstance(directions, int):
        require(directions > 0, f"directions must be at least 1, got {directions}")
        u = np.random.default_rng(seed).standard_normal((directions, d))
    else:
        u = to_numpy(directions, "directions").astype(np.float64)
        require(u.ndim == 2 and u.shape[1] == d and len(u) > 0, f"directions must have shape (s, {d}), got {u.shape}")
    lengths = np.linalg.norm(u, axis=1, keepdims=True)
    require(bool((np.isfinite(lengths) & (lengths > 0)).all()), "directions must be finite and not zero")
    return np.asarray(u / lengths)


def _root(powers: Any, p: float, unit: float, example: Any) -> Array:
    root: Array = like(powers ** (1.0 / p) * unit, example)
    return root if np.ndim(powers) else root.reshape(())  # like() may add an axis
