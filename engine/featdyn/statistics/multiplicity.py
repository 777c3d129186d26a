"""Adjusted p-values of a family of tests, along any axis layout: checkpoints x cuts x probes are one family.

p-values of R permutations are never below 1 / (R + 1), times the family's size after Holm: there :func:`westfall_young`
takes the statistics themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values: those up to alpha reject with familywise error at most alpha.

    ``max_{j <= i} min(1, (n - j + 1) p_(j))`` over the sorted p-values (Holm 1979); valid under any dependence. The
    family is of any shape. NaN stands for a test that was not made: it stays NaN and does not count.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    return _adjust(pvalues, _step_down)


def benjamini_hochberg(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return adjusted p-values: those up to alpha reject with false discovery rate at most alpha.

    Benjamini and Hochberg (1995), by SciPy; valid for independent or positively dependent tests. NaN as in
    :func:`holm`.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.04])
    """
    return _adjust(pvalues, lambda p: np.asarray(scipy.stats.false_discovery_control(p)))


def westfall_young(observed: ArrayLike, null: ArrayLike, *, two_sided: bool = False) -> NDArray[np.float64]:
    """Return step-down adjusted p-values from statistics under common relabellings (Westfall and Young 1993).

    The j-th largest statistic is compared with the maximum, in each relabelling, over it and all smaller ones: as small
    as ``1 / (R + 1)`` in a family of any size, with familywise error at most alpha under any dependence. Statistics are
    standardised by mean and deviation over all labellings, so that each counts alike.

    Parameters
    ----------
    observed : any shape
        Statistics of one family, large where they speak against the null; NaN for a test that was not made, which stays
        NaN and does not count.
    null : (R, *observed.shape)
        Row r of all tests is from one relabelling of the data. Of tests that were made it is finite, as they are.
    two_sided
        Small ones speak against it too.
    """
    first, rest = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if rest.shape[1:] != first.shape or len(rest) < 1:
        raise ValueError(f"null must have shape (R, {', '.join(map(str, first.shape))}), got {rest.shape}")
    found, made = np.full(first.shape, np.nan), ~np.isnan(first)
    if not made.any():
        return found
    checks.finite(first[made], "observed")
    values = np.concatenate([first[None, made], checks.finite(rest[:, made], "null")])
    values = values / (np.abs(values).max(axis=0) + (np.abs(values).max(axis=0) == 0))
    z, deviation = values - values.mean(axis=0), values.std(axis=0)
    varies = deviation > 1e-9
    z = np.where(varies, z / np.where(varies, deviation, 1.0), 0.0)
    z = np.abs(z) if two_sided else z
    order = np.argsort(z[0], kind="stable")
    maxima = np.maximum.accumulate(z[:, order], axis=1)
    share = (maxima >= z[0, order] - 1e-9).mean(axis=0)  # equal labellings differ by rounding
    adjusted = np.empty_like(share)
    adjusted[order] = np.maximum.accumulate(share[::-1])[::-1]
    found[made] = adjusted
    return found


def _step_down(p: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _adjust(pvalues: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    p = np.array(pvalues, dtype=np.float64)
    made = ~np.isnan(p)
    if ((p[made] < 0) | (p[made] > 1)).any():
        raise ValueError(f"pvalues {p.shape} must lie between 0 and 1")
    if made.any():
        p[made] = adjust(p[made])
    return p
