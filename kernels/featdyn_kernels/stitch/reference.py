"""What stitching means: every suffix in float64, one after the other, on the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def run(
    modules: Sequence[nn.Module], features: Tensor, labels: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return predictions, losses and margins (checkpoint, sample) of float64 suffixes on features (N, ...)."""
    with torch.inference_mode():
        logits = np.stack([m(features.to("cpu", torch.float64, copy=True)).numpy() for m in modules])
    prediction = torch.from_numpy(logits).argmax(-1).numpy()
    if labels is None:
        return prediction, None, None
    own = np.take_along_axis(logits, labels[None, :, None], -1)
    others = np.where(np.arange(logits.shape[-1]) == labels[:, None], -np.inf, logits)
    loss = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1) - own[..., 0]
    return prediction, loss, own[..., 0] - others.max(-1)
