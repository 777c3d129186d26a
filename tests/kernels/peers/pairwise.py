"""What a user would otherwise call for two-sample distances: whole N x N matrices in torch."""

from __future__ import annotations

import torch


def _mean_off_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def _gaussian(x: torch.Tensor, y: torch.Tensor, bandwidth: float) -> torch.Tensor:
    return torch.cdist(x, y).square_().mul_(-0.5 / bandwidth**2).exp_()


def torch_mmd2(x: torch.Tensor, y: torch.Tensor, bandwidth: float) -> torch.Tensor:
    within = sum(_mean_off_diagonal(_gaussian(z, z, bandwidth)) for z in (x, y))
    return within - 2.0 * _gaussian(x, y, bandwidth).mean()


def torch_energy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 2.0 * torch.cdist(x, y).mean() - sum(_mean_off_diagonal(torch.cdist(z, z)) for z in (x, y))


def torch_mmd2_many(points: torch.Tensor, members: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """One kernel matrix, kept, and one matrix product with all labels."""
    kernel = _gaussian(points, points, bandwidth).fill_diagonal_(0.0)
    a = members.to(points.dtype)
    n, m = a.sum(1), (1.0 - a).sum(1)
    towards = a @ kernel
    within, between = (towards * a).sum(1), (towards * (1.0 - a)).sum(1)
    rest = kernel.sum() - within - 2.0 * between
    return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2.0 * between / (n * m)


def torch_sliced(x: torch.Tensor, y: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Order 2, equal sizes."""
    a, b = ((z @ directions.T).sort(0).values for z in (x, y))
    return (a - b).square().mean().sqrt()
