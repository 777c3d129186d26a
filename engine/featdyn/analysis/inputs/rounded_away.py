"""Whether what varies over probes is more than the rounding of the type in which features were stored."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.layer_vectors import EPS
from featdyn.analysis.inputs.recorded_arrays import variables
from featdyn.statistics.rounding import rounding_share, roundoff
from featdyn.store import ArraySpec

LOST = 0.01
"""Share of the variance over probes from which it counts as lost in rounding: our own choice."""


def rounded_away(spec: ArraySpec, mean: NDArray[np.floating], variance: NDArray[np.floating], *, averaged: bool) -> str:
    """Return why features are lost in rounding to the type of their array, or "".

    ``mean`` and ``variance`` ``(p,)`` are over probes, each against the other; ``averaged`` ones are of means over
    positions. Variables that do not vary are left out, as nothing of theirs is measured.
    """
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return ""
    moving = variance > (EPS * np.abs(mean)) ** 2  # as analyses say which features vary
    if not moving.any():
        return constant(spec) if mean.any() else ""
    return lost(spec, float(np.square(mean[moving]).sum()), float(variance[moving].sum()), averaged=averaged)


def lost(spec: ArraySpec, mean_square: float, variance: float, *, averaged: bool) -> str:
    """Return why what varies is lost, by sums over the variables that do of squared means and of variances.

    In means over positions rounding averages out, the more the more positions: of them it is the least that is counted.
    """
    positions = prod(spec.shape[1:]) / variables(spec) if averaged else 1.0
    if rounding_share(roundoff(spec.dtype), mean_square + variance, variance) <= LOST * positions:
        return ""
    return f"lost_in_rounding_to_{spec.dtype}" + "_which_dtype_float32_keeps" * _narrow(spec)


def constant(spec: ArraySpec) -> str:
    """Return what is said of features other than zero that do not vary as stored, where others may have; else ""."""
    return f"constant_or_lost_in_rounding_to_{spec.dtype}_which_dtype_float32_tells" if _narrow(spec) else ""


def vectors_rounded_away(spec: ArraySpec, x: NDArray[np.floating], *, averaged: bool) -> str:
    """Return the same as :func:`rounded_away` of the features ``(n, p)`` themselves."""
    if len(x) < 2 or not np.isfinite(x).all():
        return ""
    mean = x.mean(0, dtype=np.float64)
    away = x - mean.astype(x.dtype)  # of their own type, as features may fill the memory
    largest = max(float(away.max()), -float(away.min())) or 1.0
    away /= largest  # squares stay within it, too
    variance = np.einsum("ij,ij->j", away, away).astype(np.float64) / len(x) * largest * largest
    return rounded_away(spec, mean, variance, averaged=averaged)


def _narrow(spec: ArraySpec) -> bool:
    return roundoff(spec.dtype) > roundoff("float32")
