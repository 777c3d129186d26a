"""Generalizable and other strength told apart without test data: a decay plus a spindle over orders.

arXiv 2502.10162 takes strength by order for the sum of a decaying part, which generalizes, and a spindle, which does
not. Its formulas were not at hand: the decay taken here is the filter of learning under noise (:mod:`theory`), the
spindle that of a random network, fitted by least squares with weights >= 0: **featdyn's own choice**.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.subsets import Values, apart
from featdyn.statistics.interactions.theory import filter_norms, spindle
from featdyn.statistics.resampling import Interval, bootstrap_counts, bootstrap_limits, effective_groups

_NOISES = np.geomspace(1e-3, 10, 25)
"""The s2 that are tried: our own choice."""
_DRAWS = 500
"""Of samples, for intervals: our own choice."""
_BLOCK = 512  # targets that are fitted together


@dataclass(frozen=True)
class DecaySpindle:
    """The fit ``I^(k) = a decay(k; s2) + b spindle(k)``; both parts ``(n,)`` hold their weights.

    Attributes
    ----------
    decay, spindle : (n,)
        The two parts of the strength by order.
    share : Interval
        The decay's share of the fitted strength, with a 95 % interval by bootstrap over samples.
    by_order : (n,)
        The decay's share of each order.
    noise : Interval
        The s2 of the decay; it says little where the decay's share is small.
    r2 : float
        Of the strengths by order, about their mean; below about 0.9 neither shape describes them (featdyn's own bound).
    """

    decay: Values
    spindle: Values
    share: Interval
    by_order: Values
    noise: Interval
    r2: float


def decay(n: int, noise: float) -> Values:
    """Return the norm of the learning filter's rows for order 1 to n over their sum, ``(n,)``."""
    norms = filter_norms(n, noise)[1:]
    return np.asarray(norms / norms.sum())


def fit_decay_spindle(strength: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0) -> DecaySpindle:
    """Return the fit to ``strength (sample, n)``, n >= 4, of :func:`~strength.strength_by_order`.

    Raises
    ------
    ValueError
        If there are fewer than 4 orders for the 3 parameters, a value is negative or not finite, or all are 0.
    """
    found = np.asarray(strength, np.float64)
    if found.ndim != 2 or found.shape[1] < 4 or not len(found):
        raise ValueError(f"strength must have shape (sample, n) with n >= 4, got {found.shape}")
    if not (np.isfinite(found) & (found >= 0)).all() or not found.any():
        raise ValueError(f"strength {found.shape} must be finite, not negative and not all 0")
    n = found.shape[1]
    shapes = np.stack([np.stack([decay(n, float(s)), spindle(n)]) for s in _NOISES])  # (noise, 2, n)
    mean = found.mean(0)
    weights, which, left = _least_squares(shapes, mean[None])
    parts = weights[0][:, None] * shapes[which[0]]
    spread = float(((mean - mean.mean()) ** 2).sum())
    share, noise = _intervals(shapes, found, weights, which, groups, seed)
    return DecaySpindle(
        decay=parts[0],
        spindle=parts[1],
        share=share,
        by_order=parts[0] / parts.sum(0),  # each shape is positive at all orders
        noise=noise,
        r2=1 - float(left[0]) / spread if spread > 0 else float("nan"),
    )


def decay_shares(strength: ArrayLike, counts: ArrayLike | None = None) -> tuple[Values, Values]:
    """Return the decay's share of a strength ``(..., sample, n)``, ``(...)``, and of draws of its samples, ``(draw,
    ...)``.

    One set of ``counts (draw, sample)`` for all leading axes, such as checkpoints, makes curves of draws; NaN where all
    are 0.
    """
    found = np.asarray(strength, np.float64)
    n = found.shape[-1]
    shapes = np.stack([np.stack([decay(n, float(s)), spindle(n)]) for s in _NOISES])

    def share(targets: Values) -> Values:
        flat = targets.reshape(-1, n)
        some, result = flat.any(1), np.full(len(flat), np.nan)
        if some.any():
            weights = _least_squares(shapes, flat[some])[0]
            result[some] = weights[:, 0] / weights.sum(1)
        return result.reshape(targets.shape[:-1])

    if counts is None:
        return share(found.mean(-2)), np.zeros((0, *found.shape[:-2]))
    drawn = share(np.asarray(counts, np.float64) @ found)  # (..., draw)
    return share(found.mean(-2)), np.moveaxis(drawn, -1, 0)


def _intervals(
    shapes: Values, found: Values, weights: Values, which: NDArray[np.intp], groups: ArrayLike | None, seed: int
) -> tuple[Interval, Interval]:
    nan = float("nan")
    share, noise = float(weights[0, 0] / weights[0].sum()), float(_NOISES[int(which[0])])
    if len(found) < 2:
        return Interval(share, nan, nan), Interval(noise, nan, nan)
    draws = bootstrap_counts(len(found), _DRAWS, seed, groups).astype(np.float64) @ found
    some = draws.any(1)
    drawn, at, _ = _least_squares(shapes, draws[some])
    units, ends = effective_groups(groups, len(found)), (float(np.log(_NOISES[0])), float(np.log(_NOISES[-1])))
    low, high = bootstrap_limits(drawn[:, 0] / drawn.sum(1), share, units, bounds=(0, 1))
    between = np.exp(bootstrap_limits(np.log(_NOISES[at]), np.log(noise), units, bounds=ends))
    # Draws that all agree tell no spread; s2 is on a grid, on which they may well agree.
    if not apart(low, high):
        low = high = np.array(nan)
    return Interval(share, float(low), float(high)), Interval(noise, *between.tolist())


def _least_squares(shapes: Values, targets: Values) -> tuple[Values, NDArray[np.intp], Values]:
    """Return the best weights >= 0 ``(target, 2)`` of the two shapes, their s2's place and the squares left,
    ``(target,)``.
    """
    # All s2 of all targets at once are 100 times the targets' own size.
    parts = [_of_block(shapes, targets[start : start + _BLOCK]) for start in range(0, len(targets), _BLOCK)]
    weights, which, left = (np.concatenate(values) for values in zip(*parts, strict=True))
    return weights, which, left


def _of_block(shapes: Values, targets: Values) -> tuple[Values, NDArray[np.intp], Values]:
    gram = np.einsum("sik,sjk->sij", shapes, shapes)
    along = np.einsum("sik,tk->tsi", shapes, targets)
    det = gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2
    both = np.stack(
        [
            (gram[:, 1, 1] * along[..., 0] - gram[:, 0, 1] * along[..., 1]) / det,
            (gram[:, 0, 0] * along[..., 1] - gram[:, 0, 1] * along[..., 0]) / det,
        ],
        axis=-1,
    )
    alone = along / np.stack([gram[:, 0, 0], gram[:, 1, 1]], axis=-1)
    zero = np.zeros_like(alone[..., 0])
    candidates = np.stack(
        [both, np.stack([alone[..., 0], zero], -1), np.stack([zero, alone[..., 1]], -1)], axis=-2
    )  # (target, s2, candidate, 2)
    left = (
        (targets**2).sum(-1)[:, None, None]
        - 2 * (candidates * along[:, :, None]).sum(-1)
        + np.einsum("tsci,sij,tscj->tsc", candidates, gram, candidates)
    )
    left = np.where((candidates >= 0).all(-1), left, np.inf)
    flat = left.reshape(len(targets), -1)
    best = flat.argmin(1)
    which, kind = np.divmod(best, 3)
    rows = np.arange(len(targets))
    return candidates[rows, which, kind], which, flat[rows, best]
