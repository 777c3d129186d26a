"""From a bandwidth to coordinates in which the kernel is 2**(-|a - b|^2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import to_numpy

Array = np.ndarray[Any, Any]

_TO_BASE_2 = np.sqrt(0.5 / np.log(2.0))  # exp(-r^2 / 2) = 2**(-(_TO_BASE_2 r)^2)


@dataclass(frozen=True)
class Whitening:
    """The map x -> x * scale (diagonal) or x @ scale.T (full), and the log of the kernel's value at its centre."""

    scale: Array  # (d,) or (d, d), float64
    log_peak: float


def whitening(bandwidth: Any, d: int) -> Whitening:
    """Return the whitening of a scalar, ``(d,)`` or ``(d, d)`` bandwidth (a factor H of the covariance H H^T)."""
    h = to_numpy(bandwidth, "bandwidth").astype(np.float64)
    require(
        h.shape in {(), (d,), (d, d)}, f"bandwidth must be a scalar or have shape ({d},) or ({d}, {d}), got {h.shape}"
    )
    require(bool(np.isfinite(h).all()), "bandwidth must be finite")
    if h.ndim == 2:
        _, log_det = np.linalg.slogdet(h)
        require(
            bool(np.isfinite(log_det)), f"bandwidth must be an invertible factor, this {h.shape} matrix is singular"
        )
        scale = np.linalg.inv(h)
    else:
        h = np.broadcast_to(h, (d,))
        require(bool((h > 0).all()), "bandwidth must be positive")
        log_det = float(np.log(h).sum())
        scale = 1.0 / h
    return Whitening(scale * _TO_BASE_2, -0.5 * d * np.log(2.0 * np.pi) - float(log_det))
