"""Is it the direction of the drift that keeps predictions, or only its small size?

Each control replaces the features z(t1) of the prefix by z(t2) + e with ``|e| = |z(t1) - z(t2)|`` for each probe, and
hands them to the suffix of t2. Which controls, and that drift counts as structured where it keeps accuracy better than
isotropic noise and than other probes' drift, are our own choice (feature dynamics, section 2.2 item 9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.composites.grid import bank_bytes
from featdyn.analysis.inputs.probe_sets import ProbeSets, spread
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.analysis.options import ControlOptions, suffixes
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.statistics.resampling import difference_interval
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.stitch import SuffixBank

KINDS = ("drift", "isotropic", "gaussian", "same_class", "other_class")
"""The drift itself; noise of no direction; noise of the drift's covariance; another probe's drift, of the same class
and of another one."""
STRICT = ("isotropic", "same_class", "other_class")
"""What drift has to beat to count as structured."""
SHARES = ("accuracy", "agreement", "norm_error", "advantage", "advantage_low", "advantage_high")
COPIES = 8
"""So many copies of the widest features are held by the arithmetic of perturbations and by suffixes, at most."""
DIMS = ("kind", "cut", "set", "t1", "t2")


def controls(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Compare the drift of features with perturbations of the same norm.

    Features are not clipped, so those behind a ReLU may become negative under a control: clipping would change norms.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.ControlOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` and ``agreement`` (with t2's own network) ``(kind, cut, set, t1, t2)``; ``advantage`` of the drift
        over each kind in accuracy, with ``advantage_low`` and ``_high``, 95 % score bounds;
        ``structured (cut, set, t1, t2)``: the lower bound is above 0 for isotropic noise and for other probes' drift;
        ``motion (cut, set, t1, t2)``, the mean of ``|z(t1) - z(t2)| / |z(t2)|``; ``norm_error (kind, cut, set, t1,
        t2)``, the largest relative difference between the norm that was wanted and the one measured after rounding.
    """
    chosen = validate(ControlOptions, options, "controls")
    parts, sets = cut_network(run, model, chosen.cuts), ProbeSets.of(run)
    cells = _Cells(run, parts, sets, chosen)
    t2s = suffixes(run, chosen.t2)
    shape = len(t2s), len(sets.names), run.checkpoints
    items = [(t2s[j], s, t1) for j, s, t1 in np.ndindex(shape)]
    workers.admit(_plan(run, parts, cells, len(items)))
    found = []
    with workers.stage(cells, parts.around(_Cells, run, sets, chosen)) as stage:
        for values in stage.map(_Cells.cell, items):
            found.append(values)
            if progress:
                progress(len(found), len(items))
    coords = parts.coords(run, sets).isel(t2=t2s).assign_coords(kind=np.array(KINDS, dtype=object))
    coords["set_size"] = "set", [len(mine) for mine in cells.kept]
    for name in found[0]:
        grid = np.stack([values[name] for values in found], -1)  # ([kind,] cut, item)
        grid = np.moveaxis(grid.reshape(*grid.shape[:-1], *shape), -3, -1)  # ([kind,] cut, set, t1, t2)
        coords[name] = DIMS[-grid.ndim :], grid
    strict = [KINDS.index(kind) for kind in STRICT]
    structured = (coords["advantage_low"].values[strict] > 0).all(0)
    return coords.assign(structured=(DIMS[1:], structured)).assign_attrs(options=chosen.model_dump(mode="json"))


def _plan(run: Run, parts: Stitchable, cells: _Cells, tasks: int) -> Plan:
    probes, cuts = max(map(len, cells.kept)), parts.cuts
    macs = tasks * probes * (cuts[-1].prefix_macs + len(KINDS) * sum(cut.suffix_macs for cut in cuts))
    return Plan(
        f"{len(cuts)} cuts x {tasks} cells of up to {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=tasks * parts.features.stored_bytes,
        task={
            "features": 2 * probes * parts.sample_bytes,  # of t1 and of t2
            "perturbed": COPIES * 4 * probes * max(prod(cut.shape) for cut in cuts) + 9 * probes**2,
            "batches": parts.pass_bytes,
        },
        state=parts.held | {"suffixes": bank_bytes(parts)},
    )


