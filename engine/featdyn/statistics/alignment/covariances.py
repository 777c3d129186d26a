"""Two covariances beside each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.result import Center

_BLOCK = 2**20  # entries of one float64 block of columns


def covariance_cosine(
    x: ArrayLike, y: ArrayLike, *, center: Center = "estimated", remove_isotropic: bool = False
) -> float:
    """Return ``tr(A B) / (|A|_F |B|_F)`` of the sample covariances A and B of two sets of draws.

    No p x p matrix is formed: all three terms come from inner products of the draws.

    Parameters
    ----------
    x, y : (n, p), (m, p)
        Draws in the same coordinates; numbers of rows may differ.
    center
        ``"estimated"`` or ``"known"`` (zero), for both.
    remove_isotropic
        First take ``(tr / p) I`` from both: what is left tells directions apart, also of nearly isotropic noise, which
        has a cosine near one with any other otherwise.

    Notes
    -----
    With few draws (n << p) both norms are inflated by sampling, which pulls the cosine towards zero: compare with that
    of two halves of the same draws.
    """
    a = checks.finite(checks.matrix(x, "x", rows=2, columns=2), "x")
    b = checks.finite(checks.matrix(y, "y", rows=2, columns=2, shape="(m, p)"), "y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x {a.shape} and y {b.shape} must share their columns")
    p = a.shape[1]
    if p < max(len(a), len(b)):  # |X Y'|^2 = <X'X, Y'Y>: the smaller side is that of the coordinates
        aa, bb = (_scatter(z, center) for z in (a, b))
        cross = np.vdot(aa, bb)
    else:
        aa, bb, ab = (_products(*pair, center) for pair in ((a, a), (b, b), (a, b)))
        cross = np.vdot(ab, ab)
    traces = np.trace(aa), np.trace(bb)
    if min(traces) <= 0:
        raise ValueError(f"x {a.shape} and y {b.shape} must vary")
    removed = 1 / p if remove_isotropic else 0.0
    numerator = cross - removed * traces[0] * traces[1]
    squares = [np.vdot(g, g) - removed * t * t for g, t in zip((aa, bb), traces, strict=True)]
    if min(squares[0] / traces[0] ** 2, squares[1] / traces[1] ** 2) < 1e-14:
        raise ValueError("one of the covariances is isotropic: nothing is left to compare")
    return float(numerator / np.sqrt(squares[0] * squares[1]))


def _scatter(z: NDArray[np.floating], center: Center) -> NDArray[np.float64]:
    rows = np.array(z, dtype=np.float64)
    if center == "estimated":
        rows -= rows.mean(axis=0)
    return rows.T @ rows


def _products(a: NDArray[np.floating], b: NDArray[np.floating], center: Center) -> NDArray[np.float64]:
    """Return the inner products of the draws about their centres, in float64, block by block of columns."""
    total = np.zeros((len(a), len(b)))
    width = max(1, _BLOCK // max(len(a), len(b)))
    for start in range(0, a.shape[1], width):
        u, v = (np.array(z[:, start : start + width], dtype=np.float64) for z in (a, b))
        if center == "estimated":
            u -= u.mean(axis=0)
            v -= v.mean(axis=0)
        total += u @ v.T
    return total
