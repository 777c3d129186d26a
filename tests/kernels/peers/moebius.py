"""What a user would otherwise call for a Moebius transform, and copies to show what memory allows."""

from __future__ import annotations

import numpy as np
import torch


def dense_matrix(n: int, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    """The signs of the Moebius transform, (2**n, 2**n), as the public codes of the method build them."""
    one = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=dtype, device=device)
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    for _ in range(n):
        matrix = torch.kron(one, matrix)
    return matrix


def dense(f: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.matmul(f, matrix.T, out=out)


def numpy_loop(f: np.ndarray) -> np.ndarray:
    """One vectorised step per variable."""
    result = f.copy()
    for variable in range(f.shape[-1].bit_length() - 1):
        pairs = result.reshape(-1, 2, 1 << variable)
        pairs[:, 1] -= pairs[:, 0]
    return result


def torch_loop(f: torch.Tensor) -> torch.Tensor:
    result = f.clone()
    for variable in range(f.shape[-1].bit_length() - 1):
        pairs = result.view(-1, 2, 1 << variable)
        pairs[:, 1] -= pairs[:, 0]
    return result
