"""What a user would otherwise call for the distances within each path."""

from __future__ import annotations

import torch


def torch_cdist(paths: torch.Tensor) -> torch.Tensor:
    """Differences first: the only mode of torch's that keeps close points apart."""
    return torch.cdist(paths, paths, compute_mode="donot_use_mm_for_euclid_dist").square_()


def torch_products(paths: torch.Tensor) -> torch.Tensor:
    """By a matrix product, in float64 against cancellation."""
    x = paths.double()
    gram = torch.bmm(x, x.transpose(1, 2))
    own = gram.diagonal(dim1=1, dim2=2)
    return own[:, :, None] + own[:, None] - 2.0 * gram


def torch_loop(paths: torch.Tensor) -> torch.Tensor:
    """One time against all others, one after the other."""
    return torch.stack([(paths - paths[:, t, None]).square().sum(-1) for t in range(paths.shape[1])], dim=1)
