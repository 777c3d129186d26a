"""How much of the gap between test and training loss non-generalizable interactions make.

With v the log-odds of the true class, cross-entropy is exactly ``softplus(-v)``, so that interactions can be taken out
of the loss. What is taken out, and from which of both losses, is **featdyn's own reading** of arXiv 2505.06993.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.extraction import AndOr
from featdyn.statistics.interactions.ratio_of_sums import DRAWS
from featdyn.statistics.interactions.strength import salient
from featdyn.statistics.interactions.subsets import Values, alike, apart, by_order
from featdyn.statistics.resampling import Interval, bootstrap_counts, bootstrap_limits, effective_groups


@dataclass(frozen=True)
class LossGap:
    """Losses ``(..., 2)`` of train and test samples, gaps ``(...)`` of test over train, with 95 % bootstrap intervals.

    Attributes
    ----------
    loss, loss_without : as recorded, and without the non-generalizable interactions
    gap, gap_without : test less train of both
    explained : ``gap - gap_without``, of the same draws; an interval above 0 says that these interactions widen the gap
    by_order : ``(..., n)``, how much the gap falls when those of one order alone are taken out; they need not add up
    """

    loss: Values
    loss_without: Values
    gap: Interval
    gap_without: Interval
    explained: Interval
    by_order: Interval


def cross_entropy(v: ArrayLike) -> Values:
    """Return ``log(1 + exp(-v))``, the cross-entropy in nats of a sample with log-odds v of its true class."""
    return np.asarray(np.logaddexp(0.0, -np.asarray(v, np.float64)))


def log_odds(logits: ArrayLike, labels: ArrayLike) -> Values:
    """Return ``log(p / (1 - p))`` of the true class, ``(...)``, from ``logits (..., class)`` without ever forming p.

    ``labels (...)`` are class numbers. At least two classes are needed.
    """
    z = np.asarray(logits, np.float64)
    at = np.broadcast_to(np.asarray(labels), z.shape[:-1])[..., None]
    if z.shape[-1] < 2 or at.dtype.kind not in "iu" or (at.size and not 0 <= at.min() <= at.max() < z.shape[-1]):
        raise ValueError(f"logits {z.shape} need at least 2 classes, and labels that are numbers of them")
    own = np.take_along_axis(z, at, -1)[..., 0]
    others = np.where(np.arange(z.shape[-1]) == at, -np.inf, z)
    return np.asarray(own - np.logaddexp.reduce(others, axis=-1))


def loss_gap(
    train: AndOr,
    train_labels: ArrayLike,
    test: AndOr,
    test_labels: ArrayLike,
    *,
    chosen: tuple[ArrayLike, ArrayLike] | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    seed: int = 0,
) -> LossGap:
    """Return the gap with and without the non-generalizable interactions.

    Parameters
    ----------
    train, test : AndOr, (..., sample, 2**n)
        Of log-odds, on training and on test samples; their numbers of samples may differ.
    train_labels, test_labels : (..., sample, 2, 2**n)
        Of :func:`~generalization.generalizable`; 1 - label of each interaction is taken out.
    chosen : two of (..., sample, 2, 2**n), optional
        Which interactions count in train and in test; salient ones by default. Others stay.
    groups : two of (sample,), optional
        Samples that are drawn together.
    """
    sets = (salient(train), salient(test)) if chosen is None else chosen
    losses, without, alone = [], [], []
    for model, labels, kept in zip((train, test), (train_labels, test_labels), sets, strict=True):
        label = np.asarray(labels, np.float64)
        alike(label, model.both, "labels and interactions")
        # In the unmasked sample every interaction is active.
        out = by_order((model.both * np.asarray(kept, bool) * (1 - label)).sum(-2))
        full = model.full
        losses.append(cross_entropy(full))
        without.append(cross_entropy(full - out.sum(-1)))
        alone.append(cross_entropy(full[..., None] - out))
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=2)
    each = groups or (None, None)
    # The smaller of both numbers: which samples the gap varies with is not asked.
    units = min(effective_groups(g, x.shape[-1]) for x, g in zip(losses, each, strict=True))
    counts = [
        bootstrap_counts(x.shape[-1], DRAWS, int(s), g).astype(np.float64) if x.shape[-1] > 1 else None
        for x, s, g in zip(losses, seeds, each, strict=True)
    ]

    def gap(values: list[Values]) -> tuple[Values, Values | None]:
        """Return the gap and its draws of values (..., sample, k): (..., k) and (..., draw, k)."""
        drawn = [None if c is None else c @ x / c.sum(1)[:, None] for c, x in zip(counts, values, strict=True)]
        point = values[1].mean(-2) - values[0].mean(-2)
        return point, None if drawn[0] is None or drawn[1] is None else drawn[1] - drawn[0]

    def interval(found: tuple[Values, Values | None]) -> Interval:
        point, drawn = found
        if drawn is None:
            return Interval(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
        low, high = bootstrap_limits(drawn, point, units, axis=-2)
        known = apart(low, high)
        return Interval(point, np.where(known, low, np.nan), np.where(known, high, np.nan))

    def single(values: list[Values]) -> Interval:
        found = interval(gap([x[..., None] for x in values]))
        return Interval(found.estimate[..., 0], found.low[..., 0], found.high[..., 0])

    return LossGap(
        loss=np.stack([x.mean(-1) for x in losses], axis=-1),
        loss_without=np.stack([x.mean(-1) for x in without], axis=-1),
        gap=single(losses),
        gap_without=single(without),
        explained=single([a - b for a, b in zip(losses, without, strict=True)]),
        by_order=interval(gap([a[..., None] - b for a, b in zip(losses, alone, strict=True)])),
    )
