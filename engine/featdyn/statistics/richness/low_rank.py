"""The low-rank measure: how far features are from carrying the learned function alone, all of it equally strongly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn_kernels.moments import Moments

Values: TypeAlias = NDArray[np.float64]
Centring: TypeAlias = Literal["outputs", "projector"]
TOLERANCE = 1e-6
"""Directions of the outputs whose singular value is below this share of the largest do not count: our own choice."""
ROUNDING = 1e-12
"""Features or outputs that vary by less than this share of their size hold nothing but rounding: our own choice."""


@dataclass(frozen=True)
class LowRank:
    """The measure, with what it depends on beside what was learned."""

    value: float
    """``1 - CKA``: 0 where features are the learned function's alone (rich), 1 where they are unrelated to it. NaN
    where features or outputs do not vary."""
    features: int  # p
    samples: int  # N
    rank: int  # r, directions of the outputs
    reference: float  # of isotropic features of these p, N and r; NaN where the formula does not hold


def low_rank_measure(
    features: ArrayLike, outputs: ArrayLike, *, centring: Centring = "outputs", tolerance: float = TOLERANCE
) -> LowRank:
    """Return ``1 - CKA(T, T_MP)`` of Nam et al. (arXiv 2410.04264), through the smaller side of the features.

    ``T = Phi Phi^T`` is the kernel of the features, ``T_MP`` the projection on the span of the outputs. Neither labels
    nor the first network are needed. The measure does not change under rotations and multiples of the features,
    invertible maps of the outputs, and constants added to either. Few samples make it smaller; "not structured at all"
    is not 1, but the reference beside it, and values above that are possible.

    Parameters
    ----------
    features : (N, p)
    outputs : (N, C)
        Logits, or predictions of a regression.
    centring
        ``"outputs"``: centre the outputs, then project on their span. ``"projector"``: project on the span of the
        outputs as they are, then centre the projection. They agree where that span holds the constant, or is orthogonal
        to it. Which of them the source means is not known to us; the default is our own choice.
    tolerance
        Smallest singular value of the outputs that counts, over the largest: our own choice.

    Raises
    ------
    ValueError
        Shapes that do not fit, or values that are not finite.

    Examples
    --------
    >>> outputs = np.random.default_rng(0).normal(size=(200, 3))
    >>> spread = np.random.default_rng(1).normal(size=(200, 50))
    >>> round(low_rank_measure(outputs, outputs).value, 2), round(low_rank_measure(spread, outputs).value, 2)
    (0.0, 0.94)
    """
    checks.choice(centring, "centring", "outputs", "projector")
    checks.fraction(tolerance, "tolerance")
    phi, f = paired(features, outputs, "outputs")
    raw = f / unit(f)
    centred_features, centred_outputs = centred(phi), centred(raw)
    if not _varies(phi, centred_features) or not _varies(raw, centred_outputs):
        return _found(math.nan, 0, *phi.shape)
    phi = centred_features / unit(centred_features)
    basis, values, _ = np.linalg.svd(centred_outputs if centring == "outputs" else raw, full_matrices=False)
    basis = basis[:, values > tolerance * values[0]]
    rank = basis.shape[1]
    gram = phi.T @ phi if phi.shape[1] <= len(phi) else phi @ phi.T
    size = _projector_norm(rank, centring, float(len(phi) * np.square(basis.mean(0)).sum()))
    return _found(1 - float(np.square(basis.T @ phi).sum() / np.linalg.norm(gram) / size), rank, *phi.shape)


def of_moments(moments: Moments, *, centring: Centring = "outputs", tolerance: float = TOLERANCE) -> LowRank:
    """Return :func:`low_rank_measure` from the moments of features and outputs, merged over any blocks of samples.

    Accumulate them in float64: rounding in float32 would count as directions of outputs that sum to a constant. What a
    direction of share s of the largest adds is known to ``1e-16 / s^2``, so to four digits at the default tolerance.
    """
    shape = int(moments.count), len(moments.mean)
    s, b, own, mean = moments.scatter, moments.cross_scatter, moments.output_scatter, moments.output_mean
    if b is None or own is None or mean is None:
        raise ValueError("the moments must be of features and outputs")
    g = own if centring == "outputs" else moments.output_second
    if not all(np.isfinite(each).all() for each in (s, g, b)):
        raise ValueError("the moments must be finite")
    trace, spread = float(np.trace(s)), float(np.trace(own))
    of_means = [shape[0] * float(np.square(each).sum()) for each in (moments.mean, mean)]
    if trace <= ROUNDING**2 * (trace + of_means[0]) or spread <= ROUNDING**2 * (spread + of_means[1]):
        return _found(math.nan, 0, *shape)
    values, vectors = np.linalg.eigh(g)
    kept = values > tolerance**2 * values[-1]
    scaled = vectors[:, kept] / np.sqrt(values[kept])
    rank = int(kept.sum())
    size = _projector_norm(rank, centring, float(shape[0] * np.square(mean @ scaled).sum()))
    share = float(np.square(b @ scaled).sum()) / trace / (float(np.linalg.norm(s / trace)) * size)
    return _found(1 - share, rank, *shape)


def isotropic_reference(features: int, samples: int, rank: int) -> float:
    """Return the measure of isotropic Gaussian features, ``samples`` independent ones, that are read out linearly.

    Our own closed form, with n = N - 1: ``1 - sqrt(r) (n + p - r) / sqrt(n p (n + p + 1))``, from the means of the
    projected trace and of the squared norm of the scatter. In simulations of 5 to 64 features it was right to 0.003
    with 30 samples or more, at any rank; of fewer it is too high, by up to 0.01 of 20 and 0.04 of 8. NaN where the rank
    is above p or n, so that it cannot hold.
    """
    n = samples - 1
    if rank < 1 or rank > min(features, n):
        return math.nan
    shared = math.sqrt(rank) * (n + features - rank) / math.sqrt(n * features * (n + features + 1))
    return max(1 - shared, 0.0)


def paired(features: Any, others: Any, name: str) -> tuple[Values, Values]:
    """Return two arrays with a row for each sample, as float64; a vector of others is one column."""
    x = checks.finite(checks.matrix(features, "features", rows=1, columns=1, shape="(N, p)"), "features")
    y = np.asarray(others)
    y = checks.matrix(y[:, None] if y.ndim == 1 else y, name, rows=1, columns=1, shape="(N, C)")
    if len(x) != len(y):
        raise ValueError(f"{name} must have {len(x)} rows like features, got shape {y.shape}")
    return x.astype(np.float64), checks.finite(y, name).astype(np.float64)


def centred(x: Values) -> Values:
    """Return ``x (N, p)`` less its mean over the samples."""
    return np.asarray(x - x.mean(0))


def _projector_norm(rank: int, centring: Centring, of_constant: float) -> float:
    """Return the Frobenius norm of the projection; ``of_constant``: how much of the constant lies in its span."""
    return math.sqrt(rank) if centring == "outputs" else math.sqrt(max(rank - 1 + (1 - of_constant) ** 2, 0.0))


def _varies(x: Values, less_mean: Values) -> bool:
    return bool(np.abs(less_mean).max(initial=0) > ROUNDING * np.abs(x).max(initial=0))


def unit(x: Values) -> float:
    """Return a power of two near the largest magnitude, so that squares stay within float64."""
    return 2.0 ** checks.exponent(x)


def _found(value: float, rank: int, samples: int, features: int) -> LowRank:
    return LowRank(max(value, 0.0), features, samples, rank, isotropic_reference(features, samples, rank))
