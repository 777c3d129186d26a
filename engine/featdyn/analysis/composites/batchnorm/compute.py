"""How much do conclusions on composites depend on what is done with BatchNorm?"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from math import prod
from typing import TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.composites.batchnorm import CELLS, POLICIES, BatchNormOptions
from featdyn.analysis.composites.batchnorm_statistics import OneValue, batch_norms, by_batch, nearly_equal, reestimated
from featdyn.analysis.composites.grid import apart_macs, refuse_apart, with_apart
from featdyn.analysis.composites.predictions import (
    NO_COMMON_PREDICTION,
    NO_PREDICTION,
    dtype_of,
    interval_of,
    outputs_bytes,
    share,
)
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import labelled, recorded_classes
from featdyn.analysis.inputs.one_input import Inputs
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.status import FEW, NO_TRAINING_PROBES, Status
from featdyn.compute import Plan
from featdyn.functional import functional_call
from featdyn.networks import predicted_classes, state_for
from featdyn.statistics.resampling import difference_interval, share_interval
from featdyn.store import Run

DIMS = CELLS.split()
TRAVEL, ANEW, BATCH = range(len(POLICIES))

Places: TypeAlias = NDArray[np.intp]
Predictions: TypeAlias = NDArray[np.signedinteger]


def batchnorm(context: Context[BatchNormOptions]) -> xr.Dataset:
    """Evaluate composites under each BatchNorm policy."""
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    kept, train = sets.choose(run, options.samples, options.seed), _training(run, options)
    parts, t2s = context.stitchable("recomputed"), options.suffixes(run)
    shape = len(POLICIES), len(parts.cuts), len(sets.names), run.checkpoints, len(t2s)
    found: dict[str, NDArray[np.float64]] = {}
    differences, known, without = np.zeros(shape[:2], np.int64), np.zeros(shape, bool), np.zeros(shape, np.int64)
    items = [(t2, t1) for t2 in t2s for t1 in (t2, *(t for t in range(run.checkpoints) if t != t2))]
    context.admit(_plan(run, parts, [*kept, train], len(items)))
    refuse_apart(context, parts, labels)
    own: list[Predictions] = []  # of t2's own network, which comes first
    with context.stage(_Policies(run, parts, kept, train), parts.around(_Policies, run, kept, train)) as stage:
        answers = context.each(stage.map(_Policies.composite, items))
        for (t2, t1), (predicted, there) in zip(items, answers, strict=True):
            if t1 == t2:
                own, plain = predicted, recorded_classes(run, t2)
            for s, (mine, places) in enumerate(zip(predicted, kept, strict=True)):  # (policy, cut, probe)
                cell = ..., s, t1, t2s.index(t2)
                known[cell] = there[..., s]
                for name, values in _numbers(mine, own[s], labels[places], sets.origins[places]).items():
                    found.setdefault(name, np.full(shape, np.nan))[cell] = np.where(there[..., s], values, np.nan)
                without[cell] = (mine < 0).sum(-1)
                if t1 == t2:
                    differences += np.where(there[..., s], (mine != plain[places]).sum(-1), 0)
    statuses = {"diagonal_status": Status(DIMS[:2], shape[:2])}
    statuses |= {name: Status(DIMS, shape) for name in ("status", "agreement_status", "change_status")}
    for status in statuses.values():
        missing = ~known if status.codes.ndim == len(DIMS) else np.any(~known, axis=(2, 3, 4))
        status.mark(FEW if len(train) else NO_TRAINING_PROBES, (ANEW, missing[ANEW]))
        status.mark(FEW, missing)
    statuses["status"].mark(NO_PREDICTION, np.isnan(found["accuracy"]))
    for name in ("agreement", "change"):
        statuses[f"{name}_status"].mark(NO_COMMON_PREDICTION, np.isnan(found[name]))
    result = parts.coords(run, sets).isel(t2=t2s).assign_coords(policy=np.array(POLICIES, dtype=object))
    result["set_size"] = "set", [len(mine) for mine in kept]
    return (
        result.assign_coords(norms=("cut", [len(batch_norms(cut.suffix)) for cut in parts.cuts]))
        .assign({name: (DIMS, values) for name, values in found.items()})
        .assign({name: status.variable() for name, status in statuses.items()})
        .assign(diagonal_differences=(DIMS[:2], differences), without_prediction=(DIMS, without))
    )


def _training(run: Run, options: BatchNormOptions) -> Places:
    """Return the training probes on which statistics are estimated anew, whatever sets are asked for."""
    sets = ProbeSets.of(run)
    train = sets.index(options.train)
    return np.array([], np.intp) if train is None else sets.choose(run, options.samples, options.seed)[train]


def _numbers(
    predicted: Predictions, own: Predictions, labels: NDArray[np.int64], origins: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return what predictions ``(policy, cut, probe)`` say, ``(policy, cut)``."""
    right, known = predicted == labels, predicted >= 0
    accuracy = interval_of(share_interval, known, origins, right)
    gained = right.astype(np.int8) - right[TRAVEL].astype(np.int8)
    change = interval_of(difference_interval, known & known[TRAVEL], origins, gained)
    agreement = {"agreement": share(predicted == own, known & (own >= 0))}
    return agreement | accuracy.named("accuracy") | change.named("change")


