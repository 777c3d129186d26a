"""Draws from the spherical Gaussian law at the cost of their smaller side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.randomness import Rng, generator, seed_of
from featdyn_kernels.eigh import eigvalsh

_BLOCK = 2**19  # entries held at once, 4 MiB: a block stays in the cache
REPLICATES = 999
"""Of directions, of which the smallest p-value is 0.001, the same for all that draw them: our own choice."""
KEPT, SIZES = 2**26, 2  # bytes of numbers that are kept, of so many sizes: 999 sets of 128 in 128 or more
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

    As :func:`bartlett`, each row divided by its length. Of a seed the normal numbers are kept, where they are not too
    many: they are most of the work.
    """
    r = min(n, p)
    if isinstance(rng, np.random.Generator) or _too_many(n, p, count):
        source = generator(rng)
        return _scaled(p, _seed(source), _normals(n, r, count, source))
    seed = seed_of(rng)
    return _scaled(p, _seed(generator(seed)), _kept(_normals_of, n, r, count, seed))


def cosines(n: int, p: int, count: int, rng: Rng) -> Sequence[NDArray[np.float32]] | None:
    """Return the inner products of those directions, in blocks (b, n, n): all that depends on them is a sum over these.

    None where they are not kept: of generators, of more directions than coordinates, or where they are too many.
    """
    if isinstance(rng, np.random.Generator) or n > p or _too_many(n, p, count):
        return None
    return _kept(_cosines_of, n, p, count, seed_of(rng))


def _too_many(n: int, p: int, count: int) -> bool:
    return 4 * count * n * min(n, p) > KEPT


def _scaled(p: int, seed: int, below: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float64]]:
    """Yield factors with these numbers below the diagonal, each row divided by its length."""
    rng = generator(seed)
    for block in below:
        factors, diagonal = block.astype(np.float64), np.arange(block.shape[2])
        factors[:, diagonal, diagonal] = np.sqrt(rng.chisquare(p - diagonal, size=(len(block), len(diagonal))))
        factors /= np.sqrt(np.einsum("bij,bij->bi", factors, factors))[..., None]
        yield factors


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**62))


def _normals(n: int, r: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Yield standard normal numbers below the diagonal of ``count`` matrices ``(n, r)``, 0 elsewhere, in blocks.

    In float32, whose rounding no test of directions sees, to keep twice as many.
    """
    block = max(1, _BLOCK // (n * r))
    for start in range(0, count, block):
        yield np.tril(rng.standard_normal((min(block, count - start), n, r), dtype=np.float32), -1)


@lru_cache(SIZES)
def _kept(
    make: Callable[[int, int, int, int], Iterable[NDArray[np.float32]]], n: int, p: int, count: int, seed: int
) -> tuple[NDArray[np.float32], ...]:
    """Return blocks of numbers, read-only; one cache for all kinds, so that a plan knows how many are held."""
    found = tuple(make(n, p, count, seed))
    for block in found:
        block.flags.writeable = False
    return found


def _normals_of(n: int, r: int, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    rng = generator(seed)
    _seed(rng)  # of what is on the diagonal
    return _normals(n, r, count, rng)


def _cosines_of(n: int, p: int, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
    with one_thread(n):
        for factors in _scaled(p, _seed(generator(seed)), _normals_of(n, n, count, seed)):
            narrow = factors.astype(np.float32)
            yield narrow @ narrow.swapaxes(1, 2)


def directions_bytes(n: int, p: int) -> int:
    """Return the bytes that draws of up to n vectors in p coordinates hold: numbers that are kept, and a block."""
    return SIZES * min(KEPT, 4 * REPLICATES * n * min(n, p)) + _COPIES * 8 * _BLOCK


def largest_shares(m: int, p: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the largest of the eigenvalues of ``count`` Wishart matrices, over their sum: (count,)."""
    small, large = min(m, p), max(m, p)
    found = []
    with one_thread(small):
        for factors in bartlett(small, large, count, rng):
            products = factors @ factors.transpose(0, 2, 1)
            found.append(eigvalsh(products, 1)[:, 0] / np.trace(products, axis1=1, axis2=2))
    return np.concatenate(found)
