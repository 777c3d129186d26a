"""Draws from the spherical Gaussian law at the cost of their smaller side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.randomness import Rng, generator

_BLOCK = 2**19  # entries held at once, 4 MiB: a block stays in the cache


def bartlett(n: int, p: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Yield ``count`` factors of n standard Gaussian vectors in p coordinates, in blocks (b, n, min(n, p)).

    Their rows have the inner products of such vectors: the triangular factor of a Gaussian matrix has independent
    entries, normal below the diagonal and chi with p, p - 1, ... degrees of freedom on it (Bartlett 1933).
    """
    r = min(n, p)
    block = max(1, _BLOCK // (n * r))
    diagonal = np.arange(r)
    for start in range(0, count, block):
        b = min(block, count - start)
        factors = np.tril(rng.standard_normal((b, n, r)), -1)
        factors[:, diagonal, diagonal] = np.sqrt(rng.chisquare(p - diagonal, size=(b, r)))
        yield factors


def eigenvalues(m: int, p: int, count: int, rng: Rng) -> NDArray[np.float64]:
    """Return the min(m, p) non-zero eigenvalues of ``count`` Wishart matrices, ascending: (count, min(m, p)).

    Those of a seed are kept, read-only: a store has thousands of samples of one size, whose baselines are the same.
    """
    small, large = min(m, p), max(m, p)
    if isinstance(rng, np.random.Generator):
        return _drawn(small, large, count, rng)
    return _kept(small, large, count, 0 if rng is None else rng)


@lru_cache(maxsize=16)
def _kept(small: int, large: int, count: int, seed: int) -> NDArray[np.float64]:
    found = _drawn(small, large, count, generator(seed))
    found.flags.writeable = False
    return found


def _drawn(small: int, large: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    with one_thread(small):
        blocks = bartlett(small, large, count, rng)
        return np.concatenate([np.linalg.eigvalsh(f @ f.transpose(0, 2, 1)) for f in blocks])
