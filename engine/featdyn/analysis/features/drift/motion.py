"""How far features move: between all pairs of checkpoints for each set, and along its path for each probe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.statistics.resampling import student
from featdyn_kernels.paths import squared_distances

HELD = 2**29  # bytes of features in memory: some probes at all cuts and all checkpoints
MEANS = ("motion", "cosine")
PAIRS = ("cut", "set", "t1", "t2")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Moves:
    """What the probes of one batch add."""

    sums: Values
    """``(MEANS, 3, cut, set, t1, t2)``: number, sum and sum of squares of what is defined."""
    undefined: NDArray[np.int64]  # (cut, set, t)
    step_length: NDArray[np.float32]  # (cut, t, probe)
    path_length: Values  # (cut, probe)
    displacement: Values  # (cut, probe)


def held_rows(parts: Stitchable) -> int:
    """Return how many probes' features at all cuts and checkpoints fit into :data:`HELD` bytes; at least one."""
    return max(1, HELD // (len(parts.states) * parts.sample_bytes))


def moves(parts: Stitchable, sets: ProbeSets, index: int) -> Moves:
    """Follow the probes of one recorded batch, at most :func:`held_rows` at a time, each prefix computed once."""
    batch, rows, steps = parts.features.batches[index], held_rows(parts), len(parts.states)
    shape = len(parts.cuts), len(sets.names), steps
    probes = batch.stop - batch.start
    found = Moves(
        np.zeros((len(MEANS), 3, *shape, steps)),
        np.zeros(shape, np.int64),
        np.full((len(parts.cuts), steps, probes), np.nan, np.float32),
        *np.empty((2, len(parts.cuts), probes)),
    )
    for start in range(0, probes, rows):
        span = slice(start, min(start + rows, probes))
        piece = batch.part(span.start, span.stop)
        member = np.stack([m[piece.start : piece.stop] for m in sets.members]).astype(np.float64)
        held: list[torch.Tensor] = []
        with torch.inference_mode():
            for t in range(steps):
                for c, z in enumerate(parts.features(piece, t)):
                    if t == 0:
                        held.append(torch.empty(len(z), steps, z[0].numel(), device=z.device))
                    held[c][:, t] = z.flatten(1)
        for c, z in enumerate(held):
            each = [torch.linalg.vector_norm(z[:, t], dim=1, dtype=torch.float64) for t in range(steps)]  # copies
            norm = torch.stack(each, 1).cpu().numpy()
            distance = np.sqrt(torch.as_tensor(squared_distances(z)).cpu().numpy())
            relative, cosine = _compare(norm, distance)
            nonzero = norm != 0
            _add(found.sums[0, :, c], relative, np.broadcast_to(nonzero[:, :, None], relative.shape), member)
            _add(found.sums[1, :, c], cosine, nonzero[:, :, None] & nonzero[:, None], member)
            found.undefined[c] += np.rint(member @ ~nonzero).astype(np.int64)
            lengths = np.diagonal(distance, 1, 1, 2)
            found.step_length[c, 1:, span] = lengths.T
            found.path_length[c, span], found.displacement[c, span] = lengths.sum(1), distance[:, 0, -1]
    return found


def motion(found: Iterable[Moves]) -> xr.Dataset:
    """Measure the motion of every probe's features.

    Parameters
    ----------
    found
        Of all batches, in their order.

    Returns
    -------
    xarray.Dataset
        Means over the probes of a set, with 95 % Student intervals ``_low`` and ``_high``, ``(cut, set, t1, t2)``:
        ``motion``, of ``|z(t2) - z(t1)| / |z(t1)|``, and ``cosine``, between z(t1) and z(t2). Probes whose features
        are all zero have neither: ``undefined (cut, set, t)`` counts them. For each probe: ``step_length (cut, t,
        probe)``, the distance from the checkpoint before (NaN at the first); ``path_length``, their sum;
        ``displacement``, from the first checkpoint to the last; ``straightness``, displacement over path length.
    """
    of_probes: dict[str, list[NDArray[Any]]] = {"step_length": [], "path_length": [], "displacement": []}
    sums: Any = 0.0
    undefined: Any = 0
    for mine in found:  # in order: sums of float64 keep their bits
        sums, undefined = sums + mine.sums, undefined + mine.undefined
        for name, values in of_probes.items():
            values.append(getattr(mine, name))
    joined = {name: np.concatenate(values, -1) for name, values in of_probes.items()}
    with np.errstate(invalid="ignore"):  # NaN for a probe that never moved
        joined["straightness"] = joined["displacement"] / joined["path_length"]
    result: dict[str, Any] = {"undefined": (("cut", "set", "t"), undefined)}
    result |= {name: (("cut", "t", "probe") if v.ndim == 3 else ("cut", "probe"), v) for name, v in joined.items()}
    for name, (number, total, squares) in zip(MEANS, sums, strict=True):
        low, high = student(number, total, squares)
        with np.errstate(invalid="ignore"):
            mean = total / number
        result |= {name: (PAIRS, mean), f"{name}_low": (PAIRS, low), f"{name}_high": (PAIRS, high)}
    return xr.Dataset(result)


def _compare(norm: Values, distance: Values) -> tuple[Values, Values]:
    """Return relative distance and cosine ``(probe, t1, t2)`` from norms ``(probe, t)`` and distances."""
    one, two = norm[:, :, None], norm[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return distance / one, (one**2 + two**2 - distance**2) / (2 * one * two)


def _add(sums: Values, values: Values, defined: NDArray[np.bool_], member: Values) -> None:
    """Add number, sum and squares of ``values (probe, t1, t2)`` where they are defined; ``member (set, probe)``."""
    known = np.where(defined, values, 0.0)
    for total, terms in zip(sums, (defined, known, known**2), strict=True):
        total += np.tensordot(member, terms.astype(np.float64, copy=False), 1)
