"""How far features move: between all pairs of checkpoints for each set, and along its path for each probe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.drift.weight_distance import beyond_squares
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import ALIKE, FEW, NO_LATER, NOT_FINITE, STILL, ZERO, Status
from featdyn.statistics.resampling import student, worth
from featdyn_kernels.paths import squared_distances

HELD = 2**29  # bytes of features in memory: some probes at all cuts and all checkpoints
MATRICES = 14
"""So many float64 matrices over (t1, t2) are held for each probe that moves, at most."""
MEANS = ("motion", "cosine")
PAIRS = ("cut", "set", "t1", "t2")

SUMS = 6  # groups, probes, values, squared sums, sums times sizes, squared sizes: those of `student`

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """The probes of one image in one set, which vary together."""

    sets: int  # how many there are
    set_of: NDArray[np.intp]  # (unit,), the place of its set, or -1
    of: NDArray[np.intp]  # (probe,), its unit
    size: NDArray[np.intp]  # (unit,), how many probes it has

    @classmethod
    def of_sets(cls, sets: ProbeSets) -> Units:
        """Return those of the sets."""
        set_of = np.full(len(sets.origins), -1)
        for s, member in enumerate(sets.members):
            set_of[member] = s
        found, unit, size = np.unique(np.stack([set_of, sets.origins]), axis=1, return_inverse=True, return_counts=True)
        return cls(len(sets.names), found[0], unit.ravel(), size)

    def shared(self, spans: Iterable[tuple[int, int, int]], rows: int) -> int:
        """Return how many units have probes in several pieces of so many rows, at most."""
        pieces = [np.arange(i, min(i + rows, stop)) for _, start, stop in spans for i in range(start, stop, rows)]
        piece = np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])
        return int((np.bincount(np.unique(np.stack([self.of, piece]), axis=1)[0]) > 1).sum())


@dataclass(frozen=True)
class Moves:
    """What the probes of one batch add."""

    sums: Values
    """``(MEANS, SUMS, cut, set, t1, t2)``, of units that lie in this batch as a whole."""
    shared: dict[int, Values]
    """Of other units, ``(MEANS, 2, cut, t1, t2)``: number and sum of their values."""
    zero: NDArray[np.int64]  # (cut, set, t), probes whose features are all zero
    undefined: NDArray[np.int64]  # (cut, set, t), those and probes whose features are not finite
    step_length: NDArray[np.float32]  # (cut, t, probe)
    path_length: Values  # (cut, probe)
    displacement: Values  # (cut, probe)


def held_rows(parts: Stitchable) -> int:
    """Return how many probes' features at all cuts and checkpoints fit into :data:`HELD` bytes; at least one."""
    return max(1, HELD // (len(parts.states) * parts.sample_bytes))


def moves(parts: Stitchable, units: Units, index: int) -> Moves:
    """Follow the probes of one recorded batch, at most :func:`held_rows` at a time, each prefix computed once."""
    batch, rows, steps = parts.features.batches[index], held_rows(parts), len(parts.states)
    cuts, probes = len(parts.cuts), batch.stop - batch.start
    found = Moves(
        np.zeros((len(MEANS), SUMS, cuts, units.sets, steps, steps)),
        {},
        np.zeros((cuts, units.sets, steps), np.int64),
        np.zeros((cuts, units.sets, steps), np.int64),
        np.full((cuts, steps, probes), np.nan, np.float32),
        *np.empty((2, cuts, probes)),
    )
    for start in range(0, probes, rows):
        span = slice(start, min(start + rows, probes))
        piece = batch if rows >= probes else batch.part(span.start, span.stop)  # as recorded, where all fit
        own = units.of[piece.start : piece.stop]
        held: list[Tensor] = []
        with torch.inference_mode():
            for t in range(steps):
                for c, z in enumerate(each[: len(own)] for each in parts.features(piece, t)):
                    if t == 0:
                        kind = torch.promote_types(z.dtype, torch.float32)
                        held.append(torch.empty(len(z), steps, z[0].numel(), dtype=kind, device=z.device))
                    held[c][:, t] = z.flatten(1)
            del z
            for c in range(cuts):
                lengths = _lengths(held[c])
                _add(found, c, own, units, lengths)
                steps_of = np.diagonal(lengths[1], 1, 1, 2)
                found.step_length[c, 1:, span] = steps_of.T
                found.path_length[c, span], found.displacement[c, span] = steps_of.sum(1), lengths[1][:, 0, -1]
    return found


def _lengths(z: Tensor) -> tuple[Values, Values, Values]:
    """Return norms ``(probe, t)``, distances and one minus the cosines ``(probe, t1, t2)`` of features.

    These are brought to unit length in place: half the squared distance of unit vectors loses nothing where they are
    nearly parallel or of very different length, as formulas of lengths do.
    """
    if beyond_squares(z):
        z = z.double()
    norm = torch.stack([torch.linalg.vector_norm(z[:, t], dim=1, dtype=torch.float64) for t in range(z.shape[1])], 1)
    distance = torch.as_tensor(squared_distances(z)).sqrt().cpu().numpy()
    z /= torch.where(norm > 0, norm, 1.0).to(z.dtype)[:, :, None]  # a float64 divisor would copy all of z
    return norm.cpu().numpy(), distance, torch.as_tensor(squared_distances(z)).cpu().numpy() / 2


def _add(found: Moves, c: int, own: NDArray[np.intp], units: Units, lengths: tuple[Values, Values, Values]) -> None:
    """Add relative distances and cosines of some probes, of the units ``own``, at one cut."""
    norm, distance, apart = lengths
    chosen, unit = np.unique(own, return_inverse=True)
    set_of, whole = units.set_of[chosen], np.bincount(unit) == units.size[chosen]
    in_set = (set_of == np.arange(units.sets)[:, None]).astype(np.float64)
    for counts, which in ((found.zero, norm == 0), (found.undefined, (norm == 0) | ~np.isfinite(norm))):
        counts[c] += np.rint(in_set[:, unit] @ which).astype(np.int64)
    living, same = (norm > 0) & np.isfinite(norm), np.eye(norm.shape[1], dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(same, 0.0, distance / norm[:, :, None])
    both = living[:, :, None] & living[:, None]
    still = np.where(same, np.isfinite(norm)[:, None], living[:, :, None] & np.isfinite(norm)[:, None])
    for m, (values, defined) in enumerate(((relative, still), (apart, both))):
        number, total = defined.astype(np.float64), np.where(defined, values, 0.0)
        if len(chosen) < len(own) or (np.diff(unit) < 0).any():
            of_units = np.zeros((2, len(chosen), *number.shape[1:]))
            for sums, terms in zip(of_units, (number, total), strict=True):
                np.add.at(sums, unit, terms)
            number, total = of_units
        for k, term in enumerate(_terms(number, total)):
            found.sums[m, k, c] += np.tensordot(in_set * whole, term, 1)
        for u in np.flatnonzero(~whole & (set_of >= 0)):
            mine = found.shared.setdefault(int(chosen[u]), np.zeros((len(MEANS), 2, len(found.zero), *same.shape)))
            mine[m, :, c] += number[u], total[u]


def _terms(number: Values, total: Values) -> Iterable[Values]:
    """Yield what is summed over units, from how many values each has and their sum: see :data:`SUMS`."""
    yield (number > 0).astype(np.float64)
    yield number
    yield total
    yield total**2
    yield number * total
    yield number**2


def motion(found: Iterable[Moves], units: Units) -> xr.Dataset:
    """Return the motion of every probe's features, from the moves of all batches in their order.

    Means over the probes of a set, of ``|z(t2) - z(t1)| / |z(t1)|`` and of the cosine between z(t1) and z(t2), and the
    path of each probe. Probes whose features are all zero at t1 (or, for the cosine, at t2) have neither, but a motion
    of 0 at t1 = t2; and those whose features are not finite at either have neither: ``undefined (cut, set, t)`` counts
    them.
    """
    of_probes: dict[str, list[NDArray[Any]]] = {"step_length": [], "path_length": [], "displacement": []}
    sums: Any = 0.0
    zero: Any = 0
    undefined: Any = 0
    shared: dict[int, Values] = {}
    for mine in found:  # in order: sums of float64 keep their bits
        sums, zero, undefined = sums + mine.sums, zero + mine.zero, undefined + mine.undefined
        for unit, values in mine.shared.items():
            shared[unit] = shared.get(unit, 0.0) + values
        for name, lengths in of_probes.items():
            lengths.append(getattr(mine, name))
    for unit, (number, total) in ((u, np.moveaxis(v, 1, 0)) for u, v in shared.items()):
        for k, term in enumerate(_terms(number, total)):
            sums[:, k, :, units.set_of[unit]] += term
    result: dict[str, Any] = {"undefined": (("cut", "set", "t"), undefined)}
    all_zero = zero == np.bincount(units.set_of[units.of] + 1, minlength=units.sets + 1)[1:, None]
    same = np.broadcast_to(np.eye(zero.shape[-1], dtype=bool), sums.shape[2:])
    for name, (groups, number, *rest) in zip(MEANS, sums, strict=True):
        low, high = student(groups, number, *rest)
        few = (groups < 2) | (worth(number, rest[-1]) <= 1)
        with np.errstate(invalid="ignore"):
            mean = rest[0] / number
        status, limits = Status(PAIRS, mean.shape), Status(PAIRS, mean.shape)
        empty = np.isnan(mean)
        status.mark(ZERO, empty & (all_zero[..., None] | (all_zero[:, :, None] if name == "cosine" else False)))
        status.mark(NOT_FINITE, empty)
        low[same], high[same] = mean[same], mean[same]  # which is so of any probe
        for reason, where in ((ZERO, status.codes == 1), (NOT_FINITE, empty), (FEW, few), (ALIKE, True)):
            limits.mark(reason, where & np.isnan(low))
        if name == "cosine":
            mean, low, high = 1 - mean, np.maximum(1 - high, -1), np.minimum(1 - low, 1)
        low = np.maximum(low, 0) if name == "motion" else low
        result |= {name: (PAIRS, mean), f"{name}_low": (PAIRS, low), f"{name}_high": (PAIRS, high)}
        result |= {f"{name}_status": status.variable(), f"{name}_interval_status": limits.variable()}
    return xr.Dataset(result | _paths({name: np.concatenate(values, -1) for name, values in of_probes.items()}))


def _paths(joined: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the variables of each probe's path."""
    dims, length = ("cut", "probe"), joined["path_length"]
    with np.errstate(invalid="ignore", divide="ignore"):
        straightness = np.where(length > 0, np.minimum(joined["displacement"] / length, 1), np.nan)
    status, straight = (Status(dims, length.shape).mark(NOT_FINITE, ~np.isfinite(length)) for _ in range(2))
    straight.mark(NO_LATER if joined["step_length"].shape[1] == 1 else STILL, ~(length > 0))
    known = {name: np.where(np.isfinite(values), values, np.nan) for name, values in joined.items()}
    result: dict[str, Any] = {name: (("cut", "t", "probe")[:: 1 if v.ndim == 3 else 2], v) for name, v in known.items()}
    return result | {
        "straightness": (dims, straightness),
        "path_status": status.variable(),
        "straightness_status": straight.variable(),
    }
