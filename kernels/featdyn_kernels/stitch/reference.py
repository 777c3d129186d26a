"""What stitching means: every suffix in float64, one after the other, on the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from torch import Tensor, nn

from featdyn_kernels.stitch.score import of_classes


def run(
    modules: Sequence[nn.Module],
    features: Tensor,
    labels: NDArray[np.int64] | None,
    own: NDArray[np.float32] | None = None,
    *,
    positions: int = 1,
) -> tuple[NDArray[Any], ...]:
    """Return predictions, then with labels losses, margins and log-odds, then with own logits divergences.

    All are (checkpoint, sample), float64, of float64 suffixes on features (N, ...); what was not asked for is empty.
    With several positions suffixes return (N, positions, class), and each position is a sample.
    """
    with torch.inference_mode():
        logits = np.stack([of_classes(m(features.to("cpu", torch.float64, copy=True))).numpy() for m in modules])
    if positions > 1:
        logits = logits.reshape(len(modules), len(features) * positions, -1)
    prediction = np.where(np.isnan(logits).any(-1), -1, logits.argmax(-1))
    log_q, none = log_softmax(logits, axis=-1), np.empty(0)
    divergence = none
    if own is not None:
        log_p = log_softmax(of_classes(torch.from_numpy(own)).numpy().astype(np.float64), axis=-1)
        divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    if labels is None:
        return prediction, none, none, none, divergence
    picked = np.take_along_axis(logits, labels[None, :, None], -1)[..., 0]
    others = np.where(np.arange(logits.shape[-1]) == labels[:, None], -np.inf, logits)
    loss = -np.take_along_axis(log_q, labels[None, :, None], -1)[..., 0]
    return prediction, loss, picked - others.max(-1), picked - logsumexp(others, axis=-1), divergence
