"""Is a checkpoint that is joined with itself its own network? Where it is not, something passes beside the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.networks import predicted_classes
from featdyn.store import Run
from featdyn_kernels.stitch import Stitched

NOT_HALVES = "something_passes_beside_the_cut"
"""Why the composites of a checkpoint are missing at a cut."""
ROUNDING = 1e-2
"""Of the largest logit: what other kernels, or another device than the recording's, may change. Our own choice."""
STORED = 5e-2
"""The same where features are read that were not kept to the bit: our own choice."""


def tolerances(run: Run, parts: Stitchable) -> list[float]:
    """Return for each cut by how much of the largest logit a checkpoint joined with itself may be off."""
    own = (p.dtype for p in parts.model.parameters() if p.is_floating_point())
    least = max(ROUNDING, 16 * max((torch.finfo(dtype).eps for dtype in own), default=0.0))
    lossy = {
        cut.name
        for cut in parts.cuts
        if parts.sources[cut.name] == "stored" and run.schema[f"layers/{cut.name}/activation"].dtype != "float32"
    }
    return [max(least, STORED) if cut.name in lossy else least for cut in parts.cuts]


def apart(
    found: Stitched, row: int, labels: NDArray[np.int64], own: NDArray[np.floating[Any]], most: float
) -> NDArray[np.bool_]:
    """Return for which probes a composite differs from the network that it should be, ``(N,)``.

    ``own`` are the network's logits ``(N, classes)``; ``row`` is the composite's place in what was ``found``, of which
    loss and margin are compared: both are within twice the tolerance ``most`` where all logits are within it. Of logits
    that are NaN or infinite only the class is.
    """
    logits = own.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    odd = np.any(np.isnan(logits) | (logits == np.inf), axis=1)
    different: NDArray[np.bool_] = odd & (np.asarray(found.predictions[row].cpu()) != predicted_classes(logits))
    scale = np.abs(logits[np.isfinite(logits)]).max(initial=0.0)
    rows, others = np.arange(len(logits)), logits.copy()
    right = logits[rows, labels]
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        wanted = logsumexp(logits, axis=1) - right, right - others.max(1)
    for values, other in zip((found.loss, found.margin), wanted, strict=True):
        one = np.asarray(values[row].double().cpu())
        different |= ~odd & ~np.isclose(one, other, rtol=0.0, atol=2 * most * scale, equal_nan=True)
    return different
