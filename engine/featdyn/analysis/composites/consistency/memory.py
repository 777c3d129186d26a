"""Memory, forgetting and their relatives, from which composites are right on which probe.

Functions take ``right (t1, t2, n)``: whether the prefix of checkpoint t1 with the suffix of t2 gives the label of probe
n, and those of shares ``known``, of the same shape: whether it gives a class at all. Shares are of the probes that have
one. All definitions are our own working definitions (feature dynamics, section 1.3): the exact ones of arXiv 2509.20334
were not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.composites.predictions import share

Right: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = NDArray[np.float64]


def accuracy(right: Right, known: Right) -> Values:
    """Return A(t1, t2), the share of right probes, NaN where there is none; on training probes the empirical memory."""
    return share(right, known)


def forgetting(right: Right, known: Right) -> Values:
    """Return max(0, A(t1, t1) - A(t1, t2)), both of the probes that have both predictions."""
    both = known & own(known)
    return np.maximum(0, share(np.broadcast_to(own(right), right.shape), both) - share(right, both))


def particle_forgetting(right: Right, known: Right) -> Values:
    """Return the share of probes that are right at (t1, t1) and wrong at (t1, t2)."""
    return share(own(right) & ~right, known & own(known))


def own(values: Right) -> Right:
    """Return what is so at (t1, t1), ``(t1, 1, n)``."""
    return np.stack([values[t, t] for t in range(len(values))])[:, None]


def transferability(a: Values, b: Values) -> Values:
    """Return the accuracy A(t1, t2) on unseen probes over that on training probes; NaN where no training probe is
    right.
    """
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def horizon(right: Right) -> NDArray[np.int32]:
    """Return how many checkpoints back memory reaches without a gap, ``(t2, n)``.

    The largest s for which all prefixes from t2 - s to t2 are right with the suffix of t2; -1 where t2 itself is wrong.
    """
    found = [np.minimum.accumulate(right[t2::-1, t2]).sum(0, dtype=np.int32) - 1 for t2 in range(len(right))]
    return np.stack(found)


def horizon_steps(horizon: NDArray[np.int32], steps: NDArray[np.integer[Any]]) -> Values:
    """Return a horizon (t2, n) in training steps; NaN where it is -1."""
    t2 = np.arange(len(horizon))[:, None]
    return np.where(horizon < 0, np.nan, steps[t2] - steps[np.minimum(t2, t2 - horizon)])


def by_gap(right: Right, known: Right, window: Sequence[int], lags: Sequence[int]) -> Values:
    """Return for each probe the share of right composites (t2 - s, t2) over the t2 of a window, ``(lag, n)``.

    A lag below 0 has a prefix that is newer than the suffix: old deep part on new shallow features, which may be what
    the paper calls induction. NaN where no pair of the window lies that far apart, or none of them has a prediction.
    """
    found = np.full((len(lags), right.shape[-1]), np.nan)
    for i, s in enumerate(lags):
        pairs = [(t2 - s, t2) for t2 in window if 0 <= t2 - s < len(right)]
        if pairs:
            found[i] = share(*(np.stack([of[pair] for pair in pairs], -1) for of in (right, known)))
    return found
