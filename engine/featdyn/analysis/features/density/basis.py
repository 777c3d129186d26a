"""The common principal basis of a cut's features at all checkpoints, and their points in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.statistics import Gram, checks
from featdyn_kernels.eigh import eigh

WIDTH = 50
"""Principal components in which the distances of more than three dimensions are taken: our own choice."""
FITTED = 1000
"""Rows, evenly over checkpoints, that a basis is fitted on: our own choice."""

ROUNDING = 1e-6
"""What rounding leaves of equal features, as a share of them: our own choice."""

Rows: TypeAlias = list[list[NDArray[np.float32]]]  # of each cut, a checkpoint's after the other


@dataclass(frozen=True)
class Basis:
    """The common principal basis of all checkpoints of one cut and set."""

    axes: NDArray[np.float32]  # (F, components), largest variance first
    explained: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Basis:
        """Fit the basis to the finite rows of ``(n, F)``, of all checkpoints, by their inner products."""
        rows = rows[np.isfinite(rows).all(1)]
        exponent = checks.exponent(rows)
        rows = np.ldexp(rows, -exponent) if abs(exponent) > 40 else rows
        if len(rows) < 3:  # a covariance is that of its rows, however often each is there
            rows = np.tile(rows if len(rows) else np.zeros((1, rows.shape[1]), np.float32), (3, 1))
        if np.ptp(rows, axis=0).max() <= np.abs(rows).max() * np.finfo(np.float32).eps:
            rows = np.zeros_like(rows)  # nothing varies, and rounding is no direction
        rows -= rows.mean(0, dtype=np.float64)  # they are a copy
        products = Gram.of(rows).centred
        values, vectors = (np.asarray(found)[..., ::-1] for found in eigh(products, min(WIDTH, *rows.shape)))
        kept = values > values[0] * len(rows) * np.finfo(np.float64).eps
        kept[0] = True  # also where nothing varies
        axes = rows.T @ vectors[:, kept].astype(np.float32)
        if values[0] > 0:  # axes of little variance are not orthogonal in float32, and distances would not be kept
            axes, triangle = np.linalg.qr(axes.astype(np.float64))
            axes *= np.where(triangle.diagonal() < 0, -1, 1)
        return cls(axes.astype(np.float32), np.maximum(values[kept], 0) / (np.trace(products) or 1.0))


@dataclass(frozen=True)
class Points:
    """Features of one checkpoint in a basis, about a centre of their own: one of another scale costs them no digit."""

    away: NDArray[np.float32]  # (probe, component), from the centre
    centre: NDArray[np.float64]  # (component,), where one of the features lies
    rounding: NDArray[np.float64]  # (component,), what rounding leaves of equal features
    varies: bool  # whether features do, in the basis or beside it
    size: float = 0.0  # squared length of that feature, in the variables that vary
    zero: bool = True  # whether it is zero

    def beside(self, other: Points) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the points of both about the middle of their centres."""
        half = (self.centre - other.centre) / 2
        return (self.away + half).astype(np.float32), (other.away - half).astype(np.float32)


def fitted(context: Context[Any], parts: Stitchable, kept: list[NDArray[np.intp]]) -> list[list[Basis]]:
    """Return the bases of each set and cut, fitted on a share of the probes at every checkpoint."""
    groups, steps = [], context.run.checkpoints
    for mine in kept:
        rows = max(2, min(len(mine), FITTED // steps))
        order = np.random.default_rng(context.options.seed).permutation(len(mine))
        groups.append([(t, mine[np.sort(order[:rows])]) for t in range(steps)])
    with context.stage(parts, parts.again) as stage:
        return list(context.each(stage.fold(_rows, groups, _joined, _fitted)))


def projected(
    context: Context[Any], parts: Stitchable, kept: list[NDArray[np.intp]], bases: list[list[Basis]]
) -> Iterator[tuple[int, list[Points]]]:
    """Yield sets, checkpoint by checkpoint, with their points ``(probe, component)`` in the basis of each cut."""
    items = [(s, t) for s in range(len(kept)) for t in range(context.run.checkpoints)]
    again = partial(_projector, parts.again, kept, bases)
    with context.stage((parts, kept, bases), again) as stage:
        for (s, _), found in zip(items, context.each(stage.map(_project, items)), strict=True):
            yield s, found


def _rows(parts: Stitchable, item: tuple[int, NDArray[np.intp]]) -> Rows:
    return [[z.flatten(1).cpu().numpy()] for z in parts.features.whole(*item)]


def _joined(a: Rows, b: Rows) -> Rows:
    return [of_cut + more for of_cut, more in zip(a, b, strict=True)]


def _fitted(parts: Stitchable, rows: Rows) -> list[Basis]:
    return [Basis.of(np.concatenate(of_cut)) for of_cut in rows]


def _projector(parts: Callable[[], Stitchable], kept: Any, bases: Any) -> tuple[Stitchable, Any, Any]:
    return parts(), kept, bases


def _project(
    state: tuple[Stitchable, list[NDArray[np.intp]], list[list[Basis]]], item: tuple[int, int]
) -> list[Points]:
    parts, kept, bases = state
    s, t = item
    away = [np.empty((len(kept[s]), basis.axes.shape[1]), np.float32) for basis in bases[s]]
    centres = list[NDArray[Any]]()
    varies = [np.zeros(len(basis.axes), bool) for basis in bases[s]]  # (variable,)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so
        for mine, features in parts.features.over(t, kept[s]):  # all of a checkpoint's at once would not fit
            for c, (basis, features_at_cut) in enumerate(zip(bases[s], features, strict=True)):
                z = features_at_cut.flatten(1).cpu().numpy()
                if len(centres) == c:
                    centres.append(z[0].copy())
                z = z - centres[c]
                away[c][mine] = z @ basis.axes
                varies[c] |= (np.abs(z, out=z) > ROUNDING * np.abs(centres[c])).any(0)
        found = []
        for points, centre, basis, moves in zip(away, centres, bases[s], varies, strict=True):
            exact, axes = centre.astype(np.float64), basis.axes.astype(np.float64)
            rounding = ROUNDING * np.sqrt(exact**2 @ axes**2)
            size, zero = float(exact[moves] @ exact[moves]), not exact.any()
            found.append(Points(points, exact @ axes, rounding, bool(moves.any()), size, zero))
    return found
