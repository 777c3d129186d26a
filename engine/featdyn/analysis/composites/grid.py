"""What every composite network predicts: the prefix of checkpoint t1 with the suffix of checkpoint t2.

A task is one t1 and one block of probes: the features at all cuts meet the suffixes of all t2 while they are at hand,
so no prefix is computed, and no feature read, more than once. Where the suffixes of all t2 do not fit into memory they
come in groups, and once for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featdyn.analysis.composites import predictions
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

HELD = 2**30
"""Bytes of suffixes in memory, on each thread of a worker."""
BANK = 6
"""A suffix takes at most so many times its weights: kernels go from 3x3 to 6x6, and twins are kept."""
SOFT = ("loss", "margin", "probability", "divergence")
"""Means over each set: cross-entropy, logit margin, probability of the label, KL(own network of t2 || composite)."""


@dataclass(frozen=True)
class Composites:
    """What the grid of pairs left."""

    prediction: NDArray[np.signedinteger]  # (cut, t1, t2, probe), -1 where a logit is NaN
    soft: NDArray[np.float64]  # (SOFT, cut, set, t1, t2)
    paths: list[str]  # how each cut's suffixes ran: "fused" or "general"


def evaluate(
    context: Context[Any],
    parts: Stitchable,
    members: NDArray[np.float64],
    labels: NDArray[np.int64],
    known: Composites | None = None,
) -> Composites:
    """Run every composite on every probe.

    Buffers travel with their layers: a suffix brings the BatchNorm statistics of its own checkpoint. Of what an earlier
    call found for the first checkpoints, ``known``, only the rows and columns of the others are computed. ``members``
    are ``(probe, set)``, the weight of each probe in each set's mean, ``labels`` ``(probe,)``, classes.
    """
    run = context.run
    steps, blocks = len(parts.states), range(run.schema.blocks)
    old = 0 if known is None else known.prediction.shape[1]
    shape = len(parts.cuts), steps, steps, len(members)
    prediction = np.zeros(shape, predictions.dtype_of(run))
    soft = np.zeros((len(SOFT), len(parts.cuts), members.shape[1], steps, steps))
    if known is not None:
        prediction[:, :old, :old] = known.prediction
        soft[..., :old, :old] = known.soft
    items = [
        (block, t1, t2s)
        for t2s in suffix_groups(parts, old)
        for block in blocks
        for t1 in range(old if t2s.stop <= old else 0, steps)
    ]
    with context.stage(_Grid(run, parts, members, labels), parts.around(_Grid, run, members, labels)) as stage:
        for (block, t1, t2s), found in zip(items, context.each(stage.map(_Grid.block, items)), strict=True):
            span = slice(t2s.start, t2s.stop)
            prediction[:, t1, span, run.schema.block_slice(block)] = found[0]
            soft[..., t1, span] += found[1]
    paths = [SuffixBank.from_states(cut.suffix, parts.states[:1]).path.name for cut in parts.cuts]
    return Composites(prediction, soft, paths)


def suffix_groups(parts: Stitchable, old: int) -> list[range]:
    """Return the t2 whose suffixes are held together, up to :data:`HELD` bytes, in groups that ``old`` does not cut."""
    most = max(1, HELD // bank_bytes(parts))
    steps = len(parts.states)
    return [
        range(start, min(start + most, stop))
        for first, stop in ((0, old), (old, steps))
        for start in range(first, stop, most)
    ]


def bank_bytes(parts: Stitchable) -> int:
    """Return the bytes of one checkpoint's suffixes, at most."""
    return BANK * 4 * sum(cut.suffix_params for cut in parts.cuts) or 1


class _Grid:
    """What the tasks of the grid need; suffixes are kept until a task asks for others."""

    def __init__(self, run: Run, parts: Stitchable, members: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        self._run, self._parts, self._members, self._labels = run, parts, members, labels
        self._banks: tuple[range, list[SuffixBank]] = range(0), []

    def banks(self, t2s: range) -> list[SuffixBank]:
        """Return the suffixes of some checkpoints at each cut."""
        if self._banks[0] != t2s:
            self._banks = range(0), []  # before the new ones are made
            states = self._parts.states[t2s.start : t2s.stop]
            self._banks = t2s, [SuffixBank.from_states(cut.suffix, states) for cut in self._parts.cuts]
        return self._banks[1]

    def block(self, item: tuple[int, int, range]) -> tuple[NDArray[np.signedinteger], NDArray[np.float64]]:
        """Return predictions ``(cut, t2, probe)`` and sums ``(SOFT, cut, set, t2)`` of one block at one t1."""
        index, t1, t2s = item
        banks, samples, batches = self.banks(t2s), self._run.schema.block_slice(index), self._parts.features.batches
        logits = np.stack([self._run.block("outputs/logits", t2, index) for t2 in t2s])
        prediction = np.zeros((len(banks), *logits.shape[:2]), predictions.dtype_of(self._run))
        soft = np.zeros((len(SOFT), len(banks), self._members.shape[1], len(logits)))
        for batch in map(batches.__getitem__, batches.of_block(index)):
            rows, span = batch.stop - batch.start, slice(batch.start - samples.start, batch.stop - samples.start)
            filled = np.minimum(np.arange(batch.rows), rows - 1)  # as the batch is
            own, labels = logits[:, span][:, filled], self._labels[batch.start + filled]
            shares = [(of_set > 0, of_set[of_set > 0]) for of_set in self._members[batch.start : batch.stop].T]
            with torch.inference_mode():
                for c, (cut, z) in enumerate(zip(self._parts.cuts, self._parts.features(batch, t1), strict=True)):
                    found = banks[c].run(cut.handed(z, lambda: batch.inputs), labels, own)  # noqa: B023
                    prediction[c, :, span] = found.predictions[:, :rows].cpu().numpy()
                    loss = found.loss[:, :rows].double()
                    kept = (loss, found.margin[:, :rows], (-loss).exp(), found.divergence[:, :rows])
                    for k, values in enumerate(kept):
                        found_here = values.double().cpu().numpy()  # what is not finite stays in its set
                        soft[k, c] += np.stack([found_here[:, mine] @ weights for mine, weights in shares])
        return prediction, soft
