"""Squared distances by torch's own direct kernel (no matrix product), in pieces that float32 can sum."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024  # dimensions whose squares are summed in the input's precision


def squared_distances(paths: Tensor) -> Tensor:
    """See :func:`featdyn_kernels.paths.squared_distances`."""
    n, steps, width = paths.shape
    total = torch.zeros(n, steps, steps, dtype=torch.float64, device=paths.device)
    for start in range(0, width, CHUNK):
        part = paths[..., start : start + CHUNK].contiguous()
        total += torch.cdist(part, part, compute_mode="donot_use_mm_for_euclid_dist").double().square()
    return total
