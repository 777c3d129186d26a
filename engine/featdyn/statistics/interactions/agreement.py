"""How far two sets of interactions, or two labellings of them, agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.ratio_of_sums import DRAWS
from featdyn.statistics.interactions.strength import Chosen
from featdyn.statistics.interactions.subsets import Values, alike, apart, by_order, divided
from featdyn.statistics.resampling import bootstrap_counts


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two labellings, with a 95 % interval by bootstrap over samples.

    ``kappa`` is NaN where one labelling is constant, as then nothing tells agreement from chance; ``reason`` says so.
    ``low`` and ``high`` are NaN where draws tell no spread.
    """

    kappa: float
    low: float
    high: float
    agreement: float  # share of equal labels
    labels: int  # how many interactions were labelled by both
    reason: str = ""


def cohens_kappa(
    first: ArrayLike, second: ArrayLike, chosen: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0
) -> Kappa:
    """Return Cohen's kappa (1960) of two labellings of the chosen interactions.

    Parameters
    ----------
    first, second : (sample, ...)
        Labels, 0 or 1, such as those of test-trained baselines and those of another architecture.
    chosen : (sample, ...)
        Which interactions count. Those of one sample are drawn together.
    groups : (sample,), optional
        Samples that are drawn together.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    kept = np.asarray(chosen, bool)
    alike(a, b, "first and second")
    alike(a, kept, "labels and chosen")
    if a.ndim < 1 or not np.isin(np.r_[a[kept], b[kept]], (0, 1)).all():
        raise ValueError(f"labels {a.shape} must be 0 or 1, of at least one sample")
    rows = [np.where(kept, x, False).reshape(len(a), -1).sum(1) for x in (a * b, a, b, np.ones_like(a))]
    sums = np.stack(rows, axis=1)  # both 1, first 1, second 1, all: of each sample
    kappa, agreement = _kappa(sums.sum(0))
    number = int(sums[:, 3].sum())
    nan = float("nan")
    if np.isnan(kappa):
        reason = "a labelling that is constant agrees by chance alone" if number else "nothing is chosen"
        return Kappa(nan, nan, nan, float(agreement), number, reason)
    drawn = _kappa(bootstrap_counts(len(a), DRAWS, seed, groups).astype(np.float64) @ sums)[0]
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) >= 0.9 * DRAWS else (nan, nan)
    if not apart(low, high):
        return Kappa(float(kappa), nan, nan, float(agreement), number, "samples drawn anew tell no spread")
    return Kappa(float(kappa), float(low), float(high), float(agreement), number)


def _kappa(sums: Values) -> tuple[Values, Values]:
    both, first, second, number = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        equal = 1 - (first + second - 2 * both) / number
        expected = (first * second + (number - first) * (number - second)) / number**2
        vary = (first > 0) & (first < number) & (second > 0) & (second < number)
        kappa = np.where(vary, (equal - expected) / (1 - expected), np.nan)
    return kappa, equal


def order_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return Pearson's correlation of two shares by order ``(n,)``, such as H and the decay's share, where both are
    known.

    NaN with fewer than 3 such orders, or where one does not vary.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    alike(a, b, "shares by order")
    known = np.isfinite(a) & np.isfinite(b)
    x, y = (v[known] - v[known].mean() if known.any() else v[known] for v in (a, b))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if known.sum() >= 3 and scale > 1e-12 else float("nan")


def shared_fraction(chosen: Sequence[Chosen]) -> NDArray[np.float64]:
    """Return ``|shared by all| / |own|`` of each of several networks' sets, ``(network, ...)`` (arXiv 2401.16318, def.
    1).

    ``chosen`` holds one set ``(..., 2, 2**n)`` for each network; NaN where a network's set is empty.
    """
    sets = np.stack([np.asarray(c, bool) for c in chosen])
    own = sets.sum((-2, -1)).astype(np.float64)
    shared = np.broadcast_to(sets.all(0).sum((-2, -1)), own.shape)
    return divided(shared, own)


def intersection_over_union(first: Chosen, second: Chosen) -> Values:
    """Return ``|both| / |either|`` of two sets for each order, ``(..., n)``; NaN where both are empty (arXiv
    2409.08712).
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    alike(a, b, "sets")
    either, both = (by_order(x.sum(-2).astype(np.float64)) for x in (a | b, a & b))
    return divided(both, either)


def jaccard_by_order(first: ArrayLike, second: ArrayLike) -> Values:
    """Return ``sum min / sum max`` of two arrays of interactions ``(..., 2, 2**n)`` for each order, ``(..., n)``.

    Positive and negative parts are kept apart, so that opposite signs overlap in nothing (the group's public code; with
    means of each category over train and test samples it is the overlap of arXiv 2302.13091). NaN where both are 0.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    alike(a, b, "interactions")
    up, down = (np.maximum(a, 0), np.maximum(b, 0)), (np.maximum(-a, 0), np.maximum(-b, 0))
    least, most = (by_order((f(*up) + f(*down)).sum(-2)) for f in (np.minimum, np.maximum))
    return divided(least, most)
