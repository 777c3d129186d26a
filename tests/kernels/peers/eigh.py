"""What a user would otherwise call for the eigenpairs of a batch of symmetric matrices (B, n, n)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def torch_eigh(a: torch.Tensor) -> tuple[Any, Any]:
    return tuple(torch.linalg.eigh(a))


def numpy_eigh(a: torch.Tensor) -> tuple[Any, Any]:
    return tuple(map(torch.from_numpy, np.linalg.eigh(a.numpy())))  # float32 is computed in float64 and rounded


PEERS: dict[str, Callable[[torch.Tensor], tuple[Any, Any]]] = {
    "torch.linalg.eigh": torch_eigh,
    "numpy.linalg.eigh": numpy_eigh,
}


# The k largest eigenvalues alone, (B, k), ascending; both return all of them.
VALUES: dict[str, Callable[[torch.Tensor, int], Any]] = {
    "torch.linalg.eigvalsh": lambda a, k: torch.linalg.eigvalsh(a)[:, a.shape[-1] - k :],
    "numpy.linalg.eigvalsh": lambda a, k: torch.from_numpy(np.linalg.eigvalsh(a.numpy())[:, a.shape[-1] - k :]),
}


def torch_svd(x: torch.Tensor) -> tuple[Any, Any]:
    _, sizes, rows = torch.linalg.svd(x, full_matrices=False)
    return sizes.flip(-1) ** 2, rows.flip(-2).mT


def torch_gram(x: torch.Tensor) -> tuple[Any, Any]:
    return tuple(torch.linalg.eigh(x.mT @ x))


# Eigenpairs of x^T x for x (N, F); the second returns all F of them.
GRAM: dict[str, Callable[[torch.Tensor], tuple[Any, Any]]] = {
    "torch.linalg.svd(x)": torch_svd,
    "torch.linalg.eigh(x.T @ x)": torch_gram,
}


def errors(a: Any, values: Any, vectors: Any) -> tuple[float, float]:
    """Return the largest residual, relative to its matrix's largest eigenvalue, and distance from orthonormality."""
    a, values, vectors = (np.asarray(x, np.float64) for x in (a, values, vectors))
    residual = np.abs(a @ vectors - vectors * values[..., None, :])
    norm = np.linalg.norm(a, 2, axis=(-2, -1))
    residual = residual.max((-2, -1), initial=0) / np.where(norm > 0, norm, 1)
    gram = vectors.swapaxes(-1, -2) @ vectors
    return float(residual.max(initial=0)), float(np.abs(gram - np.eye(gram.shape[-1])).max(initial=0))
