"""Which layers can be put back to an earlier checkpoint while all others stay?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.composites.grid import apart_macs, refuse_apart, with_apart
from featdyn.analysis.composites.order import Order, admitted
from featdyn.analysis.composites.predictions import (
    NO_COMMON_PREDICTION,
    NO_PREDICTION,
    dtype_of,
    interval_of,
    outputs_bytes,
    share,
)
from featdyn.analysis.composites.rewind import CELLS, RewindOptions
from featdyn.analysis.composites.rewind.streamed import RewindSizes, Rewound, StreamedSegments
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import labelled
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.suffix_banks import bank_bytes, suffixes
from featdyn.analysis.status import Status
from featdyn.compute import Plan
from featdyn.functional import functional_call
from featdyn.networks import predicted_classes, segments, state_for
from featdyn.statistics.resampling import difference_interval, share_interval
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

HEAD = "head"
"""The last segment, behind the last cut; every other is named by the cut where it ends."""
TOGETHER = 8
"""Checkpoints t1 of one task: they share the pass of t2, which costs less than one of them."""

Predictions: TypeAlias = NDArray[np.signedinteger]
Place: TypeAlias = tuple[int, slice, slice]
"""A t2, some t1 and some probes."""


def rewind(context: Context[RewindOptions]) -> xr.Dataset:
    """Put each segment of the network of t2 back to what it was at t1."""
    run = context.run
    sets, labels = labelled(run, context.sets)
    parts, t2s = context.stitchable("recomputed"), context.options.suffixes(run)
    steps, pieces, probes = run.checkpoints, len(parts.cuts) + 1, run.schema.samples
    kind = dtype_of(run)
    said, own = np.zeros((pieces, steps, len(t2s), probes), kind), np.zeros((len(t2s), probes), kind)
    sizes = partial(RewindSizes.of, run, parts, len(t2s))
    order = admitted(context, parts, _plan(run, parts, len(t2s)), sizes)
    refuse_apart(context, parts, labels, order)
    found = _in_memory(context, parts, t2s) if order is None else _streamed(context, parts, t2s, order)
    for (t2, t1s, of), (rewound, plain) in found:
        said[:, t1s, t2s.index(t2), of] = rewound
        own[t2s.index(t2), of] = plain
    values: dict[str, NDArray[Any]] = {}
    for k, s, t1 in np.ndindex(pieces, len(sets.names), steps):
        mine = sets.members[s]
        for name, row in _numbers(said[k, t1][:, mine], own[:, mine], labels[mine], sets.origins[mine]).items():
            values.setdefault(name, np.empty((pieces, len(sets.names), steps, len(t2s)), row.dtype))[k, s, t1] = row
    names = np.array(_names([cut.name for cut in parts.cuts]), dtype=object)
    result = parts.coords(run, sets).isel(t2=t2s).drop_dims("cut").assign_coords(segment=names)
    dims = CELLS.split()
    return result.assign({name: (dims, array) for name, array in values.items()}).assign(
        {
            name: Status(dims, values[of].shape).mark(reason, np.isnan(values[of])).variable()
            for name, of, reason in (
                ("status", "accuracy", NO_PREDICTION), ("paired_status", "agreement", NO_COMMON_PREDICTION)
            )
        }
    )  # fmt: skip


def _in_memory(context: Context[Any], parts: Stitchable, t2s: list[int]) -> Iterator[tuple[Place, Rewound]]:
    """Yield what whole networks give, batch by batch, and where in the result it belongs."""
    batches, run = parts.features.batches, context.run
    items = [(t2, b, t1) for t2 in t2s for b in range(len(batches)) for t1 in range(0, run.checkpoints, TOGETHER)]
    with context.stage(_Segments(run, parts), parts.around(_Segments, run)) as stage:
        for (t2, b, t1), found in zip(items, context.each(stage.map(_Segments.rewound, items)), strict=True):
            _, start, stop = batches.spans[b]
            yield (t2, slice(t1, t1 + TOGETHER), slice(start, stop)), found


def _streamed(
    context: Context[Any], parts: Stitchable, t2s: list[int], order: Order
) -> Iterator[tuple[Place, Rewound]]:
    """Yield the same of networks that pass piece by piece."""
    run = context.run
    items = [(t2, blocks) for blocks in order.groups for t2 in t2s]
    state, again = StreamedSegments(run, parts, order), parts.around(StreamedSegments, run, order)
    with context.stage(state, again) as stage:
        for (t2, blocks), found in zip(items, context.each(stage.map(StreamedSegments.rewound, items)), strict=True):
            start, stop = run.schema.block_slice(blocks[0]).start, run.schema.block_slice(blocks[-1]).stop
            yield (t2, slice(None), slice(start, stop)), found


def _names(cuts: list[str]) -> list[str]:
    """Return the names of all segments, no two of which are the same."""
    return [*cuts, HEAD if HEAD not in cuts else f"behind {cuts[-1]}"]


def _numbers(
    predicted: Predictions, own: Predictions, labels: NDArray[np.int64], origins: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return what predictions ``(t2, probe)`` of composites say beside those of the networks of t2, ``(t2,)``."""
    right, known = predicted == labels, predicted >= 0
    both = known & (own >= 0)
    accuracy = interval_of(share_interval, known, origins, right)
    drop = interval_of(difference_interval, both, origins, (own == labels).astype(np.int8) - right.astype(np.int8))
    counts = {"agreement": share(predicted == own, both), "without_prediction": (~known).sum(-1)}
    return counts | accuracy.named("accuracy") | drop.named("drop")


