"""Moments of a layer, fold by fold of a set's probes: one pass serves a measure and the interval about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.layer_vectors import EPS, pieces, vectors
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.rounded_away import rounded_away
from featdyn.analysis.status import ALIKE, DEAD, FEW, NOT_FINITE, ZERO
from featdyn.statistics.jackknife import folds, jackknife_interval
from featdyn.statistics.resampling import effective_number
from featdyn.store import ArraySpec, Run
from featdyn_kernels.moments import Moments, accumulate

Beside: TypeAlias = Callable[[int, NDArray[np.bool_], NDArray[np.intp]], dict[str, Any]]
"""What is accumulated beside the features of some probes, from (block, which of it, places in the run)."""
LEAST = 4
"""Folds that an interval needs: our own choice."""


def fold_of(sets: ProbeSets, s: int, count: int, seed: int, kinds: NDArray[Any] | None) -> NDArray[np.intp]:
    """Return ``(probe,)``, the fold of each probe of a set: whole images, every class in its share. -1 of others."""
    member, found = sets.members[s], np.full(len(sets.origins), -1)
    kind = None if kinds is None else kinds[member]
    found[member] = folds(int(member.sum()), count, seed + s, sets.origins[member], kind)
    return found


def folded(
    run: Run,
    spec: ArraySpec,
    t: int,
    members: Sequence[NDArray[np.bool_]],
    folds: Sequence[NDArray[np.intp]],
    beside: Beside,
) -> list[list[Moments]]:
    """Return for each set the moments of each fold of its probes at a checkpoint.

    ``members`` and ``folds``, ``(probe,)``, are of each set. A block is read once for all sets.
    """
    found: list[dict[int, Moments]] = [{} for _ in members]
    for block, mine, places in pieces(run, np.any(members, axis=0)):
        x, others = vectors(run, spec.path, t, block, mine), beside(block, mine, places)
        for member, fold, of_set in zip(members, folds, found, strict=True):
            own = member[places]
            for g in np.unique(fold[places[own]]).tolist():
                rows = own & (fold[places] == g)
                more = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in others.items()}
                with np.errstate(invalid="ignore", over="ignore"):
                    part = accumulate(x[rows], **more)
                    of_set[g] = of_set[g] + part if g in of_set else part
    return [[of_set[g] for g in sorted(of_set)] for of_set in found]


def whole(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all folds."""
    return reduce(add, parts)


def left_out(parts: Sequence[Moments]) -> Iterator[Moments]:
    """Yield the moments without each fold in turn."""
    if len(parts) > 1:
        for g in range(len(parts)):
            yield whole([part for i, part in enumerate(parts) if i != g])


def bounds(
    estimate: float,
    others: Sequence[float],
    valid: tuple[float, float] | None = (0.0, 1.0),
    sizes: Sequence[float] | None = None,
) -> tuple[float, float, str]:
    """Return the limits of a 95 % interval, and why there are none or "".

    Of what is positive and has no upper end (``valid`` is None) they are taken on a log scale. ``sizes`` are those of
    the folds, equal ones by default.
    """
    if len(others) < LEAST or not np.isfinite(others).all():
        return np.nan, np.nan, FEW
    if valid is None and min(estimate, *others) > 0:
        found = jackknife_interval(float(np.log(estimate)), np.log(others).tolist(), sizes=sizes)
        low, high = np.exp(found.low), np.exp(found.high)
    else:
        found = jackknife_interval(estimate, others, sizes=sizes, bounds=valid or (0.0, np.inf))
        low, high = found.low, found.high
    one = sizes is not None and effective_number(sizes) <= 1
    return float(low), float(high), "" if np.isfinite(high) else FEW if one else ALIKE


def rounded(spec: ArraySpec, moments: Moments) -> str:
    """Return why what varies of the features is lost in rounding, or ""."""
    if moments.count < 2:
        return ""
    return rounded_away(spec, np.asarray(moments.mean), moments.scatter.diagonal() / moments.count, averaged=True)


def flaw(moments: Moments) -> str:
    """Return why features have no measure, or ""; what float32 has rounded away does not count as variation."""
    if not np.isfinite(moments.scatter).all() or not np.isfinite(moments.mean).all():
        return NOT_FINITE
    if moments.count < 2:
        return FEW
    variance, mean = np.asarray(moments.scatter.diagonal()) / moments.count, np.abs(moments.mean)
    if not variance.any() and not mean.any():
        return ZERO
    return "" if (variance > (EPS * mean) ** 2).any() else DEAD  # each against its own size
