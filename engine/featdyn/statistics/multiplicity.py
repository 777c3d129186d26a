"""Adjusted p-values of a family of tests, along any axis layout: checkpoints x cuts x probes are one family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values: those up to alpha reject with familywise error at most alpha.

    ``max_{j <= i} min(1, (n - j + 1) p_(j))`` over the sorted p-values (Holm 1979); valid under any dependence.

    Parameters
    ----------
    pvalues : any shape
        One family. NaN stands for a test that was not made: it stays NaN and does not count.
    """
    return _adjust(pvalues, _step_down)


def benjamini_hochberg(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return adjusted p-values: those up to alpha reject with false discovery rate at most alpha.

    Benjamini and Hochberg (1995), by SciPy; valid for independent or positively dependent tests. NaN as in
    :func:`holm`.
    """
    return _adjust(pvalues, lambda p: np.asarray(stats.false_discovery_control(p)))


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
