"""Which layers can be put back to an earlier checkpoint while all others stay?

Composites of three segments: everything from checkpoint t2, one piece between two neighbouring cuts from t1. Zhang,
Bengio, Singer, "Are all layers created equal?", JMLR 2022, do this with one layer of the final network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from featdyn.analysis.composites.grid import bank_bytes
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.analysis.options import RewindOptions, suffixes
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.networks import segments, state_for
from featdyn.statistics.resampling import wilson
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.stitch import SuffixBank

HEAD = "head"
"""The last segment, behind the last cut; every other is named by the cut where it ends."""
TOGETHER = 8
"""Checkpoints t1 of one task: they share the pass of t2, which costs less than one of them."""
DIMS = ("segment", "set", "t1", "t2")

Counts: TypeAlias = NDArray[np.int64]


def rewind(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Put each segment of the network of t2 back to what it was at t1.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.RewindOptions`.

    Returns
    -------
    xarray.Dataset
        ``accuracy (segment, set, t1, t2)`` with 95 % Wilson intervals ``accuracy_low`` and ``_high``, ``agreement``
        with the network of t2, and ``drop``, the accuracy of t2's network minus that of the composite.
    """
    chosen = validate(RewindOptions, options, "rewind")
    parts, sets = cut_network(run, model, chosen.cuts, "recomputed"), ProbeSets.of(run)
    t2s, steps, pieces = suffixes(run, chosen.t2), run.checkpoints, len(parts.cuts) + 1
    items = [(t2, b, t1) for t2 in t2s for b in range(len(parts.features.batches)) for t1 in range(0, steps, TOGETHER)]
    right, same = np.zeros((2, pieces, len(sets.names), steps, len(t2s)), np.int64)
    own = np.zeros((len(sets.names), len(t2s)), np.int64)
    workers.admit(_plan(run, parts, len(items), len(t2s)))
    with workers.stage(_Segments(run, parts, sets), parts.around(_Segments, run, sets)) as stage:
        for done, counts in enumerate(stage.map(_Segments.rewound, items), 1):
            t2, _, t1 = items[done - 1]
            cell = ..., slice(t1, t1 + TOGETHER), t2s.index(t2)
            right[cell] += counts[0]
            same[cell] += counts[1]
            if t1 == 0:
                own[:, t2s.index(t2)] += counts[2]
            if progress:
                progress(done, len(items))
    sizes = np.array(sets.sizes)
    accuracy, agreement = (counts / sizes[:, None, None] for counts in (right, same))
    bounds = [wilson(accuracy[:, s], size) for s, size in enumerate(sets.sizes)]
    values = {
        "accuracy": accuracy,
        "accuracy_low": np.stack([low for low, _ in bounds], 1),
        "accuracy_high": np.stack([high for _, high in bounds], 1),
        "agreement": agreement,
        "drop": (own / sizes[:, None])[:, None] - accuracy,
    }
    coords = parts.coords(run, sets).isel(t2=t2s).drop_dims("cut")
    names = np.array([*(cut.name for cut in parts.cuts), HEAD], dtype=object)
    return (
        coords.assign_coords(segment=names)
        .assign({name: (DIMS, array) for name, array in values.items()})
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )


def _plan(run: Run, parts: Stitchable, tasks: int, t2s: int) -> Plan:
    cuts, steps, probes = parts.cuts, run.checkpoints, run.schema.samples
    whole = cuts[0].prefix_macs + cuts[0].suffix_macs
    per_t1 = whole + sum(cut.suffix_macs for cut in cuts)  # all pieces once, and what is behind each
    macs = t2s * probes * (len(range(0, steps, TOGETHER)) * cuts[-1].prefix_macs + steps * per_t1)
    return Plan(
        f"{len(cuts) + 1} segments x {steps * t2s:,} pairs of checkpoints x {probes:,} probes, {macs / 1e12:.3g} T "
        "multiply-adds",
        tasks=tasks,
        reads=0,
        task={"features": parts.pass_bytes},
        state=parts.held | {"suffixes": bank_bytes(parts)},
    )


class _Segments:
    """What tasks need; the suffixes of the newest t2 are kept."""

    def __init__(self, run: Run, parts: Stitchable, sets: ProbeSets) -> None:
        self._parts, self._pieces = parts, segments(parts.cuts)
        self._members, self._labels = np.stack(sets.members), run.coords["label"].values
        self._banks: tuple[int, list[SuffixBank]] | None = None

    def rewound(self, item: tuple[int, int, int]) -> tuple[Counts, Counts, Counts]:
        """Count over one batch, for t2 and some t1 from the given one: who is right, and who agrees with t2's network,
        ``(segment, set, t1)``; and where that is right, ``(set,)``.
        """
        t2, index, first = item
        batch, banks = self._parts.features.batches[index], self._suffixes(t2)
        rows, t1s = batch.stop - batch.start, range(first, min(first + TOGETHER, len(self._parts.states)))
        said = np.empty((len(self._pieces), len(t1s), rows), np.int64)
        with torch.inference_mode():
            inputs = [batch.inputs, *self._parts.features(batch, t2)]
            own = banks[0].run(inputs[1]).predictions[0, :rows].cpu().numpy()
            for i, t1 in enumerate(t1s):
                state = self._parts.states[t1]
                for k, piece in enumerate(self._pieces):
                    z = functional_call(piece, state_for(piece, state), (inputs[k].clone(),))
                    found = banks[k].run(z).predictions[0] if k < len(banks) else z.argmax(1)
                    said[k, i] = found[:rows].cpu().numpy()
        member, labels = self._members[:, batch.start : batch.stop], self._labels[batch.start : batch.stop]
        right, same = (np.einsum("ktn,sn->kst", said == mine, member, dtype=np.int64) for mine in (labels, own))
        return right, same, (member & (own == labels)).sum(1)

    def _suffixes(self, t2: int) -> list[SuffixBank]:
        if self._banks is None or self._banks[0] != t2:
            self._banks = None  # before there are others
            state = self._parts.states[t2]
            self._banks = t2, [SuffixBank.from_states(cut.suffix, [state]) for cut in self._parts.cuts]
        return self._banks[1]
