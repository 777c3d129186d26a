"""Total variation between two densities, each estimated by kernels: few dimensions, never on its own points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.two_sample.permutation import Labels, halved, outcome, samples
from featdyn.statistics.two_sample.result import TwoSampleResult
from featdyn_kernels import kde

MOST_DIMENSIONS = 3
"""Of 2,000 points of one law each: 0.07 in two dimensions, 0.11 in three, 0.2 in five, 0.5 in 20. Our own choice."""
_BLOCK = 2**24  # weights held at once, 128 MiB


def kde_total_variation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    paired: bool = False,
    groups: ArrayLike | None = None,
    permutations: int | Labels = 200,
    rng: Rng = None,
) -> TwoSampleResult:
    """Estimate the total variation ``1/2 int |p - q|`` between the laws of two samples.

    ``TV = E_{z ~ (P+Q)/2} |tanh((log p(z) - log q(z)) / 2)|``, with p and q Gaussian kernel estimates from one half of
    each sample and the mean over the other half, then with the halves exchanged.

    Positive also where the laws agree; ``excess`` is its difference from the null.

    Parameters
    ----------
    x, y : (n, d), (m, d)
        Samples, d <= 3 and at least 2 (d + 1) rows each. Project both onto one common basis first: the total variation
        of any projection is at most the full one.
    paired, groups, permutations, rng
        As for :func:`~featdyn.statistics.two_sample.mmd`; pairs and groups stay in one half, at random too. Labellings
        that are given must swap pairs, as those of halves do not depend on them.

    Notes
    -----
    The kernel's covariance is that of the pooled points times Scott's ``k^(-2/(d+4))``, k the points that an estimate
    is made from: no labelling changes it, so each kernel value serves all of them. This bandwidth, the two halves and
    the limit of three dimensions are featdyn's own choice; arXiv 2509.20334 does not say which ones it used.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> kde_total_variation(rng.normal(size=(50, 1)), rng.normal(3, size=(50, 1))).pvalue < 0.01
    True
    """
    a, b, _ = samples(x, y, paired)
    (n, d), m = a.shape, len(b)
    if d > MOST_DIMENSIONS:
        raise ValueError(f"x {a.shape} has more than {MOST_DIMENSIONS} columns: project it, or use mmd or energy")
    if min(n, m) < 2 * (d + 1):
        raise ValueError(f"x {a.shape} and y {b.shape} must have at least {2 * (d + 1)} rows each")
    found = total_variations(a, b, paired, permutations, rng, groups)
    return outcome("kde_total_variation", found, (a.shape, b.shape), paired)


def total_variations(
    x: NDArray[Any],
    y: NDArray[Any],
    paired: bool,
    permutations: int | Labels,
    rng: Rng,
    groups: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the estimate under the true labelling and under random ones, in any number of dimensions."""
    draw = generator(rng)
    n, m = len(x), len(y)
    points = _whitened(np.concatenate([x, y]), (n // 2 + m // 2) / 2)
    (one, other), labels = halved(n, m, permutations, draw, paired, groups)
    step = max(1, _BLOCK // (n + m))
    blocks = [labels[start : start + step] for start in range(0, len(labels), step)]
    return np.concatenate([(_held_out(points, one, other, b) + _held_out(points, other, one, b)) / 2 for b in blocks])


def _whitened(points: NDArray[Any], size: float) -> NDArray[Any]:
    """Return the points in units of the kernel: pooled covariance, Scott's factor for ``size`` points."""
    total, d = points.shape
    factor = np.asarray(kde.scott(points)) * (total / size) ** (1 / (d + 4))
    centred = points - points.mean(axis=0, dtype=np.float64)
    return np.ascontiguousarray(np.linalg.solve(factor, centred.T).T.astype(points.dtype))


def _held_out(
    points: NDArray[Any], fitted: NDArray[np.intp], held_out: NDArray[np.intp], labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the estimate for each labelling: densities from ``fitted``, mean over ``held_out``, both samples alike."""
    weights = np.concatenate([labels[:, fitted], ~labels[:, fitted]]).astype(np.float64)
    logs = np.asarray(kde.log_density_many(points[held_out], points[fitted], 1.0, weights))
    distance = np.abs(np.tanh((logs[: len(labels)] - logs[len(labels) :]) / 2))
    ours = labels[:, held_out]
    sums = [(distance * chosen).sum(axis=1, dtype=np.float64) / chosen.sum(axis=1) for chosen in (ours, ~ours)]
    return np.asarray((sums[0] + sums[1]) / 2)
