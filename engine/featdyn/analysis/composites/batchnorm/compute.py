"""How much do conclusions on composites depend on what is done with BatchNorm?

arXiv 2509.20334 does not say; the three policies are our own choice (feature dynamics, section 6.2 item 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from featdyn.analysis.composites.batchnorm_statistics import by_batch, norms, reestimated
from featdyn.analysis.inputs.probe_sets import ProbeSets, spread
from featdyn.analysis.inputs.recorded_arrays import recorded_classes
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable, cut_network
from featdyn.analysis.options import BatchNormOptions, suffixes
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.errors import FeatdynError
from featdyn.networks import state_for
from featdyn.statistics.resampling import difference_interval
from featdyn.store import Run
from featdyn.validation import validate

POLICIES = ("travel", "reestimated", "batch")
"""Statistics travel with their layers; are estimated anew on the composite's features of the training probes; are those
of the batch."""
DIMS = ("policy", "cut", "set", "t1", "t2")

Places: TypeAlias = NDArray[np.intp]
Predictions: TypeAlias = NDArray[np.unsignedinteger]


def batchnorm(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Evaluate composites under each BatchNorm policy.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.BatchNormOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy (policy, cut, set, t1, t2)``; ``change`` of it against the policy "travel", with ``change_low`` and
        ``change_high``, 95 % score bounds; ``agreement``: with what t2's own network predicts under the
        same policy; ``diagonal_differences (policy, cut)``: predictions at t1 = t2 that differ from the recorded
        network's, which must be 0 for "travel", and for all policies where no BatchNorm follows the cut; coordinate
        ``norms (cut)``, the number of BatchNorm layers behind the cut.

    Raises
    ------
    FeatdynError
        There are no training probes to estimate statistics on.
    """
    chosen = validate(BatchNormOptions, options, "batchnorm")
    parts, sets = cut_network(run, model, chosen.cuts), ProbeSets.of(run)
    if "train" not in sets.names:
        raise FeatdynError(f"{run.path}: holds no training probes, on which to estimate BatchNorm statistics anew")
    kept = spread(run, sets, chosen.samples)
    labels = [run.coords["label"].values[mine] for mine in kept]
    t2s = suffixes(run, chosen.t2)
    shape = len(POLICIES), len(parts.cuts), len(sets.names), run.checkpoints, len(t2s)
    found = {name: np.full(shape, np.nan) for name in ("accuracy", "agreement", "change", "change_low", "change_high")}
    differences = np.zeros(shape[:2], np.int64)
    items = [(t2, t1) for t2 in t2s for t1 in (t2, *(t for t in range(run.checkpoints) if t != t2))]
    workers.admit(_plan(run, parts, kept, len(items)))
    own: list[Predictions] = []  # of t2's own network, which comes first
    train = sets.names.index("train")
    with workers.stage(_Policies(run, parts, kept, train), parts.around(_Policies, run, kept, train)) as stage:
        for done, predicted in enumerate(stage.map(_Policies.composite, items), 1):
            t2, t1 = items[done - 1]
            if t1 == t2:
                own = predicted
                plain = recorded_classes(run, t2)
                differences += sum((mine != plain[places]).sum(-1) for mine, places in zip(own, kept, strict=True))
            for s, mine in enumerate(predicted):  # (policy, cut, probe)
                cell = ..., s, t1, t2s.index(t2)
                right = (mine == labels[s]).astype(np.int8)
                change = right - right[0]
                found["accuracy"][cell], found["change"][cell] = right.mean(-1), change.mean(-1)
                found["agreement"][cell] = (mine == own[s]).mean(-1)
                bounds = difference_interval(change)
                found["change_low"][cell], found["change_high"][cell] = bounds.low, bounds.high
            if progress:
                progress(done, len(items))
    coords = parts.coords(run, sets).isel(t2=t2s).assign_coords(policy=np.array(POLICIES, dtype=object))
    coords["set_size"] = "set", [len(mine) for mine in kept]
    return (
        coords.assign_coords(norms=("cut", [len(norms(cut.suffix)) for cut in parts.cuts]))
        .assign(
            {name: (DIMS, values) for name, values in found.items()}
            | {"diagonal_differences": (("policy", "cut"), differences)}
        )
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )


def _plan(run: Run, parts: Stitchable, kept: list[Places], tasks: int) -> Plan:
    probes, cuts = sum(map(len, kept)), parts.cuts
    layers = BETWEEN * 4 * parts.features.batches.size * max(prod(cut.shape) for cut in cuts)  # of suffixes
    macs = tasks * probes * (cuts[-1].prefix_macs + len(POLICIES) * sum(cut.suffix_macs for cut in cuts))
    return Plan(
        f"{len(cuts)} cuts x {tasks} pairs of checkpoints x {probes:,} probes, {macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=tasks * parts.features.stored_bytes,
        task={"features": max(map(len, kept)) * parts.sample_bytes, "batches": parts.pass_bytes + layers},
        state=parts.held,
        result={"predictions": 2 * len(POLICIES) * len(cuts) * probes},
    )


class _Policies:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, kept: list[Places], train: int) -> None:
        self._parts, self._kept, self._train = parts, kept, train
        self._kind = np.min_scalar_type(run.schema["outputs/logits"].shape[-1] - 1)

    def composite(self, item: tuple[int, int]) -> list[Predictions]:
        """Return what the composite of (t2, t1) predicts for each set, ``(policy, cut, probe)``."""
        t2, t1 = item
        suffixes = [cut.suffix for cut in self._parts.cuts]
        travelling = [state_for(suffix, self._parts.states[t2]) for suffix in suffixes]
        anew: list[dict[str, Tensor]] = []
        found = [np.empty((len(POLICIES), len(suffixes), len(mine)), self._kind) for mine in self._kept]
        # The training probes first: statistics come of them. Features of one set are in memory.
        for s in sorted(range(len(found)), key=lambda s: s != self._train):
            for c, z in enumerate(self._parts.features.whole(t1, self._kept[s])):
                blocks = torch.split(z, self._parts.features.batches.size)
                if s == self._train:
                    anew.append(reestimated(suffixes[c], travelling[c], blocks))
                found[s][0, c] = _predictions(suffixes[c], travelling[c], blocks)
                found[s][1, c] = _predictions(suffixes[c], anew[c], blocks)
                with by_batch(suffixes[c]):
                    found[s][2, c] = _predictions(suffixes[c], anew[c], blocks)
        return found


def _predictions(suffix: nn.Module, state: dict[str, Tensor], blocks: Sequence[Tensor]) -> NDArray[np.int64]:
    with torch.inference_mode():
        return torch.cat([functional_call(suffix, state, (z,)).argmax(1) for z in blocks]).cpu().numpy()
