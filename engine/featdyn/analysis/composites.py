"""What every composite network predicts: the prefix of checkpoint t1 with the suffix of checkpoint t2.

Loops are ordered so that no prefix is computed, and no feature read, more than once: for each batch of probes and
each t1, the features at all cuts are made once and meet the suffixes of all t2 while they are at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from featdyn.analysis.dissect import Dissected
from featdyn.analysis.features import batches
from featdyn.capture.tap import device_of
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
        Called with (prefixes done, prefixes in all).
    """
    cuts, states = parts.cuts, parts.states
    steps = len(states)
    old = 0 if known is None else known.prediction.shape[1]
    logits = run.values("outputs/logits")
    prediction = np.zeros((len(cuts), steps, steps, len(members)), np.min_scalar_type(logits.shape[-1] - 1))
    soft = np.zeros((len(SOFT), len(cuts), members.shape[1], steps, steps))
    if known is not None:
        prediction[:, :old, :old] = known.prediction
        soft[..., :old, :old] = known.soft
    banks = [SuffixBank.from_states(cut.suffix, states) for cut in cuts]
    new = [SuffixBank.from_states(cut.suffix, states[old:]) for cut in cuts] if 0 < old < steps else banks
    blocks = list(batches(run, device_of(parts.model)))
    done, total = 0, len(blocks) * steps
    with torch.inference_mode():
        for batch in blocks if old < steps else ():
            rows, span = batch.stop - batch.start, slice(batch.start, batch.stop)
            own = np.repeat(logits[:, span], [1] * (rows - 1) + [1 + len(batch.inputs) - rows], axis=1)
            for t1 in range(steps):
                first = old if t1 < old else 0
                for c, z in enumerate(parts.features(batch, t1)):
                    found = (new if first else banks)[c].run(z, batch.labels, own[first:])
                    prediction[c, t1, first:, span] = found.predictions[:, :rows].cpu().numpy()
                    loss = found.loss[:, :rows].double()
                    kept = (loss, found.margin[:, :rows], (-loss).exp(), found.divergence[:, :rows])
                    for k, values in enumerate(kept):
                        soft[k, c, :, t1, first:] += (values.double().cpu().numpy() @ members[span]).T
                done += 1
                if progress:
                    progress(done, total)
    return Composites(prediction, soft, [bank.path.name for bank in banks])
