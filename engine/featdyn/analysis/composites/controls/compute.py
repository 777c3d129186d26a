"""Is it the direction of the drift that keeps predictions, or only its small size?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.composites.batchnorm_statistics import OneValue, batch_norms, nearly_equal, reestimated
from featdyn.analysis.composites.controls import CELLS, KINDS, OF_KINDS, STRICT, ControlOptions
from featdyn.analysis.composites.controls.perturbations import lengths, norm_error, perturbed
from featdyn.analysis.composites.grid import apart_macs, refuse_apart, with_apart
from featdyn.analysis.composites.predictions import (
    NO_COMMON_PREDICTION,
    NO_PREDICTION,
    interval_of,
    outputs_bytes,
    share,
)
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import labelled
from featdyn.analysis.inputs.one_input import Inputs
from featdyn.analysis.inputs.positions import mask_of
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.suffix_banks import bank_bytes, suffixes
from featdyn.analysis.status import NOT_FINITE, STILL, ZERO, Status
from featdyn.compute import Plan
from featdyn.errors import FeatdynError
from featdyn.networks import state_for
from featdyn.statistics.relative_change import relative_change
from featdyn.statistics.resampling import difference_interval
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

NO_CONTROL = {
    "gaussian": "drifts_do_not_differ",
    "same_class": "no_other_image_of_the_class_moves",
    "other_class": "no_image_of_another_class_moves",
}
"""Why no probe of a set has a control."""
NO_RIVAL = "a_control_is_missing"
OF_EACH = ("accuracy", "agreement", "advantage", "advantage_low", "advantage_high", "norm_error")
COPIES = 8
"""So many copies of the widest features are held by the arithmetic of perturbations and by suffixes, at most."""
SQUARE = 17
"""Bytes that each pair of probes takes while one of another image is drawn for each."""


def controls(context: Context[ControlOptions]) -> xr.Dataset:
    """Compare the drift of features with perturbations of the same norm."""
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    kept = sets.choose(run, options.samples, options.seed)
    parts, t2s = context.stitchable("recomputed"), options.suffixes(run)
    if mask_of(run) is not None and any(len(cut.shape) > 1 for cut in parts.cuts):
        names = ", ".join(cut.name for cut in parts.cuts if len(cut.shape) == 1)
        raise FeatdynError(
            f"{run.path}: controls perturbs features as a whole, padding too: ask for cuts without positions "
            f"({names or 'there is none among these'})"
        )
    shape = len(t2s), len(sets.names), run.checkpoints
    items = [(t2s[j], s, t1) for j, s, t1 in np.ndindex(shape)]
    context.admit(_plan(run, parts, kept, len(items)))
    refuse_apart(context, parts, labels)
    rest = kept, labels, sets.origins, options.seed, options.batchnorm == "reestimated"
    with context.stage(_Cells(run, parts, *rest), parts.around(_Cells, run, *rest)) as stage:
        cells = list(context.each(stage.map(_Cells.cell, items)))
    values: dict[str, NDArray[Any]] = {}
    for name in cells[0]:
        grid = np.stack([cell[name] for cell in cells], -1)  # ([kind,] cut, item)
        values[name] = np.moveaxis(grid.reshape(*grid.shape[:-1], *shape), -3, -1)  # ([kind,] cut, set, t1, t2)
    still = np.array(t2s) == np.arange(run.checkpoints)[:, None]  # (t1, t2)
    none_finite = np.isnan(values["motion"]) & (values["undefined"] > values["zero_features"])
    values["motion"] = np.where(still & ~none_finite, 0.0, values["motion"])
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
    motion, no_control = values["motion"], np.isnan(values["norm_error"])
    none_finite = np.isnan(motion) & (values["undefined"] > values["zero_features"])
    of_motion, structured = (Status(CELLS.split(), motion.shape) for _ in range(2))
    of_motion.mark(NOT_FINITE, none_finite).mark(ZERO, np.isnan(motion))
    structured.mark(STILL, motion == 0).mark(NO_RIVAL, no_control[strict].any(0))
    structured.mark(NO_COMMON_PREDICTION, np.isnan(values["advantage"])[strict].any(0))
    statuses = {"motion_status": of_motion, "structured_status": structured}
    for name, of, reason in (
        ("status", "accuracy", NO_PREDICTION),
        ("norm_status", "norm_error", NOT_FINITE),
        ("agreement_status", "agreement", NO_COMMON_PREDICTION),
        ("advantage_status", "advantage", NO_COMMON_PREDICTION),
    ):
        status = statuses[name] = Status(OF_KINDS.split(), no_control.shape)
        status.mark(NOT_FINITE, no_control & none_finite)
        for k, kind in enumerate(KINDS):
            status.mark(NO_CONTROL.get(kind, NOT_FINITE), (k, no_control[k]))
        status.mark(reason, np.isnan(values[of]))
    return {name: found.variable() for name, found in statuses.items()}


def _plan(run: Run, parts: Stitchable, kept: list[NDArray[np.intp]], tasks: int) -> Plan:
    probes, cuts = max(map(len, kept)), parts.cuts
    macs = tasks * probes * (cuts[-1].prefix_macs + len(KINDS) * sum(cut.suffix_macs for cut in cuts))
    macs += apart_macs(run, parts)
    plan = Plan(
        f"{len(cuts)} cuts x {tasks} cells of up to {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=tasks * parts.features.stored_bytes,
        task={
            "features": 2 * probes * parts.sample_bytes,  # of t1 and of t2
            "perturbed": COPIES * 4 * probes * max(prod(cut.shape) for cut in cuts) + SQUARE * probes**2,
            "batches": parts.pass_bytes,
            "outputs": outputs_bytes(run, probes),
        },
        state=parts.held | {"suffixes": bank_bytes(parts)},
    )
    return with_apart(plan, run, parts)


@dataclass(eq=False)
class _Cells:
    """What tasks need; the newest t2's side of a cell is kept for the next t1."""

    run: Run
    parts: Stitchable
    kept: list[NDArray[np.intp]]
    labels: NDArray[np.int64]
    origins: NDArray[np.int64]
    seed: int
    anew: bool
    new: tuple[tuple[int, int], list[SuffixBank], list[Tensor], list[Tensor]] | None = None

    def cell(self, item: tuple[int, int, int]) -> dict[str, NDArray[np.float64]]:
        """Return the values of one (t2, set, t1), each over (kind, cut) or over (cut)."""
        t2, s, t1 = item
        mine = self.kept[s]
        labels, origins = self.labels[mine], self.origins[mine]
        banks, new, own = self._suffixes(t2, s)
        inputs = self._inputs(s)
        found = {name: np.full((len(KINDS), len(banks)), np.nan) for name in OF_EACH}
        for name in ("without_control", "without_prediction"):
            found[name] = np.zeros((len(KINDS), len(banks)), np.int64)
        motion, (zero, undefined) = np.full(len(banks), np.nan), np.zeros((2, len(banks)), np.int64)
        for c, (old, z) in enumerate(zip(self.parts.features.whole(t1, mine), new, strict=True)):
            size, reference = lengths(old - z), lengths(z).cpu().numpy()
            relative = relative_change(size.cpu().numpy(), reference)
            defined = np.isfinite(relative) & np.isfinite(reference)
            zero[c], undefined[c] = (reference == 0).sum(), (~defined).sum()
            if defined.any():
                motion[c] = relative[defined].mean()
            seed = np.random.SeedSequence([self.seed, t1, t2, c, s]).generate_state(1)[0]
            of_t2, drifted = own[c].cpu().numpy(), np.zeros(0, np.int64)
            for k, (moved, there) in enumerate(perturbed(old, z, labels, origins, int(seed))):
                handed = self.parts.cuts[c].handed(moved, inputs)
                bank = self._estimated(c, t2, handed[torch.from_numpy(there)], banks[c]) if self.anew else banks[c]
                predicted = bank.run(handed).predictions[0].cpu().numpy()
                drifted = predicted if k == 0 else drifted  # the drift comes first
                known = there & (predicted >= 0)
                found["without_control"][k, c] = len(mine) - there.sum()
                found["without_prediction"][k, c] = (there & ~known).sum()
                if not there.any():
                    continue
                right = predicted == labels
                lost = (drifted == labels).astype(np.int8) - right.astype(np.int8)
                better = interval_of(difference_interval, known & (drifted >= 0), origins, lost)
                numbers = (
                    share(right, known), share(predicted == of_t2, known & (of_t2 >= 0)),
                    better.estimate, better.low, better.high, norm_error(moved, z, size),
                )  # fmt: skip
                for name, number in zip(OF_EACH, numbers, strict=True):
                    found[name][k, c] = number
        return found | {"motion": motion, "zero_features": zero, "undefined": undefined}

    def _estimated(self, c: int, t2: int, given: Tensor, bank: SuffixBank) -> SuffixBank:
        """Return a suffix with BatchNorm statistics of what it is given; as it is where there are none to estimate."""
        suffix = self.parts.cuts[c].suffix
        if not batch_norms(suffix) or len(given) < 2:
            return bank
        slices = nearly_equal(len(given), self.parts.features.batches.size)
        state = nn.Module.state_dict(suffix) | state_for(suffix, self.parts.states[t2])
        with suppress(OneValue):
            new = reestimated(suffix, state, [given[part] for part in slices])
            return SuffixBank.from_states(suffix, [new])
        return bank

    def _inputs(self, s: int) -> Callable[[], Tensor]:
        return lambda: Inputs(self.run).at(self.kept[s]).to(self.parts.features.device)

    def _suffixes(self, t2: int, s: int) -> tuple[list[SuffixBank], list[Tensor], list[Tensor]]:
        """Return the suffixes of t2, its own features of a set, and what it predicts."""
        if self.new is None or self.new[0] != (t2, s):
            self.new = None  # before there are others
            banks = suffixes(self.parts, [self.parts.states[t2]])
            new = self.parts.features.whole(t2, self.kept[s])
            given = [cut.handed(z, self._inputs(s)) for cut, z in zip(self.parts.cuts, new, strict=True)]
            own = [bank.run(z).predictions[0] for bank, z in zip(banks, given, strict=True)]
            self.new = (t2, s), banks, new, own
        return self.new[1:]