class _Cells:
    """What tasks need; the newest t2's side of a cell is kept for the next t1."""

    def __init__(self, run: Run, parts: Stitchable, sets: ProbeSets, options: ControlOptions) -> None:
        self._parts, self._options = parts, options
        self.kept = spread(run, sets, options.samples)
        self._labels = run.coords["label"].values
        self._new: tuple[tuple[int, int], list[SuffixBank], list[Tensor], list[Tensor]] | None = None

    def cell(self, item: tuple[int, int, int]) -> dict[str, NDArray[np.float64]]:
        """Return the values of one (t2, set, t1), each over (kind, cut), or ``motion`` over (cut)."""
        t2, s, t1 = item
        mine, options = self.kept[s], self._options
        labels = self._labels[mine]
        target = torch.from_numpy(labels)
        banks, new, own = self._suffixes(t2, s)
        found = {name: np.full((len(KINDS), len(banks)), np.nan) for name in SHARES}
        motion = np.full(len(banks), np.nan)
        for c, (old, z) in enumerate(zip(self._parts.features.whole(t1, mine), new, strict=True)):
            size = torch.linalg.vector_norm((old - z).flatten(1), dim=1)
            motion[c] = float((size / torch.linalg.vector_norm(z.flatten(1), dim=1)).mean())
            seed = np.random.SeedSequence([options.seed, t1, t2, c, s]).generate_state(1)[0]
            right = np.empty((len(KINDS), len(mine)), np.int8)
            for k, moved in enumerate(perturbed(old, z, labels, int(seed))):
                predicted = banks[c].run(moved).predictions[0]
                right[k] = (predicted.cpu() == target).numpy()
                found["agreement"][k, c] = float((predicted == own[c]).double().mean())
                found["norm_error"][k, c] = _norm_error(moved - z, size)
            better = right[KINDS.index("drift")] - right
            found["accuracy"][:, c], found["advantage"][:, c] = right.mean(1), better.mean(1)
            bounds = difference_interval(better)
            found["advantage_low"][:, c], found["advantage_high"][:, c] = bounds.low, bounds.high
        return found | {"motion": motion}

    def _suffixes(self, t2: int, s: int) -> tuple[list[SuffixBank], list[Tensor], list[Tensor]]:
        """Return the suffixes of t2, its own features of a set, and what it predicts."""
        if self._new is None or self._new[0] != (t2, s):
            self._new = None  # before there are others
            banks = [SuffixBank.from_states(cut.suffix, [self._parts.states[t2]]) for cut in self._parts.cuts]
            new = self._parts.features.whole(t2, self.kept[s])
            own = [bank.run(z).predictions[0] for bank, z in zip(banks, new, strict=True)]
            self._new = (t2, s), banks, new, own
        return self._new[1:]


def perturbed(old: Tensor, new: Tensor, labels: NDArray[np.integer[Any]], seed: int) -> Iterator[Tensor]:
    """Yield the features ``(n, ...)`` of each of :data:`KINDS`: the old ones, then new ones plus e.

    Parameters
    ----------
    old, new
        Features at t1 and t2, ``(n, ...)``.
    labels
        ``(n,)``. A probe without another of its class (or of another class) is left as it is at t2.
    seed
        Of the noise and of the choice of other probes.

    Notes
    -----
    The Gaussian's covariance is that of the drift over the other probes: a random combination of their centred drifts.
    """
    flat = (old - new).flatten(1)
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    random = torch.Generator().manual_seed(seed)
    n = len(flat)

    def placed(direction: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        e = torch.where(length > 0, direction * (size / length), 0.0)
        return new + e.view_as(new)

    yield old
    yield placed(torch.randn(flat.shape, generator=random).to(flat))
    mixture = torch.randn(n, n, generator=random).fill_diagonal_(0).to(flat)
    yield placed(mixture @ (flat - flat.mean(0)))
    same = torch.from_numpy(labels[:, None] == labels).fill_diagonal_(False)
    for candidates in (same, torch.from_numpy(labels[:, None] != labels)):
        weights = candidates.float() + 1e-30 * torch.eye(n)  # oneself, where there is nobody else
        other = torch.multinomial(weights, 1, generator=random)[:, 0]
        alone = (other == torch.arange(n)).to(flat.device)
        yield placed(torch.where(alone[:, None], 0.0, flat[other.to(flat.device)]))


def _norm_error(e: Tensor, size: Tensor) -> float:
    measured = torch.linalg.vector_norm(e.flatten(1).double(), dim=1)
    error = torch.where((size > 0) & (measured > 0), (measured / size.double() - 1).abs(), 0.0)
    return float(error.max())
