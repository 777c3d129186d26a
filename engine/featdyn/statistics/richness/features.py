"""What each eigenfunction of the feature kernel is good for, is used for, and how strong it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.alignment.spectrum import entropy_rank
from featdyn.statistics.richness.low_rank import TOLERANCE, Values, paired
from featdyn.statistics.rounding import noise_share, roundoff
from featdyn_kernels.moments import Moments

DIRECTIONS = 1e-10
"""Eigenvalues of the feature kernel below this share of the largest are dropped: our own choice."""


@dataclass(frozen=True)
class FeatureMetrics:
    """What the k leading of K eigenfunctions, strongest first, are good for (target) and used for (output)."""

    quality: NDArray[np.float64]  # (K,), share of each in the span of the targets
    utilisation: NDArray[np.float64]  # (K,), share of each in the span of the outputs
    cumulative_quality: NDArray[np.float64]  # (K,), how much of the targets the first k express
    cumulative_utilisation: NDArray[np.float64]  # (K,), how much of the learned function the first k carry
    intensity: NDArray[np.float64]  # (K,), eigenvalue over the largest
    effective_dimension: float  # exponential of the entropy of the eigenvalues
    target_rank: int
    output_rank: int
    directions: NDArray[np.float64]  # (p, K), from features to eigenfunctions

    def extend(self, features: ArrayLike) -> Values:
        """Return the eigenfunctions ``(M, K)`` at any points, new ones too, by their features ``(M, p)`` (Nystrom)."""
        wanted = len(self.directions)
        x = checks.matrix(features, "features", rows=1, columns=wanted, shape="(M, p)")
        if x.shape[1] != wanted:
            raise ValueError(f"features must have shape (M, {wanted}), got {x.shape}")
        return np.asarray(x.astype(np.float64) @ self.directions)


def feature_metrics(
    features: ArrayLike, outputs: ArrayLike, targets: ArrayLike, *, tolerance: float = TOLERANCE
) -> FeatureMetrics:
    """Return the feature metrics of Nam et al. (arXiv 2410.04264).

    With eigenfunctions ``e_k`` of the kernel ``Phi Phi^T / N``, not centred: quality is ``|P e_k|^2`` for the
    projection P on the span of the targets, utilisation the same for the outputs; cumulative forms are sums over the
    dimension of that span. The cumulative utilisation of all eigenfunctions is 1 where the outputs are a linear
    function of the features without a constant. The explicit formulas are our own reading.

    Parameters
    ----------
    features : (N, p)
    outputs : (N, C)
    targets : (N, K)
        One-hot labels, several labels at once, or numbers to be predicted.
    tolerance
        Smallest singular value of outputs or targets that counts, over the largest: our own choice.

    Raises
    ------
    ValueError
        Shapes that do not fit, values that are not finite, or features, outputs or targets that are all zero.
    """
    x, f = paired(features, outputs, "outputs")
    _, y = paired(features, targets, "targets")
    unit = roundoff(np.asarray(features).dtype)
    return of_moments(x.T @ x, x.T @ f, f.T @ f, x.T @ y, y.T @ y, len(x), tolerance=tolerance, unit=unit)


def of_moments(
    second: Values,
    output_cross: Values,
    output_second: Values,
    target_cross: Values,
    target_second: Values,
    count: int,
    *,
    tolerance: float = TOLERANCE,
    unit: float = 0.0,
) -> FeatureMetrics:
    """Return the same from sums over ``count`` samples of ``x x^T``, ``x f^T``, ``f f^T``, ``x y^T`` and ``y y^T``.

    Eigenfunctions that features rounded by the share ``unit`` may have from rounding alone are dropped.
    """
    values, vectors = np.linalg.eigh(second / count)
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[0] > 0:
        raise ValueError("features must not all be zero")
    mean_square = float(np.trace(second)) / count / len(second)
    noise = noise_share(unit, mean_square, (count, len(second)), float(np.sqrt(count * values[0])))
    kept = values > max(DIRECTIONS, noise**2) * values[0]
    rho = values[kept]
    directions = vectors[:, kept] / np.sqrt(rho)
    shares = []
    for name, cross, gram in (("outputs", output_cross, output_second), ("targets", target_cross, target_second)):
        scaled = _basis(gram, tolerance, name)
        shares.append((np.square(directions.T @ cross @ scaled).sum(1) / count, scaled.shape[1]))
    (used, output_rank), (good, target_rank) = shares
    used, good = (np.clip(share, 0, 1) for share in (used, good))
    return FeatureMetrics(
        quality=good,
        utilisation=used,
        cumulative_quality=np.cumsum(good) / target_rank,
        cumulative_utilisation=np.cumsum(used) / output_rank,
        intensity=rho / rho[0],
        effective_dimension=entropy_rank(rho),
        target_rank=target_rank,
        output_rank=output_rank,
        directions=directions,
    )


def one_hot_moments(moments: Moments) -> tuple[Values, Values]:
    """Return ``sum x y^T (p, K)`` and ``sum y y^T (K, K)`` for one-hot labels y, of moments with class sums."""
    return np.asarray(moments.class_sum).T, np.diag(np.asarray(moments.class_count, np.float64))


def _basis(gram: Values, tolerance: float, name: str) -> Values:
    """Return (C, r), which turns vectors with this Gram matrix into an orthonormal basis of their span."""
    values, vectors = np.linalg.eigh(gram)
    if not values[-1] > 0:
        raise ValueError(f"{name} must not all be zero")
    kept = values > tolerance**2 * values[-1]
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
