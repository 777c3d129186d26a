"""What composites give on one block of probes, counted batch by batch, whichever way they were run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.composites import predictions
from featdyn.analysis.composites.halves import apart, tolerances
from featdyn.analysis.inputs.class_labels import output_positions
from featdyn.analysis.inputs.features_at_cuts import Batch
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.store import Run
from featdyn_kernels.stitch import Stitched

Item: TypeAlias = tuple[range, range, range]
"""Blocks of probes, t1 and t2 of a task."""
SOFT = ("loss", "margin", "probability", "divergence")
"""Means over each set: cross-entropy, logit margin, probability of the label, KL(own network of t2 || composite)."""


@dataclass(frozen=True)
class Rows:
    """One batch as suffixes take it, filled up as the batch is; outputs by position are rows of their own."""

    span: slice  # those of the probes, in the block
    labels: NDArray[np.int64]  # (row,)
    own: NDArray[np.floating[Any]]  # (t2, row, class), logits of the networks of t2
    shares: list[tuple[NDArray[np.intp], NDArray[np.float64]]]  # of each set who is in it, and their weights


class Tally:
    """Predictions ``(cut, t1, t2, probe)``, sums over sets ``(SOFT, cut, set, t1, t2)``, and for how many probes t1
    with itself, where it is among the t2, is not its network ``(cut, t1)``; of one block of probes.

    ``members`` are ``(probe, set)``, the weight of each probe in each set's mean, ``labels`` ``(probe,)``, of all
    blocks.
    """

    def __init__(
        self, run: Run, parts: Stitchable, members: NDArray[np.float64], labels: NDArray[np.int64], block: int,
        t1s: range, t2s: range,
    ) -> None:  # fmt: skip
        self.block, self.t1s, self.t2s = block, t1s, t2s
        self._members, self._labels, self._start = members, labels, run.schema.block_slice(block).start
        self._each, self._most = output_positions(run), tolerances(run, parts)
        logits = np.stack([run.block("outputs/logits", t2, block) for t2 in t2s])
        self._logits = logits.reshape(len(t2s), -1, logits.shape[-1])  # every position is a row of the logits
        pairs = len(t1s), len(t2s)
        self.prediction = np.zeros((len(parts.cuts), *pairs, self._logits.shape[1]), predictions.dtype_of(run))
        self.soft = np.zeros((len(SOFT), len(parts.cuts), members.shape[1], *pairs))
        self.different = np.zeros((len(parts.cuts), len(t1s)), np.int64)

    def rows(self, batch: Batch) -> Rows:
        """Return a batch of the block as suffixes take it."""
        each = self._each
        start, rows = batch.start * each, (batch.stop - batch.start) * each
        first = start - self._start * each
        filled = np.minimum(np.arange(batch.rows), batch.stop - batch.start - 1)  # as the batch is
        filled = (filled[:, None] * each + np.arange(each)).ravel()
        shares = [(np.flatnonzero(of_set), of_set[of_set > 0]) for of_set in self._members[start : start + rows].T]
        span = slice(first, first + rows)
        return Rows(span, self._labels[start + filled], self._logits[:, span][:, filled], shares)

    def add(self, cut: int, t1: int, rows: Rows, found: Stitched) -> None:
        """Count what the suffixes of all t2 gave on a batch of t1's features at a cut; batches come in their order."""
        place, count = self.t1s.index(t1), rows.span.stop - rows.span.start
        self.prediction[cut, place, :, rows.span] = found.predictions[:, :count].cpu().numpy()
        if t1 in self.t2s:
            row = self.t2s.index(t1)
            wrong = apart(found, row, rows.labels, rows.own[row], self._most[cut])[:count]
            # At padding there are no outputs to compare with.
            real = wrong if self._each == 1 else wrong & ~np.isnan(rows.own[row, :count, 0])
            self.different[cut, place] += real.sum()
        loss = found.loss[:, :count].double()
        kept = (loss, found.margin[:, :count], (-loss).exp(), found.divergence[:, :count])
        values = np.stack([of_pairs.double().cpu().numpy() for of_pairs in kept])  # not finite stays in its set
        # No product of BLAS, whose order of summation depends on how many t2 there are.
        sums = [(values.take(mine, axis=-1) * weights).sum(-1) for mine, weights in rows.shares]
        self.soft[:, cut, :, place] += np.stack(sums, axis=1)
