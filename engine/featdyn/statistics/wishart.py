"""Draws from the spherical Gaussian law at the cost of their smaller side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.randomness import Rng, generator, seed_of

_BLOCK = 2**19  # entries held at once, 4 MiB: a block stays in the cache
REPLICATES = 999  # of directions, of which the smallest p-value is 0.001: the same for all that draw them
KEPT, SIZES = 2**25, 2  # bytes of directions that are kept, of so many sizes: 999 sets of 64 in 64 coordinates or more
_COPIES = 6  # of a block, while it is drawn and decomposed


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


def directions(n: int, p: int, count: int, rng: Rng) -> Iterable[NDArray[np.float64]]:
    """Return ``count`` sets of n independent uniform directions in p coordinates, in blocks (b, n, min(n, p)).

    As :func:`bartlett`, each row divided by its length. Small ones of a seed are kept, as :func:`eigenvalues` are.
    """
    if isinstance(rng, np.random.Generator) or 8 * count * n * min(n, p) > KEPT:
        return map(_scaled, bartlett(n, p, count, generator(rng)))
    return _kept_directions(n, p, count, seed_of(rng))


def _scaled(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    factors /= np.linalg.norm(factors, axis=2, keepdims=True)
    return factors


@lru_cache(SIZES)
def _kept_directions(n: int, p: int, count: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    blocks = tuple(map(_scaled, bartlett(n, p, count, generator(seed))))
    for block in blocks:
        block.flags.writeable = False
    return blocks


def directions_bytes(n: int, p: int) -> int:
    """Return the bytes that draws of up to n vectors in p coordinates hold: directions that are kept, and a block."""
    return SIZES * min(KEPT, 8 * REPLICATES * n * min(n, p)) + _COPIES * 8 * _BLOCK


def eigenvalues(m: int, p: int, count: int, rng: Rng) -> NDArray[np.float64]:
    """Return the min(m, p) non-zero eigenvalues of ``count`` Wishart matrices, ascending: (count, min(m, p)).

    Those of a seed are kept, read-only: a store has thousands of samples of one size, whose baselines are the same.
    """
    small, large = min(m, p), max(m, p)
    if isinstance(rng, np.random.Generator):
        return _drawn(small, large, count, rng)
    return _kept_eigenvalues(small, large, count, seed_of(rng))


@lru_cache(maxsize=16)
def _kept_eigenvalues(small: int, large: int, count: int, seed: int) -> NDArray[np.float64]:
    found = _drawn(small, large, count, generator(seed))
    found.flags.writeable = False
    return found


def _drawn(small: int, large: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    with one_thread(small):
        blocks = bartlett(small, large, count, rng)
        return np.concatenate([np.linalg.eigvalsh(f @ f.transpose(0, 2, 1)) for f in blocks])
