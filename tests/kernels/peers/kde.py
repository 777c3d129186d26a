"""What a user would otherwise call for a Gaussian log-density with a lower Cholesky factor as bandwidth."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import gaussian_kde


def scipy_logpdf(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """``gaussian_kde`` with its own (Scott) bandwidth; computes in float64."""
    return gaussian_kde(samples.T).logpdf(queries.T)


def scipy_evaluate(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The log of ``gaussian_kde.evaluate``: no running maximum, -inf where a density underflows."""
    with np.errstate(divide="ignore"):
        return np.log(gaussian_kde(samples.T)(queries.T))


def _whiten(points: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve_triangular(factor, points.T, upper=False).T.contiguous()


def _log_constant(factor: torch.Tensor, n: int) -> float:
    return float(factor.diagonal().log().sum()) + 0.5 * len(factor) * math.log(2 * math.pi) + math.log(n)


def keops_logsumexp(queries: torch.Tensor, samples: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    from pykeops.torch import LazyTensor

    x = LazyTensor(_whiten(queries, factor)[:, None, :])
    y = LazyTensor(_whiten(samples, factor)[None, :, :])
    logs = (-0.5 * ((x - y) ** 2).sum(-1)).logsumexp(dim=1).view(-1)
    return logs - _log_constant(factor, len(samples))


def keops_sum(queries: torch.Tensor, samples: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """KeOps without its running maximum: faster, but -inf where a density underflows."""
    from pykeops.torch import LazyTensor

    x = LazyTensor(_whiten(queries, factor)[:, None, :])
    y = LazyTensor(_whiten(samples, factor)[None, :, :])
    sums = (-0.5 * ((x - y) ** 2).sum(-1)).exp().sum(dim=1).view(-1)
    return sums.log() - _log_constant(factor, len(samples))


def blocked_torch(queries: torch.Tensor, samples: torch.Tensor, factor: torch.Tensor, block: int = 512) -> torch.Tensor:
    """Matrix products block by block, everything after them in place."""
    centre = samples.mean(0)
    x, y = _whiten(queries - centre, factor), _whiten(samples - centre, factor)
    half = -0.5 * y.square().sum(1)
    logs = torch.empty(len(x), dtype=x.dtype, device=x.device)
    for i in range(0, len(x), block):
        rows = x[i : i + block]
        exponents = torch.addmm(half, rows, y.T)
        top = exponents.amax(1)
        sums = exponents.sub_(top[:, None]).exp_().sum(1)
        logs[i : i + block] = sums.log() + top - 0.5 * rows.square().sum(1)
    return logs - _log_constant(factor, len(y))
