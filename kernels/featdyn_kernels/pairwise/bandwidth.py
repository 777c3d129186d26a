"""The median heuristic for a Gaussian kernel's bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import is_tensor, to_numpy
from featdyn_kernels._tiles.points import unit_of

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array


def median_bandwidth(*samples: Array, max_points: int = 1000, seed: int = 0) -> float:
    """Return the median distance between two points of the pooled samples, a common default for a Gaussian kernel.

    It does not depend on which point is in which sample, so one value serves a test and its permutations. Samples are
    (N, d), of equal d. Of more than ``max_points`` points a random subset of this size is used, drawn with ``seed``:
    the median of ``max_points**2 / 2`` distances. Raises ValueError if half of the points or more coincide, so that the
    median is zero.
    """
    from scipy.spatial.distance import pdist  # slow to import, and few callers need it

    for x in samples:
        require_ndim(x, "samples", 2, "(N, d)")
    require(len({x.shape[1] for x in samples}) == 1, "samples must share their last axis")
    sizes = [len(x) for x in samples]
    total = sum(sizes)
    require(total > 1, f"samples must hold at least two points, got {total}")
    picked = np.sort(np.random.default_rng(seed).permutation(total)[:max_points])
    parts = []
    for x, end in zip(samples, np.cumsum(sizes), strict=True):
        rows = picked[(picked >= end - len(x)) & (picked < end)] - (end - len(x))
        parts.append(to_numpy(x[rows.tolist()] if is_tensor(x) else np.asarray(x)[rows]).astype(np.float64))
    pooled = np.concatenate(parts)
    require(bool(np.isfinite(pooled).all()), "samples must be finite")
    unit = unit_of(pooled)
    median = float(np.median(pdist(pooled / unit))) * unit
    require(median > 0.0, "the median distance is zero: half of the points coincide; give a bandwidth")
    return median
