"""Distances with permutation nulls that hold in any number of dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.two_sample.permutation import Labels, labellings, outcome, samples
from featdyn.statistics.two_sample.result import TwoSampleResult
from featdyn_kernels import pairwise


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: float | Sequence[float] | None = None,
    paired: bool = False,
    groups: ArrayLike | None = None,
    permutations: int | Labels = 200,
    rng: Rng = None,
) -> TwoSampleResult:
    """Test by the squared maximum mean discrepancy, unbiased (Gretton et al. 2012).

    Parameters
    ----------
    x, y : (n, d), (m, d)
        Samples of at least two rows.
    bandwidth
        Of the Gaussian kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``; several are summed. By default the median distance
        of the pooled points.
    paired
        Row i of both is the same item: the null swaps x_i with y_i.
    groups : (n,) for pairs, else (n + m,), optional
        Origin of each pair, or of each row of x and then of y: those of one origin keep a common label.
    permutations
        Labellings of the null: how many, so that the smallest p-value is ``1 / (permutations + 1)``; or those of
        :func:`~featdyn.statistics.two_sample.labellings`, common to a family of tests.
    rng
        Generator or seed of the null; 0 by default.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> mmd(rng.normal(size=(50, 2)), rng.normal(1, size=(50, 2))).pvalue < 0.01
    True
    """
    return _test(
        "mmd", x, y, paired, groups, permutations, rng,
        lambda z, labels, unit: pairwise.mmd2_many(
            z, labels, None if bandwidth is None else (np.asarray(bandwidth, np.float64) / unit).tolist()
        ),
    )  # fmt: skip


def energy(
    x: ArrayLike,
    y: ArrayLike,
    *,
    paired: bool = False,
    groups: ArrayLike | None = None,
    permutations: int | Labels = 200,
    rng: Rng = None,
) -> TwoSampleResult:
    """Test by the energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, unbiased (Székely and Rizzo 2013).

    Parameters are those of :func:`mmd`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> energy(rng.normal(size=(50, 2)), rng.normal(1, size=(50, 2))).pvalue < 0.01
    True
    """
    return _test(
        "energy", x, y, paired, groups, permutations, rng,
        lambda z, labels, unit: pairwise.energy_distance_many(z, labels), in_units=True,
    )  # fmt: skip


def sliced_wasserstein(
    x: ArrayLike,
    y: ArrayLike,
    *,
    p: float = 2.0,
    directions: int = 256,
    paired: bool = False,
    groups: ArrayLike | None = None,
    permutations: int | Labels = 200,
    rng: Rng = None,
) -> TwoSampleResult:
    """Test by the sliced Wasserstein distance ``(mean_u W_p^p(u'x, u'y))^(1/p)`` over random directions u.

    Biased upwards for small samples: report ``excess``. The order p is at least 1; the generator also draws the
    directions. Other parameters are those of :func:`mmd`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sliced_wasserstein(rng.normal(size=(50, 2)), rng.normal(1, size=(50, 2))).pvalue < 0.01
    True
    """
    draw = generator(rng)
    seed = int(draw.integers(2**32))
    return _test(
        "sliced_wasserstein", x, y, paired, groups, permutations, draw,
        lambda z, labels, _: pairwise.sliced_wasserstein_many(z, labels, p=p, directions=directions, seed=seed),
        in_units=True,
    )  # fmt: skip


def _test(
    name: str,
    x: ArrayLike,
    y: ArrayLike,
    paired: bool,
    groups: ArrayLike | None,
    permutations: int | Labels,
    rng: Rng,
    distances: Callable[[NDArray[Any], Labels, float], Any],
    in_units: bool = False,
) -> TwoSampleResult:
    a, b, unit = samples(x, y, paired)
    labels = labellings(len(a), len(b), permutations, rng, paired=paired, groups=groups)
    found = np.asarray(distances(np.concatenate([a, b]), labels, unit))
    return outcome(name, found, (a.shape, b.shape), paired, unit=unit if in_units else 1.0)
