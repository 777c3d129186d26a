"""The meaning of the eigenpairs: LAPACK in float64, of the whole matrix, one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np


def eigh(a: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return values (B, k) and vectors (B, n, k) of ``a`` (B, n, n)."""
    batch, n, _ = a.shape
    values, vectors = np.full((batch, k), np.nan), np.full((batch, n, k), np.nan)
    for i, matrix in enumerate(a.astype(np.float64)):
        lower = np.tril(matrix)
        if np.isfinite(lower).all():
            found = np.linalg.eigh(lower)
            values[i], vectors[i] = found.eigenvalues[n - k :], found.eigenvectors[:, n - k :]
    return values, vectors


def eigvalsh(a: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Return values (B, k) of ``a`` (B, n, n)."""
    return eigh(a, k)[0]


def gram_eigh(x: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return values (..., k) and vectors (..., F, k) of ``x^T x`` for ``x`` (..., N, F)."""
    x = x.astype(np.float64)
    features = x.shape[-1]
    values, vectors = eigh((x.swapaxes(-1, -2) @ x).reshape(-1, features, features), k)
    return values.reshape(*x.shape[:-2], k), vectors.reshape(*x.shape[:-2], features, k)