def _plan(run: Run, parts: Stitchable, kept: list[Places], tasks: int) -> Plan:
    probes, cuts = sum(map(len, kept)), parts.cuts
    layers = BETWEEN * 4 * parts.features.batches.size * max(prod(cut.shape) for cut in cuts)  # of suffixes
    macs = tasks * probes * (cuts[-1].prefix_macs + len(POLICIES) * sum(cut.suffix_macs for cut in cuts))
    macs += apart_macs(run, parts)
    plan = Plan(
        f"{len(cuts)} cuts x {tasks} pairs of checkpoints x {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        # Features, and of the last checkpoints what their own networks said.
        reads=tasks * parts.features.stored_bytes + tasks // run.checkpoints * run.schema["outputs/logits"].nbytes,
        task={
            "features": max(map(len, kept)) * parts.sample_bytes,
            "batches": parts.pass_bytes + layers + outputs_bytes(run, parts.features.batches.size),
        },
        state=parts.held,
        result={"predictions": 2 * len(POLICIES) * len(cuts) * probes},
    )
    return with_apart(plan, run, parts)


class _Policies:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, kept: list[Places], train: Places) -> None:
        self._run, self._parts, self._kept, self._train = run, parts, kept, train
        self._kind = dtype_of(run)
        self._dtype = next((p.dtype for p in parts.model.parameters() if p.is_floating_point()), torch.float32)

    def _inputs(self, places: Places) -> Tensor:
        return Inputs(self._run).at(places).to(self._parts.features.device)

    def composite(self, item: tuple[int, int]) -> tuple[list[Predictions], NDArray[np.bool_]]:
        """Return what the composite of (t2, t1) predicts for each set ``(policy, cut, probe)``, and whether it does
        ``(policy, cut, set)``.
        """
        t2, t1 = item
        suffixes = [cut.suffix for cut in self._parts.cuts]
        travelling = [state_for(suffix, self._parts.states[t2]) for suffix in suffixes]
        anew: dict[int, dict[str, Tensor]] = {
            c: travelling[c] for c, part in enumerate(suffixes) if not batch_norms(part)
        }
        found = [np.zeros((len(POLICIES), len(suffixes), len(mine)), self._kind) for mine in self._kept]
        there = np.zeros((len(POLICIES), len(suffixes), len(found)), bool)
        # The training probes first: statistics come of them. Features of one set are in memory.
        same = next((s for s, mine in enumerate(self._kept) if np.array_equal(mine, self._train)), None)
        passes = [(same, self._train)] if len(self._train) else []
        for s, places in passes + [(s, mine) for s, mine in enumerate(self._kept) if s != same]:
            for c, z in enumerate(self._parts.features.whole(t1, places)):
                batches = [
                    self._parts.cuts[c].handed(z[part].to(self._dtype), partial(self._inputs, places[part]))
                    for part in nearly_equal(len(z), self._parts.features.batches.size)
                ]
                if places is self._train and c not in anew:
                    with suppress(OneValue):
                        anew[c] = reestimated(suffixes[c], travelling[c], batches)
                for policy, state in enumerate((travelling[c], anew.get(c), travelling[c])):
                    if s is None or state is None:
                        continue
                    with (
                        suppress(OneValue),
                        by_batch(suffixes[c]) if policy == BATCH else nullcontext(),
                        torch.inference_mode(),
                    ):
                        said = [predicted_classes(functional_call(suffixes[c], state, (z,))) for z in batches]
                        found[s][policy, c] = torch.cat(said).cpu().numpy()
                        there[policy, c, s] = True
        return found, there
