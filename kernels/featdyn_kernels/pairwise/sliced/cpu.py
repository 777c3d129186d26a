"""Sliced Wasserstein distance on the CPU: project, sort, and walk both sorted rows once."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels._tiles.coordinates import matmul_transposed, scaled_pair

Array = np.ndarray[Any, Any]

_BLOCK = 64  # directions projected at once, so that memory stays linear in the samples


def powers(x: Array, y: Array, directions: Array, p: float) -> float:
    """See :func:`featdyn_kernels.pairwise.sliced.reference.powers`."""
    a, b = scaled_pair(x, y, np.ones(x.shape[1]), np.inf)
    costs = np.empty(len(directions))
    for s in range(0, len(directions), _BLOCK):
        u = directions[s : s + _BLOCK].astype(b.dtype)
        left, right = matmul_transposed(u, a), matmul_transposed(u, b)

        def work(first: int, stop: int, s: int = s, left: Array = left, right: Array = right) -> None:
            for i in range(first, stop):
                costs[s + i] = _transport(np.sort(left[i]), np.sort(right[i]), p)

        parallel_blocks(work, len(u))
    return float(costs.mean())


def labelled_powers(points: Array, members: Array, directions: Array, p: float) -> Array:
    """See :func:`featdyn_kernels.pairwise.sliced.reference.labelled_powers`."""
    a, _ = scaled_pair(points, points, np.ones(points.shape[1]), np.inf)
    costs = np.empty((len(directions), len(members)))
    for s in range(0, len(directions), _BLOCK):
        projected = matmul_transposed(directions[s : s + _BLOCK].astype(a.dtype), a)

        def work(first: int, stop: int, s: int = s, projected: Array = projected) -> None:
            for i in range(first, stop):
                order = np.argsort(projected[i])
                _labelled(projected[i][order], order, members, p, costs[s + i])

        parallel_blocks(work, len(projected))
    return np.asarray(costs.mean(0))


@njit
def _transport(a: Any, b: Any, p: float) -> Any:
    """Return ``W_p^p`` of two sorted samples: the integral over levels of the distance between their quantiles."""
    n, m = a.size, b.size
    if n == m:
        return _matched(a, b, p) / n
    i = j = level = 0  # levels in units of 1 / (n m), so that they are exact
    total = 0.0
    while i < n and j < m:
        gap = abs(np.float64(a[i]) - np.float64(b[j]))
        power = gap * gap if p == 2.0 else gap if p == 1.0 else gap**p
        a_end, b_end = (i + 1) * m, (j + 1) * n
        end = min(a_end, b_end)
        total += power * (end - level)
        level = end
        i += a_end == end
        j += b_end == end
    return total / (n * m)


@njit(fastmath={"reassoc", "contract"})  # a sum of powers in the order that registers like
def _matched(a: Any, b: Any, p: float) -> Any:
    """Return the sum of the powers of the distances of two sorted samples of one size, pair by pair."""
    total = 0.0
    if p == 2.0:
        for i in range(a.size):
            gap = np.float64(a[i]) - np.float64(b[i])
            total += gap * gap
    else:
        for i in range(a.size):
            gap = abs(np.float64(a[i]) - np.float64(b[i]))
            total += gap if p == 1.0 else gap**p
    return total


@njit
def _labelled(values: Any, order: Any, members: Any, p: float, costs: Any) -> None:
    """Write the cost of each labelling of one sorted pooled row."""
    a, b = np.empty_like(values), np.empty_like(values)
    for r in range(members.shape[0]):
        n = m = 0
        for k in range(values.size):
            marked = members[r, order[k]]
            a[n], b[m] = values[k], values[k]  # written to both, kept in one: no branch to predict
            n += marked
            m += not marked
        costs[r] = _transport(a[:n], b[:m], p)
