"""What one would otherwise write with NumPy and SciPy; checked in the tests, timed by the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[Any]


def gram(x: Array) -> Array:
    """Return the inner products in float64."""
    rows = x.astype(np.float64)
    return rows @ rows.T


def statistics(products: Array, p: int, replicates: int = 0) -> dict[str, float]:
    """Return the statistics of draws about zero from their inner products; redraw directions ``replicates`` times."""
    m = len(products)
    values = np.linalg.eigvalsh(products / m)
    t1, t2 = values.sum(), (values**2).sum()
    u = p * t2 / t1**2 - 1
    lengths = np.sqrt(np.diag(products))
    cosines = products / lengths / lengths[:, None]
    q = p / (m * (m - 1)) * (np.sum(cosines**2) - m) - 1
    off = np.sum(products**2) - np.sum(lengths**4)
    rng = np.random.default_rng(0)
    for _ in range(replicates):
        z = rng.standard_normal((m, p))
        z *= (lengths / np.linalg.norm(z, axis=1))[:, None]
        np.sum((z @ z.T) ** 2)
    return {
        "john": m * p / 2 * u,
        "ledoit_wolf": (m * u - p - 1) / 2,
        "srivastava": m / 2 * (m**2 / ((m - 1) * (m + 2)) * (t2 - t1**2 / m) * p / t1**2 - 1),
        "chen_zhang_zhong": m / 2 * (p * off / (m * (m - 1)) / (np.trace(products) / m) ** 2 - 1),
        "sign_test": q / np.sqrt(4 * (p - 1) / (m * (m - 1) * (p + 2))),
        "exact_norm_conditional": u,
    }


def total_variations(x: Array, y: Array, permutations: int, seed: int) -> Array:
    """Return the estimates of :func:`featdyn.statistics.two_sample.kde_total_variation`, kernel matrices in memory."""
    points, halves, labels, factor = _shared(x, y, permutations, seed)
    white = np.linalg.solve(factor, points.T.astype(np.float64)).T.astype(points.dtype)

    def densities(queries: Array, fitted: Array) -> Callable[[Array], Array]:
        squares = np.square(white[queries]).sum(1)[:, None] + np.square(white[fitted]).sum(1)
        kernel = np.exp(white[queries] @ white[fitted].T - squares / 2)
        return lambda weights: kernel @ (weights / weights.sum(1, keepdims=True)).T.astype(kernel.dtype)

    return np.mean([_held_out(*pair, labels, densities(pair[1], pair[0])) for pair in (halves, halves[::-1])], axis=0)


def scipy_total_variations(x: Array, y: Array, permutations: int, seed: int) -> Array:
    """Return the same with SciPy's estimator, which takes one labelling at a time."""
    points, halves, labels, factor = _shared(x, y, permutations, seed)

    def densities(queries: Array, fitted: Array) -> Callable[[Array], Array]:
        def evaluate(weights: Array) -> Array:
            columns = []
            for chosen in weights:
                kernel = stats.gaussian_kde(points[fitted][chosen].T.astype(np.float64))
                kernel.factor, kernel._data_covariance = 1.0, factor @ factor.T
                kernel._data_cho_cov = np.linalg.cholesky(kernel._data_covariance)
                kernel.covariance, kernel.cho_cov = kernel._data_covariance, kernel._data_cho_cov
                columns.append(kernel(points[queries].T.astype(np.float64)))
            return np.stack(columns, axis=1)

        return evaluate

    return np.mean([_held_out(*pair, labels, densities(pair[1], pair[0])) for pair in (halves, halves[::-1])], axis=0)


def _shared(x: Array, y: Array, permutations: int, seed: int) -> tuple[Array, list[Array], Array, Array]:
    """Return pooled points, halves, labellings (the true one first) and the factor of the kernel's covariance."""
    rng = np.random.default_rng(seed)
    n, m, d = len(x), len(y), x.shape[1]
    first, second = rng.permutation(n), rng.permutation(m)
    halves = [np.concatenate([first[i::2], n + second[i::2]]) for i in (0, 1)]
    labels = np.tile(np.arange(n + m) < n, (permutations + 1, 1))
    for half in halves:
        labels[1:, half] = rng.permuted(labels[1:, half], axis=1)
    points = np.concatenate([x, y])
    size = (n // 2 + m // 2) / 2
    covariance = np.atleast_2d(np.cov(points.astype(np.float64), rowvar=False))
    return points, halves, labels, np.linalg.cholesky(covariance) * size ** (-1 / (d + 4))


def _held_out(fitted: Array, queries: Array, labels: Array, densities: Callable[[Array], Array]) -> Array:
    p, q = densities(labels[:, fitted]), densities(~labels[:, fitted])
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(p - q) / (p + q))  # far from all points both underflow
    ours = labels[:, queries].T
    return (distance * ours).sum(0) / ours.sum(0) / 2 + (distance * ~ours).sum(0) / (~ours).sum(0) / 2
