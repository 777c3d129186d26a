"""Direct float64 forms, from the definitions and the full covariance matrix."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def centred(x: Array, center: str) -> tuple[Array, int]:
    x = np.asarray(x, dtype=np.float64)
    return (x - x.mean(0), len(x) - 1) if center == "estimated" else (x, len(x))


def traces(x: Array, center: str) -> tuple[int, int, list[float]]:
    """Return m, p and [p, t1, t2, t3, t4] of S, a p x p matrix."""
    rows, m = centred(x, center)
    s = rows.T @ rows / m
    return m, x.shape[1], [float(np.trace(np.linalg.matrix_power(s, k))) for k in range(5)]


def czz_sums(x: Array) -> tuple[float, float]:
    """Return T1 and T2 of Chen, Zhang and Zhong (2010) by sums over tuples of different draws."""
    n = len(x)
    g = x @ x.T
    y1 = np.mean([g[i, i] for i in range(n)])
    y2, y3, y4, y5 = (
        np.mean([term(*t) for t in permutations(range(n), order)])
        for order, term in (
            (2, lambda i, j: g[i, j] ** 2),
            (2, lambda i, j: g[i, j]),
            (3, lambda i, j, k: g[i, j] * g[j, k]),
            (4, lambda i, j, k, l: g[i, j] * g[k, l]),  # noqa: E741
        )
    )
    return float(y1 - y3), float(y2 - 2 * y4 + y5)


def statistics(x: Array, center: str) -> dict[str, float]:
    """Return the statistics on the scale of their null laws, and None's place left out."""
    m, p, t = traces(x, center)
    u = p * t[2] / t[1] ** 2 - 1
    found = {
        "john": m * p / 2 * u,
        "ledoit_wolf": (m * u - p - 1) / 2,
        "srivastava": m / 2 * (m**2 / ((m - 1) * (m + 2)) * (t[2] - t[1] ** 2 / m) / p / (t[1] / p) ** 2 - 1),
    }
    rows, _ = centred(x, center)
    if p < m:
        log = np.linalg.slogdet(rows.T @ rows / m)[1] - p * np.log(t[1] / p)
        found["mauchly"] = -m * (1 - (2 * p * p + p + 2) / (6 * p * m)) * log
    return found


def directions(x: Array, k: int) -> Array:
    """Return the k main directions of draws about their mean, largest first: (p, k)."""
    return np.asarray(np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:k].T)


def quasi_lrt(x: Array) -> float:
    rows, m = centred(x, "estimated")
    p = x.shape[1]
    values = np.linalg.eigvalsh(rows @ rows.T / p)[1:]
    q = p / m * (m * np.log(values.mean()) - np.log(values).sum())
    return float(q - m / 2 - m**2 / (6 * p) - 0.5)


def total_variation_grid(x: Array, y: Array, bandwidth: Any, points: int = 400) -> float:
    """Return 1/2 int |p - q| of two one-dimensional Gaussian kernel estimates, on a grid."""
    z = np.linspace(min(x.min(), y.min()) - 6, max(x.max(), y.max()) + 6, points)
    p, q = (stats.norm.pdf(z[:, None], s, bandwidth).mean(1) for s in (x, y))
    return float(0.5 * np.abs(p - q).sum() * (z[1] - z[0]))
