"""Results of one suffix that somebody else ran, as :class:`featdyn_kernels.stitch.SuffixBank` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn_kernels.stitch.bank import Stitched
from featdyn_kernels.stitch.runner import checked
from featdyn_kernels.stitch.score import Scores, reduce


def scored(
    logits: Tensor, labels: NDArray[np.int64], own: NDArray[np.floating[Any]], *, positions: int = 1
) -> Stitched:
    """Return the results ``(1, N * positions)`` of logits, on the CPU, with the bits of a bank that runs as it stands.

    Parameters
    ----------
    logits
        ``(N, classes)``, with several positions ``(N, positions, classes)``, of any floating-point type.
    labels
        ``(N * positions,)`` true classes.
    own
        ``(1, N * positions, classes)`` logits to diverge from.

    Raises
    ------
    ValueError
        These are no such logits, or labels or own logits are of other classes.
    """
    given = torch.from_numpy(np.ascontiguousarray(own, dtype=np.float32))
    samples, device = len(logits), torch.device("cpu")
    found = Scores(1, samples * positions, torch.from_numpy(labels), given, device, reduce)
    found.put(checked(logits, samples, positions).to(device), 0, slice(None))
    return Stitched(found.prediction, found.loss, found.margin, found.log_odds, found.divergence)
