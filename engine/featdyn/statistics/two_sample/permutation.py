"""Permutation nulls: labels shuffled over the pooled points, or swapped within pairs; those of a group together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.two_sample.result import TwoSampleResult

Labels = NDArray[np.bool_]


def samples(x: ArrayLike, y: ArrayLike, paired: bool, least: int = 2) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return two samples (n, d) and (m, d), checked, in float32 where neither needs more, and the unit they are in.

    The unit is a power of two that brings the largest entry close to one: squares then stay in range, and no digit is
    lost.
    """
    a = checks.finite(checks.matrix(x, "x", rows=least, columns=1, shape="(n, d)"), "x")
    b = checks.finite(checks.matrix(y, "y", rows=least, columns=1, shape="(m, d)"), "y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x {a.shape} and y {b.shape} must share their columns")
    if paired and len(a) != len(b):
        raise ValueError(f"paired samples must have equally many rows, got {a.shape} and {b.shape}")
    single = max(a.dtype.itemsize, b.dtype.itemsize) <= 4 and {a.dtype.kind, b.dtype.kind} == {"f"}
    dtype = np.float32 if single else np.float64
    a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    exponent = max(checks.exponent(a), checks.exponent(b))
    return np.ldexp(a, -exponent), np.ldexp(b, -exponent), math.ldexp(1.0, exponent)


def labellings(
    n: int,
    m: int,
    permutations: int | Labels = 200,
    rng: Rng = None,
    *,
    paired: bool = False,
    groups: ArrayLike | None = None,
    within: Sequence[NDArray[np.intp]] = (),
) -> Labels:
    """Return labellings of n + m pooled points, (permutations + 1, n + m): the true one, then random ones.

    True marks the first sample. Give them to several tests instead of a number of permutations, and their nulls belong
    together, as :func:`featdyn.statistics.multiplicity.westfall_young` needs.

    Parameters
    ----------
    n, m
        Sizes of the samples, whose points are pooled in this order.
    permutations
        How many random labellings, at least 1; or the labellings themselves, which are checked.
    rng
        Generator or seed; 0 by default.
    paired
        Swap the labels of i and n + i by a coin instead of shuffling all: what pairs of the same item ask for.
    groups : (n,) for pairs, else (n + m,), optional
        Origin of each pair or point (the image of a corruption): those of one are labelled alike, as whole groups are
        what the null exchanges. Without pairs a group lies in one sample.
    within
        Sets of points that are shuffled each for itself, which together are all points; not for pairs.
    """
    if isinstance(permutations, np.ndarray):
        right = permutations.dtype == bool and permutations.ndim == 2 and len(permutations) > 1
        if not right or not np.array_equal(permutations[0], np.arange(n + m) < n):
            raise ValueError(f"permutations must be a number or labellings (R + 1, {n + m}), the true one first")
        return permutations
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    draw, labels = generator(rng), np.tile(np.arange(n + m) < n, (permutations + 1, 1))
    member = checks.groups(groups, n if paired else n + m)
    units = int(member.max()) + 1
    if paired:
        labels[1:, :n] = (draw.random((permutations, units)) < 0.5)[:, member]
        labels[1:, n:] = ~labels[1:, :n]
        return labels
    if (np.unique(member[:n])[:, None] == np.unique(member[n:])).any():
        raise ValueError("a group lies in both samples: give its rows as pairs")
    for points in within or [np.arange(n + m)]:
        _, first, of_point = np.unique(member[points], return_index=True, return_inverse=True)  # a point of each group
        place = np.argsort(np.argsort(first))[of_point]
        labels[1:, points] = draw.permuted(labels[1:, points[np.sort(first)]], axis=1)[:, place]
    return labels


def halved(
    n: int, m: int, permutations: int | Labels, draw: np.random.Generator, paired: bool, groups: ArrayLike | None
) -> tuple[list[NDArray[np.intp]], Labels]:
    """Return the pooled points of a random half of each sample, and of the other, and labellings within them.

    Groups and pairs stay whole.
    """
    member = checks.groups(groups, n if paired else n + m)
    first = _order(member[:n], draw)
    second = first if paired else _order(member[n:], draw)
    split = [np.concatenate([first[i], n + second[i]]) for i in (0, 1)]
    if not paired and isinstance(permutations, np.ndarray):
        raise ValueError("permutations must be a number where rows are no pairs: labels are shuffled within halves")
    return split, labellings(n, m, permutations, draw, paired=paired, groups=groups, within=split)


def _order(member: NDArray[np.intp], draw: np.random.Generator) -> list[NDArray[np.intp]]:
    """Return the points of every other group in a random order of groups, and those of the others."""
    units, of_point = np.unique(member, return_inverse=True)
    place = np.argsort(draw.permutation(len(units)))[of_point]
    order = np.argsort(place, kind="stable")
    return [order[place[order] % 2 == i] for i in (0, 1)]


def outcome(
    name: str,
    values: NDArray[np.float64],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    paired: bool,
    extras: Mapping[str, float] | None = None,
    unit: float = 1.0,
) -> TwoSampleResult:
    """Return the result from the statistic, in some unit, under the true labelling and under the random ones.

    ``p = (1 + #{random >= true}) / (1 + permutations)`` is exact: under the null all labellings are alike.
    """
    observed, null = float(values[0]), values[1:]
    slack = 1e-9 * float(np.abs(values).max())  # equal labellings differ by rounding
    pvalue = (1 + int((null >= observed - slack).sum())) / (1 + len(null))
    (n, d), (m, _) = shapes
    deviation = unit * float(null.std(ddof=1)) if len(null) > 1 else float("nan")
    mean = unit * float(null.mean())
    return TwoSampleResult(name, unit * observed, pvalue, mean, deviation, n, m, d, paired, extras or {}, unit * null)
