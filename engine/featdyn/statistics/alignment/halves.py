"""Directions of one half of the draws, seen by the other half: what few draws find by chance does not come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.result import Center

_NOTHING = 1e-12
"""Share of the largest variance that is rounding: our own choice."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Halves:
    """The k main directions of two random halves of the draws, each (len(k),); NaN where a half does not hold k."""

    k: NDArray[np.int64]  # number of directions
    overlap: Values  # ``|V' W|_F^2 / k`` of the directions V and W of both halves, their mean squared cosine
    held_out: Values  # the part of a half's variance along the directions of the other half, mean of both ways
    random: Values  # ``k / p``, the mean of both for isotropic noise, whatever its lengths
    held_out_high: Values  # 95 % point of ``held_out`` for isotropic noise with the lengths of these draws, a Beta law


def split_halves(x: Draws, k: Sequence[int] = (1, 5, 10), *, center: Center = "estimated", rng: Rng = None) -> Halves:
    """Return how well half of the draws tells where the other half lies.

    Parameters
    ----------
    k
        Numbers of directions, at least 1.
    center
        ``"estimated"``: each half about its own mean. ``"known"``: zero.

    Notes
    -----
    For isotropic noise the directions of one half are uniform and independent of the other half, with second moment
    ``C``: the share of its variance has mean ``k / p`` and variance ``2k(p-k) / (p(p-1)(p+2)) [tr C^2 / (tr C)^2 -
    1/p]``. The Beta law of these is featdyn's own approximation; that of the mean of both ways takes them to be one.
    """
    c, ks = centred(x, center), np.asarray(k, dtype=np.int64)
    order = generator(rng).permutation(c.n)
    with one_thread(min(c.rows.shape)):
        (one, v), (two, w) = (_principal(c.rows[half], center) for half in (order[: c.n // 2], order[c.n // 2 :]))
    most = min(v.shape[1], w.shape[1])
    if not most:  # one draw about its own mean, or equal ones
        none = np.full(len(ks), np.nan)
        return Halves(ks, none, none, np.minimum(ks / c.p, 1.0), none)
    held = (ks <= most) & (ks < c.p)
    kept = np.minimum(ks, most) - 1
    cosines = np.square(v.T @ w)
    shares = [
        np.cumsum(np.square(rows @ basis).sum(axis=0))[kept] / np.square(rows).sum()
        for rows, basis in ((one, w), (two, v))
    ]
    overlap = np.array([cosines[: i + 1, : i + 1].sum() / (i + 1) for i in kept])
    concentration = float(np.mean([_concentration(rows) for rows in (one, two)]))
    high = np.array([_high(c.p, int(i), concentration) if i < c.p else np.nan for i in ks])
    shown = np.minimum(overlap, 1), np.minimum(np.mean(shares, axis=0), 1), high  # but for rounding they are no more
    found = [np.where(held, values, np.nan) for values in shown]
    return Halves(ks, found[0], found[1], np.minimum(ks / c.p, 1.0), found[2])


def _principal(rows: Values, center: Center) -> tuple[Values, Values]:
    """Return the rows about their centre, and their principal directions (r, rank), largest first."""
    if center == "estimated":
        rows = rows - rows.mean(axis=0)
    _, scale, turned = np.linalg.svd(rows, full_matrices=False)
    return rows, turned[np.square(scale) > _NOTHING * np.square(scale[0])].T


def _concentration(rows: Values) -> float:
    """Return ``tr C^2 / (tr C)^2`` of the second moment of the rows."""
    squares = np.square(np.linalg.svd(rows, compute_uv=False))
    return float(np.square(squares).sum() / squares.sum() ** 2)


def _high(p: int, k: int, concentration: float) -> float:
    mean = k / p
    variance = 2 * k * (p - k) / (p * (p - 1) * (p + 2)) * max(concentration - 1 / p, 1e-12)
    size = mean * (1 - mean) / variance - 1
    return float(scipy.stats.beta.isf(0.05, mean * size, (1 - mean) * size))
