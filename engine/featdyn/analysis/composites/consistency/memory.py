"""Memory, forgetting and their relatives, from which composites are right on which probe.

Every function takes ``right (t1, t2, n)``: whether the prefix of checkpoint t1 with the suffix of t2 gives the label of
probe n. All definitions are our own working definitions (feature dynamics, section 1.3): the exact ones of arXiv
2509.20334 were not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Right: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = NDArray[np.float64]


def accuracy(right: Right) -> Values:
    """Return A(t1, t2), the share of right probes, NaN where there is none; on training probes the empirical memory."""
    if not right.shape[-1]:
        return np.full(right.shape[:-1], np.nan)
    found: Values = right.mean(-1, dtype=np.float64)
    return found


def retention(right: Right) -> Values:
    """Return A(t1, t2) / A(t1, t1); NaN where the network of t1 is never right."""
    return _ratio(a := accuracy(right), np.diagonal(a)[:, None])


def forgetting(right: Right) -> Values:
    """Return max(0, A(t1, t1) - A(t1, t2))."""
    a = accuracy(right)
    return np.maximum(0, np.diagonal(a)[:, None] - a)


def particle_forgetting(right: Right) -> Values:
    """Return the share of probes that are right at (t1, t1) and wrong at (t1, t2)."""
    own = np.stack([right[t, t] for t in range(len(right))])
    return accuracy(own[:, None] & ~right)


def transferability(unseen: Right, train: Right) -> Values:
    """Return A(t1, t2; unseen) / A(t1, t2; train)."""
    return _ratio(accuracy(unseen), accuracy(train))


def horizon(right: Right) -> NDArray[np.int32]:
    """Return how many checkpoints back memory reaches without a gap, ``(t2, n)``.

    The largest s for which all prefixes from t2 - s to t2 are right with the suffix of t2; -1 where t2 itself is wrong.
    """
    found = [np.minimum.accumulate(right[t2::-1, t2]).sum(0, dtype=np.int32) - 1 for t2 in range(len(right))]
    return np.stack(found)


def horizon_steps(horizon: NDArray[np.int32], steps: NDArray[np.integer[Any]]) -> Values:
    """Return a horizon (t2, n) in training steps; NaN where it is -1."""
    t2 = np.arange(len(horizon))[:, None]
    reached = steps[t2] - steps[np.minimum(t2, t2 - horizon)]
    return np.where(horizon < 0, np.nan, reached)


def by_gap(right: Right, window: Sequence[int], lags: Sequence[int]) -> Values:
    """Return for each probe the share of right composites (t2 - s, t2) over the t2 of a window, ``(lag, n)``.

    A lag below 0 has a prefix that is newer than the suffix: old deep part on new shallow features, which may be what
    the paper calls induction. NaN where no pair of the window lies that far apart.
    """
    found = np.full((len(lags), right.shape[-1]), np.nan)
    for i, s in enumerate(lags):
        pairs = [right[t2 - s, t2] for t2 in window if 0 <= t2 - s < len(right)]
        if pairs:
            found[i] = np.mean(pairs, axis=0)
    return found


def bootstrap_retention(right: Right, counts: NDArray[np.float32]) -> tuple[Values, Values]:
    """Return 95 % percentile bounds ``(t1, t2)`` of the retention over resampled probes.

    Parameters
    ----------
    counts
        ``(draw, n)``, how often each draw holds each probe, of :func:`featdyn.statistics.resampling.bootstrap_counts`:
        the same for both accuracies, which are paired. Sums of whole numbers are exact, on any number of threads.
    """
    bounds = np.empty((2, *right.shape[:2]))
    for t1, of_t1 in enumerate(right):  # one row at a time: (draw, t2) and no more
        drawn = (counts @ of_t1.T.astype(np.float32)).astype(np.float64)
        ratios = _ratio(drawn, drawn[:, t1, None])
        bounds[:, t1] = np.quantile(ratios, (0.025, 0.975), axis=0)
    return bounds[0], bounds[1]


def _ratio(a: Values, b: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, a / b, np.nan)
