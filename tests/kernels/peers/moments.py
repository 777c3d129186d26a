"""What a user would otherwise call for second moments of float32 samples x (N, F), a torch tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# Raw second moments. Without the mean, whose sums are left out in the peers' favour, no covariance follows from them.
RAW: dict[str, Callable[[torch.Tensor], Any]] = {
    "torch float32 x.T @ x": lambda x: x.T @ x,
    "torch float64 x.T @ x": lambda x: x.double().T @ x.double(),
    "numpy float32 x.T @ x": lambda x: x.numpy().T @ x.numpy(),  # numpy sees the symmetry and calls ssyrk
}


def _torch_float64(x: torch.Tensor) -> Any:
    wide = x.double()
    mean = wide.mean(0)
    return wide.T @ wide - len(x) * torch.outer(mean, mean)


def _torch_centred(x: torch.Tensor) -> Any:
    deviation = x - x.mean(0, dtype=torch.float64).float()
    return deviation.T @ deviation


# Centred second moments.
SCATTER: dict[str, Callable[[torch.Tensor], Any]] = {
    "torch float64 x.T @ x, less the mean": _torch_float64,
    "torch float32, centred first": _torch_centred,
}


def _maps_in_float64(x: torch.Tensor) -> Any:
    rows = x.transpose(0, 1).flatten(1).double()
    rows -= rows.mean(1, keepdim=True)
    return rows @ rows.T


def _maps_by_sample(x: torch.Tensor) -> Any:
    wide = x.float()
    deviation = wide - wide.mean((0, 2), dtype=torch.float64).float()[:, None]
    return (deviation @ deviation.mT).sum(0)


# Centred second moments of the channels of maps (N, F, P), every position an observation. In float32 sums over all
# positions of a million are off by 2e-6; sums of each sample are not.
MAPS: dict[str, Callable[[torch.Tensor], Any]] = {
    "torch float64, channels as rows": _maps_in_float64,
    "torch float32, sample by sample": _maps_by_sample,
}


def error(found: Any, expected: Any) -> float:
    """Return the largest ``|found - expected|_ij / sqrt(expected_ii expected_jj)``."""
    scale = np.sqrt(np.diag(expected))
    return float(np.max(np.abs(np.asarray(found) - expected) / np.outer(scale, scale), initial=0.0))
