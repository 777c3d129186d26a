"""One matrix at a time through LAPACK: for what is too large, or too few, to fill the lanes of a register."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from featdyn_kernels._threads import controller, cores, get_threads

# LAPACK's route to a few eigenpairs pays up to this share of all: on 2 Zen 5 cores, 10 of 1,024 took 0.2 to 0.3, and a
# quarter of them 1.2 to 1.5, of the time of torch.linalg.eigh.
FEW = 8


def solve(a: np.ndarray[Any, Any], values: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any]) -> bool:
    """Write the largest ``len(values)`` eigenvalues, ascending, and their vectors as rows; return whether it converged.

    Parameters
    ----------
    a : array, shape (n, n)
        float32 or float64; the lower triangle is read.
    values, vectors : arrays, shapes (k,), (k, n)
        NaN if the lower triangle holds NaN or infinity.
    """
    n, k = len(a), len(values)
    if not _finite(a):
        values[:], vectors[:] = np.nan, np.nan
        return True
    with _threads():
        found = _few(a, k) if k * FEW <= n else _all(a)
    if found is None:
        return False
    values[:], vectors[:] = found[0][-k:], found[1].T[-k:]
    return True


def _finite(a: np.ndarray[Any, Any]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(a.sum()):  # the usual case, at the price of one pass
            return True
    return bool(np.isfinite(np.tril(a)).all())


def _few(a: np.ndarray[Any, Any], k: int) -> tuple[Any, Any] | None:
    from scipy.linalg import LinAlgError, eigh

    try:
        values, vectors = eigh(a, subset_by_index=[len(a) - k, len(a) - 1], driver="evr", check_finite=False)
    except LinAlgError:
        return None
    return values, vectors


def _all(a: np.ndarray[Any, Any]) -> tuple[Any, Any] | None:
    import torch

    try:
        values, vectors = torch.linalg.eigh(torch.from_numpy(np.require(a, requirements="W")))
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return None
    return values.numpy(), vectors.numpy()


@contextmanager
def _threads() -> Iterator[None]:
    """Hold LAPACK to the thread count of this package, where that was lowered."""
    wanted = get_threads()
    if wanted >= cores():
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        with controller().limit(limits=wanted):
            yield
    finally:
        torch.set_num_threads(before)
