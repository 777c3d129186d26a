"""What every composite network predicts: the prefix of checkpoint t1 with the suffix of checkpoint t2.

A task is one t1 and one block of probes: no prefix is computed, and no feature read, more than once, as the features at
all cuts meet the suffixes of all t2 while they are at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from featdyn.analysis.dissect import Dissected
from featdyn.compute import SERIAL, Workers
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

SOFT = ("loss", "margin", "probability", "divergence")
"""Means over each set: cross-entropy, logit margin, probability of the label, KL(own network of t2 || composite)."""


@dataclass(frozen=True)
class Composites:
    """What the grid of pairs left."""

    prediction: NDArray[np.unsignedinteger]  # (cut, t1, t2, probe)
    soft: NDArray[np.float64]  # (SOFT, cut, set, t1, t2)
    paths: list[str]  # how each cut's suffixes ran: "fused" or "general"


def evaluate(
    run: Run,
    parts: Dissected,
    members: NDArray[np.float64],
    known: Composites | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
) -> Composites:
    """Run every composite on every probe.

    Parameters
    ----------
    parts
        The network. Buffers travel with their layers: a suffix brings the BatchNorm statistics of its own checkpoint.
    members
        ``(probe, set)``, the weight of each probe in each set's mean.
    known
        What an earlier call found for the first checkpoints: only the rows and columns of the others are computed.
    progress
        Called with (tasks done, in all).
    """
    steps = len(parts.states)
    old = 0 if known is None else known.prediction.shape[1]
    classes = run.schema["outputs/logits"].shape[-1]
    shape = len(parts.cuts), steps, steps, len(members)
    prediction = np.zeros(shape, np.min_scalar_type(classes - 1))
    soft = np.zeros((len(SOFT), len(parts.cuts), members.shape[1], steps, steps))
    if known is not None:
        prediction[:, :old, :old] = known.prediction
        soft[..., :old, :old] = known.soft
    grid = _Grid(run, parts, members, old)
    items = [(block, t1) for block in range(run.schema.blocks) for t1 in range(steps)] if old < steps else []
    with workers.stage(grid, partial(_again, run, parts.again, members, old)) as stage:
        for done, found in enumerate(stage.map(_Grid.block, items), 1):
            block, t1 = items[done - 1]
            first = grid.first(t1)
            prediction[:, t1, first:, run.schema.block_slice(block)] = found[0]
            soft[..., t1, first:] += found[1]
            if progress:
                progress(done, len(items))
    return Composites(prediction, soft, [bank.path.name for bank in grid.banks])


class _Grid:
    """What the tasks of the grid need; the pairs of the first ``old`` checkpoints are known."""

    def __init__(self, run: Run, parts: Dissected, members: NDArray[np.float64], old: int) -> None:
        self._run, self._parts, self._members, self._old = run, parts, members, old
        states, cuts = parts.states, parts.cuts
        self.banks = [SuffixBank.from_states(cut.suffix, states) for cut in cuts]
        some = 0 < old < len(states)
        self._new = [SuffixBank.from_states(cut.suffix, states[old:]) for cut in cuts] if some else self.banks

    def first(self, t1: int) -> int:
        """Return the first t2 that is not known."""
        return self._old if t1 < self._old else 0

    def block(self, item: tuple[int, int]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]:
        """Return predictions ``(cut, t2, probe)`` and sums ``(SOFT, cut, set, t2)`` of one block at one t1."""
        index, t1 = item
        first, samples, batches = self.first(t1), self._run.schema.block_slice(index), self._parts.features.batches
        logits = np.stack([
            self._run.block("outputs/logits", t2, index) for t2 in range(first, len(self._parts.states))
        ])  # fmt: skip
        cuts, sets = len(self._parts.cuts), self._members.shape[1]
        prediction = np.zeros((cuts, *logits.shape[:2]), np.min_scalar_type(logits.shape[-1] - 1))
        soft = np.zeros((len(SOFT), cuts, sets, len(logits)))
        for batch in map(batches.__getitem__, batches.of_block(index)):
            rows, span = batch.stop - batch.start, slice(batch.start - samples.start, batch.stop - samples.start)
            own = np.repeat(logits[:, span], [1] * (rows - 1) + [1 + len(batch.inputs) - rows], axis=1)
            members = self._members[batch.start : batch.stop]
            with torch.inference_mode():
                for c, z in enumerate(self._parts.features(batch, t1)):
                    found = (self._new if first else self.banks)[c].run(z, batch.labels, own)
                    prediction[c, :, span] = found.predictions[:, :rows].cpu().numpy()
                    loss = found.loss[:, :rows].double()
                    kept = (loss, found.margin[:, :rows], (-loss).exp(), found.divergence[:, :rows])
                    for k, values in enumerate(kept):
                        soft[k, c] += (values.double().cpu().numpy() @ members).T
        return prediction, soft


def _again(run: Run, parts: Callable[[], Dissected], members: NDArray[np.float64], old: int) -> _Grid:
    return _Grid(run, parts(), members, old)
