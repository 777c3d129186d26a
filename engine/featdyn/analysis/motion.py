"""How far features move: between all pairs of checkpoints for each set, and along its path for each probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.dissect import Dissected
from featdyn.analysis.features import Batch
from featdyn.analysis.sets import Sets
from featdyn.statistics.resampling import student
from featdyn.store import Run
from featdyn_kernels.paths import squared_distances

HELD = 2**30  # bytes of features in memory: some probes at all cuts and all checkpoints
PAIRS = ("cut", "set", "t1", "t2")

Values = NDArray[np.float64]


def held_rows(parts: Dissected) -> int:
    """Return how many probes' features at all cuts and checkpoints fit into :data:`HELD` bytes; at least one."""
    return max(1, HELD // (4 * len(parts.states) * sum(prod(cut.shape) for cut in parts.cuts)))


def pieces(run: Run, parts: Dissected) -> Iterator[Batch]:
    """Yield the recorded batches, cut into parts of at most :func:`held_rows` probes and without their padding."""
    rows = held_rows(parts)
    for batch in parts.features.batches:
        for start in range(batch.start, batch.stop, rows):
            stop = min(start + rows, batch.stop)
            mine = slice(start - batch.start, stop - batch.start)
            yield replace(batch, start=start, stop=stop, inputs=batch.inputs[mine], labels=batch.labels[mine])


def motion(run: Run, parts: Dissected, sets: Sets, done: Callable[[int], None] = lambda probes: None) -> xr.Dataset:
    """Measure the motion of every probe's features, each prefix computed once.

    Parameters
    ----------
    done
        Called with the number of probes that went through one prefix.

    Returns
    -------
    xarray.Dataset
        Means over the probes of a set, with 95 % Student intervals ``_low`` and ``_high``, ``(cut, set, t1, t2)``:
        ``motion``, of ``|z(t2) - z(t1)| / |z(t1)|``, and ``cosine``, between z(t1) and z(t2). Probes whose features
        are all zero have neither: ``undefined (cut, set, t)`` counts them. For each probe: ``step_length (cut, t,
        probe)``, the distance from the checkpoint before (NaN at the first); ``path_length``, their sum;
        ``displacement``, from the first checkpoint to the last; ``straightness``, displacement over path length.
    """
    steps, probes = len(parts.states), len(sets.weights)
    means = {name: _Means(len(parts.cuts), len(sets.names), steps) for name in ("motion", "cosine")}
    undefined = np.zeros((len(parts.cuts), len(sets.names), steps), np.int64)
    step_length = np.full((len(parts.cuts), steps, probes), np.nan, np.float32)
    path_length, displacement = np.empty((2, len(parts.cuts), probes))
    for batch in pieces(run, parts):
        rows, span = batch.stop - batch.start, slice(batch.start, batch.stop)
        member = np.stack([m[span] for m in sets.members]).astype(np.float64)
        held: list[torch.Tensor] = []
        with torch.inference_mode():
            for t in range(steps):
                for c, z in enumerate(parts.features(batch, t)):
                    if t == 0:
                        held.append(torch.empty(rows, steps, z[0].numel(), device=z.device))
                    held[c][:, t] = z.flatten(1)
                done(rows)
        for c, z in enumerate(held):
            norm = torch.linalg.vector_norm(z, dim=2, dtype=torch.float64).cpu().numpy()
            distance = np.sqrt(torch.as_tensor(squared_distances(z)).cpu().numpy())
            relative, cosine = _compare(norm, distance)
            means["motion"].add(c, relative, np.broadcast_to((norm != 0)[:, :, None], relative.shape), member)
            means["cosine"].add(c, cosine, (norm != 0)[:, :, None] & (norm != 0)[:, None], member)
            undefined[c] += np.rint(member @ (norm == 0)).astype(np.int64)
            lengths = np.diagonal(distance, 1, 1, 2)
            step_length[c, 1:, span] = lengths.T
            path_length[c, span], displacement[c, span] = lengths.sum(1), distance[:, 0, -1]
    with np.errstate(invalid="ignore"):
        straightness = displacement / path_length  # NaN for a probe that never moved
    found: dict[str, Any] = {
        "undefined": (("cut", "set", "t"), undefined),
        "step_length": (("cut", "t", "probe"), step_length),
        "path_length": (("cut", "probe"), path_length),
        "displacement": (("cut", "probe"), displacement),
        "straightness": (("cut", "probe"), straightness),
    }
    for name, mean in means.items():
        for end, values in mean.intervals().items():
            found[f"{name}{end}"] = PAIRS, values
    return xr.Dataset(found)


def _compare(norm: Values, distance: Values) -> tuple[Values, Values]:
    """Return relative distance and cosine ``(probe, t1, t2)`` from norms ``(probe, t)`` and distances."""
    one, two = norm[:, :, None], norm[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return distance / one, (one**2 + two**2 - distance**2) / (2 * one * two)


class _Means:
    """Sums over probes for each cut, set, t1 and t2."""

    def __init__(self, cuts: int, sets: int, steps: int) -> None:
        self._number, self._sum, self._squares = np.zeros((3, cuts, sets, steps, steps))

    def add(self, c: int, values: Values, defined: NDArray[np.bool_], member: Values) -> None:
        """Add ``values (probe, t1, t2)`` of cut c, as far as they are defined; ``member (set, probe)``."""
        known = np.where(defined, values, 0.0)
        for total, terms in ((self._number, defined), (self._sum, known), (self._squares, known**2)):
            total[c] += np.tensordot(member, terms.astype(np.float64, copy=False), 1)

    def intervals(self) -> dict[str, Values]:
        """Return means and bounds by the ending of their name."""
        low, high = student(self._number, self._sum, self._squares)
        with np.errstate(invalid="ignore"):
            return {"": self._sum / self._number, "_low": low, "_high": high}
