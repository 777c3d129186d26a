"""How far the kernel of the features has moved from that of another network, above all the one at the start."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.richness.low_rank import ROUNDING, Values, centred, paired, unit
from featdyn_kernels.moments import Moments


@dataclass(frozen=True)
class KernelDeviation:
    """Similarity of two kernels, and 1 less each; which of them Nam et al. (S_init) mean is not known to us."""

    similarity: float  # centred (linear CKA)
    deviation: float  # 1 - similarity
    cosine: float  # of the kernels as they are, <K0, Kt> / (|K0| |Kt|)
    cosine_deviation: float


def kernel_deviation(first: ArrayLike, features: ArrayLike) -> KernelDeviation:
    """Return how far the kernel of features ``(N, p)`` is from that of the ``first`` ``(N, q)`` of the same samples.

    NaN where either do not vary (centred), or are all zero (cosine).
    """
    x, y = paired(features, first, "first")
    x, y = x / unit(x), y / unit(y)
    a, b = centred(x), centred(y)
    still = any(np.abs(part).max() <= ROUNDING * np.abs(whole).max() for part, whole in ((a, x), (b, y)))
    similarity = math.nan if still else _ratio(a.T @ b, _smaller(a), _smaller(b))
    cosine = _ratio(x.T @ y, _smaller(x), _smaller(y))
    return KernelDeviation(similarity, 1 - similarity, cosine, 1 - cosine)


def of_moments(moments: Moments) -> KernelDeviation:
    """Return the same from the moments of features whose "outputs" are the first network's features."""
    if moments.cross_scatter is None or moments.output_scatter is None:
        raise ValueError("the moments must have the first network's features as their outputs")
    parts = (moments.scatter, moments.second), (moments.output_scatter, moments.output_second)
    still = any(np.trace(scatter) <= ROUNDING**2 * np.trace(second) for scatter, second in parts)
    similarity = math.nan if still else _ratio(moments.cross_scatter, moments.scatter, moments.output_scatter)
    cosine = _ratio(moments.cross, moments.second, moments.output_second)
    return KernelDeviation(similarity, 1 - similarity, cosine, 1 - cosine)


def _smaller(x: Values) -> Values:
    """Return the Gram matrix of the smaller side, whose Frobenius norm is that of the other's."""
    return np.asarray(x.T @ x if x.shape[1] <= len(x) else x @ x.T)


def _ratio(cross: Values, own: Values, other: Values) -> float:
    size = float(np.linalg.norm(own)) * float(np.linalg.norm(other))
    return min(float(np.square(cross).sum()) / size, 1.0) if size > 0 else math.nan
