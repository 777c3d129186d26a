"""Is it the direction of the drift that keeps predictions, or only its small size?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.composites.controls import CELLS, KINDS, OF_KINDS, STRICT, ControlOptions
from featdyn.analysis.composites.controls.perturbations import lengths, norm_error, perturbed
from featdyn.analysis.composites.grid import bank_bytes
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import labelled
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import NOT_FINITE, STILL, ZERO, Status
from featdyn.compute import Plan
from featdyn.statistics.relative_change import relative_change
from featdyn.statistics.resampling import difference_interval
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

NO_CONTROL = {
    "gaussian": "drifts_do_not_differ",
    "same_class": "no_other_probe_of_the_class_moves",
    "other_class": "no_probe_of_another_class_moves",
}
"""Why no probe of a set has a control."""
NO_RIVAL = "a_control_is_missing"
OF_EACH = ("accuracy", "agreement", "advantage", "advantage_low", "advantage_high", "norm_error")
COPIES = 8
"""So many copies of the widest features are held by the arithmetic of perturbations and by suffixes, at most."""


def controls(context: Context[ControlOptions]) -> xr.Dataset:
    """Compare the drift of features with perturbations of the same norm."""
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    kept = sets.choose(run, options.samples, options.seed)
    parts, t2s = context.stitchable("recomputed"), options.suffixes(run)
    shape = len(t2s), len(sets.names), run.checkpoints
    items = [(t2s[j], s, t1) for j, s, t1 in np.ndindex(shape)]
    context.admit(_plan(run, parts, kept, len(items)))
    rest = kept, labels, sets.origins, options.seed
    with context.stage(_Cells(run, parts, *rest), parts.around(_Cells, run, *rest)) as stage:
        cells = list(context.each(stage.map(_Cells.cell, items)))
    values: dict[str, NDArray[Any]] = {}
    for name in cells[0]:
        grid = np.stack([cell[name] for cell in cells], -1)  # ([kind,] cut, item)
        values[name] = np.moveaxis(grid.reshape(*grid.shape[:-1], *shape), -3, -1)  # ([kind,] cut, set, t1, t2)
    still = np.array(t2s) == np.arange(run.checkpoints)[:, None]  # (t1, t2)
    values["motion"] = np.where(still, 0.0, values["motion"])
    strict = [KINDS.index(kind) for kind in STRICT]
    values["structured"] = np.all(values["advantage_low"][strict] > 0, axis=0)
    result = parts.coords(run, sets).isel(t2=t2s).assign_coords(kind=np.array(KINDS, dtype=object))
    result["set_size"] = "set", [len(mine) for mine in kept]
    dims = OF_KINDS.split()
    return result.assign({name: (dims[-array.ndim :], array) for name, array in values.items()}).assign(
        _statuses(values, strict)
    )


def _statuses(values: dict[str, NDArray[Any]], strict: list[int]) -> dict[str, xr.Variable]:
    """Return why numbers are missing where they are."""
    motion, missing = values["motion"], np.isnan(values["accuracy"])
    status = Status(OF_KINDS.split(), missing.shape)
    for k, kind in enumerate(KINDS):
        status.mark(NO_CONTROL.get(kind, NOT_FINITE), (k, missing[k]))
    of_motion, structured = (Status(CELLS.split(), motion.shape) for _ in range(2))
    of_motion.mark(ZERO, np.isnan(motion) & (values["zero_features"] > 0)).mark(NOT_FINITE, np.isnan(motion))
    structured.mark(STILL, motion == 0).mark(NO_RIVAL, missing[strict].any(0))
    statuses = {"status": status, "motion_status": of_motion, "structured_status": structured}
    return {name: found.variable() for name, found in statuses.items()}


def _plan(run: Run, parts: Stitchable, kept: list[NDArray[np.intp]], tasks: int) -> Plan:
    probes, cuts = max(map(len, kept)), parts.cuts
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


@dataclass(eq=False)
class _Cells:
    """What tasks need; the newest t2's side of a cell is kept for the next t1."""

    run: Run
    parts: Stitchable
    kept: list[NDArray[np.intp]]
    labels: NDArray[np.int64]
    origins: NDArray[np.int64]
    seed: int
    new: tuple[tuple[int, int], list[SuffixBank], list[Tensor], list[Tensor]] | None = None

    def cell(self, item: tuple[int, int, int]) -> dict[str, NDArray[np.float64]]:
        """Return the values of one (t2, set, t1), each over (kind, cut) or over (cut)."""
        t2, s, t1 = item
        mine = self.kept[s]
        labels, origins = self.labels[mine], self.origins[mine]
        banks, new, own = self._suffixes(t2, s)
        found = {name: np.full((len(KINDS), len(banks)), np.nan) for name in OF_EACH}
        found["without_control"] = np.zeros((len(KINDS), len(banks)), np.int64)
        motion, zero = np.full(len(banks), np.nan), np.zeros(len(banks), np.int64)
        for c, (old, z) in enumerate(zip(self.parts.features.whole(t1, mine), new, strict=True)):
            size, reference = lengths(old - z), lengths(z).cpu().numpy()
            zero[c] = (reference == 0).sum()
            if zero[c] < len(mine):
                motion[c] = relative_change(size.cpu().numpy(), reference)[reference != 0].mean()
            seed = np.random.SeedSequence([self.seed, t1, t2, c, s]).generate_state(1)[0]
            kept_right: NDArray[np.bool_] | None = None
            for k, (moved, there) in enumerate(perturbed(old, z, labels, int(seed))):
                predicted = banks[c].run(moved).predictions[0]
                right = predicted.cpu().numpy() == labels
                kept_right = right if kept_right is None else kept_right  # the drift comes first
                found["without_control"][k, c] = len(mine) - there.sum()
                if not there.any():
                    continue
                better = difference_interval(
                    kept_right[there].astype(np.int8) - right[there].astype(np.int8), groups=origins[there]
                )
                numbers = (
                    right[there].mean(), (predicted == own[c]).cpu().numpy()[there].mean(),
                    better.estimate, better.low, better.high, norm_error(moved, z, size),
                )  # fmt: skip
                for name, number in zip(OF_EACH, numbers, strict=True):
                    found[name][k, c] = number
        return found | {"motion": motion, "zero_features": zero}

    def _suffixes(self, t2: int, s: int) -> tuple[list[SuffixBank], list[Tensor], list[Tensor]]:
        """Return the suffixes of t2, its own features of a set, and what it predicts."""
        if self.new is None or self.new[0] != (t2, s):
            self.new = None  # before there are others
            banks = [SuffixBank.from_states(cut.suffix, [self.parts.states[t2]]) for cut in self.parts.cuts]
            new = self.parts.features.whole(t2, self.kept[s])
            own = [bank.run(z).predictions[0] for bank, z in zip(banks, new, strict=True)]
            self.new = (t2, s), banks, new, own
        return self.new[1:]