def _plan(run: Run, parts: Stitchable, t2s: int) -> Plan:
    cuts, steps, probes = parts.cuts, run.checkpoints, run.schema.samples
    whole = cuts[0].prefix_macs + cuts[0].suffix_macs
    per_t1 = whole + sum(cut.suffix_macs for cut in cuts)  # all pieces once, and what is behind each
    macs = t2s * probes * (len(range(0, steps, TOGETHER)) * cuts[-1].prefix_macs + steps * per_t1)
    macs += apart_macs(run, parts)
    pairs = steps * t2s
    plan = Plan(
        f"{len(cuts) + 1} segments x {pairs:,} pairs of checkpoints x all {probes:,} probes, {macs / 1e12:.3g} T "
        "multiply-adds",
        tasks=t2s * len(parts.features.batches) * len(range(0, steps, TOGETHER)),
        reads=0,
        task={
            "features": parts.pass_bytes,
            "outputs": outputs_bytes(run, parts.features.batches.size),
        },
        state=parts.held | {"suffixes": bank_bytes(parts)},
        result={"predictions": 2 * (len(cuts) + 1) * pairs * probes, "intervals": 6 * 8 * t2s * probes},
    )
    return with_apart(plan, run, parts)


class _Segments:
    """What tasks need; the suffixes of the newest t2 are kept."""

    def __init__(self, run: Run, parts: Stitchable) -> None:
        self._parts, self._pieces = parts, segments(parts.cuts)
        self._banks: tuple[int, list[SuffixBank]] | None = None

    def rewound(self, item: tuple[int, int, int]) -> Rewound:
        """Return what is predicted for one batch with t2 and some t1 from the given one, ``(segment, t1, probe)``, and
        by t2's own network, ``(probe,)``.
        """
        t2, index, first = item
        batch, banks = self._parts.features.batches[index], self._suffixes(t2)
        rows, t1s = batch.stop - batch.start, range(first, min(first + TOGETHER, len(self._parts.states)))
        said = np.empty((len(self._pieces), len(t1s), rows), np.int64)

        def handed(k: int, z: Tensor) -> Tensor:
            return self._parts.cuts[k].handed(z, lambda: batch.inputs)

        with torch.inference_mode():
            inputs = [batch.inputs, *map(handed, range(len(banks)), self._parts.features(batch, t2))]
            own = banks[0].run(inputs[1]).predictions[0, :rows].cpu().numpy()
            for i, t1 in enumerate(t1s):
                state = self._parts.states[t1]
                for k, piece in enumerate(self._pieces):
                    z = functional_call(piece, state_for(piece, state), (inputs[k].clone(),))
                    found = banks[k].run(handed(k, z)).predictions[0] if k < len(banks) else predicted_classes(z)
                    said[k, i] = found[:rows].cpu().numpy()
        return said, own

    def _suffixes(self, t2: int) -> list[SuffixBank]:
        if self._banks is None or self._banks[0] != t2:
            self._banks = None  # before there are others
            self._banks = t2, suffixes(self._parts, [self._parts.states[t2]])
        return self._banks[1]
