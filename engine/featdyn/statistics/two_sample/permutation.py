"""Permutation nulls: labels shuffled over the pooled points, or swapped within pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.two_sample.result import TwoSampleResult


def samples(x: ArrayLike, y: ArrayLike, paired: bool, least: int = 2) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two samples (n, d) and (m, d), checked; in float32 where neither needs more."""
    a = checks.finite(checks.matrix(x, "x", rows=least, columns=1, shape="(n, d)"), "x")
    b = checks.finite(checks.matrix(y, "y", rows=least, columns=1, shape="(m, d)"), "y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x {a.shape} and y {b.shape} must share their columns")
    if paired and len(a) != len(b):
        raise ValueError(f"paired samples must have equally many rows, got {a.shape} and {b.shape}")
    dtype = (
        np.float32 if max(a.dtype.itemsize, b.dtype.itemsize) <= 4 and {a.dtype.kind, b.dtype.kind} == {"f"} else float
    )
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


def labellings(
    n: int, m: int, count: int, rng: np.random.Generator, *, paired: bool, within: Sequence[NDArray[np.intp]] = ()
) -> NDArray[np.bool_]:
    """Return labellings of n + m pooled points, (count + 1, n + m): the true one, then random ones.

    True marks the first sample.

    Parameters
    ----------
    n, m
        Sizes of the samples; pooled points are the first sample's, then the second's.
    count
        Random labellings, at least 1.
    rng
        Their source.
    paired
        Swap the labels of i and n + i by a coin instead of shuffling all: what pairs of the same item ask for.
    within
        Sets of points that are shuffled each for itself, which together are all points; not for pairs.
    """
    if count < 1:
        raise ValueError(f"permutations must be at least 1, got {count}")
    labels = np.tile(np.arange(n + m) < n, (count + 1, 1))
    if paired:
        labels[1:, :n] = rng.random((count, n)) < 0.5
        labels[1:, n:] = ~labels[1:, :n]
        return labels
    for points in within or [np.arange(n + m)]:
        labels[1:, points] = rng.permuted(labels[1:, points], axis=1)
    return labels


def outcome(
    name: str,
    values: NDArray[np.float64],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    paired: bool,
    extras: Mapping[str, float] | None = None,
) -> TwoSampleResult:
    """Return the result from the statistic under the true labelling and under the random ones.

    ``p = (1 + #{random >= true}) / (1 + permutations)`` is exact: under the null all labellings are alike.
    """
    observed, null = float(values[0]), values[1:]
    slack = 1e-9 * float(np.abs(values).max())  # equal labellings differ by rounding
    pvalue = (1 + int((null >= observed - slack).sum())) / (1 + len(null))
    (n, d), (m, _) = shapes
    deviation = float(null.std(ddof=1)) if len(null) > 1 else float("nan")
    return TwoSampleResult(name, observed, pvalue, float(null.mean()), deviation, n, m, d, paired, extras or {})
