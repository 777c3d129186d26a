"""The solver's operator as blocks of one small width, for a machine that is best at products of small matrices.

Half of the variables and the other half are coupled apart (see :mod:`featdyn_kernels.moebius.sparse.schur`), which
takes two small matrices. In that basis ``Z Z^T + Z^T Z``, Z being the zeta transform, mixes only the states of one
multiplet of each half, 7 * 8 = 56 at most (n = 13). Several such sets of states fill one block of width 64.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from featdyn_kernels.moebius.sparse.schur import SOLVE, plan, rotate
from featdyn_kernels.moebius.transforms import zeta

Array = np.ndarray[Any, Any]

WHOLE = 7  # variables up to which the operator is one block, and the basis that of the subsets
_LEAST, _WIDTH = 16, 64  # of a block: products on a GPU take no smaller matrices


@dataclass(frozen=True)
class Blocks:
    """The operator in the basis whose entry ``(a, b)`` is column a of ``high`` times column b of ``low``."""

    high: Array  # (2**h, 2**h): of the h = n // 2 variables with the highest bits; (1, 1) up to ``WHOLE`` variables
    low: Array  # (2**l, 2**l): of the others
    places: Array  # (K, width): the entries that a block mixes, -1 where it is not full
    vectors: Array  # (K, width, width): its eigenvectors in columns, zero where it is not full
    spectrum: Array  # (K, width): its eigenvalues, one where it is not full


@functools.lru_cache(maxsize=32)
def blocks(n: int) -> Blocks:
    """Return the blocks of ``Z Z^T + Z^T Z`` for n variables."""
    high, low = (_half(0, False), _half(n, False)) if n <= WHOLE else (_half(n // 2, True), _half(n - n // 2, True))
    width = max(_LEAST, 2**n) if n <= WHOLE else _WIDTH
    entries = np.arange(2**n).reshape(len(high.basis), -1)
    sets = sorted(((a, b) for a in high.multiplets for b in low.multiplets), key=lambda pair: -_size(*pair))
    eigen: dict[tuple[int, int], Any] = {}
    places: list[Array] = []
    vectors: list[Array] = []
    spectrum: list[Array] = []
    used: list[int] = []  # of each block
    for a, b in sets:
        d = _size(a, b)
        k = next((k for k, states in enumerate(used) if states + d <= width), len(used))
        if k == len(used):
            used.append(0)
            places.append(np.full(width, -1, np.int32))
            vectors.append(np.zeros((width, width)))
            spectrum.append(np.ones(width))
        here = slice(used[k], used[k] + d)
        used[k] += d
        kind = a.stop - a.start, b.stop - b.start  # multiplets of one size are alike
        if kind not in eigen:
            pairs = zip(high.squares, low.squares, strict=True)
            eigen[kind] = np.linalg.eigh(sum(np.kron(x[a, a], y[b, b]) for x, y in pairs))
        places[k][here] = entries[a, b].ravel()
        spectrum[k][here], vectors[k][here, here] = eigen[kind]
    return Blocks(high.basis, low.basis, np.stack(places), np.stack(vectors), np.stack(spectrum))


def _size(a: slice, b: slice) -> int:
    return int(a.stop - a.start) * int(b.stop - b.start)


@dataclass(frozen=True)
class _Half:
    basis: Array
    multiplets: list[slice]  # columns of the basis
    squares: tuple[Array, Array]  # Z Z^T and Z^T Z in the basis


def _half(n: int, coupled: bool) -> _Half:
    basis, multiplets = np.eye(2**n), [slice(0, 2**n)]
    if coupled:
        found = plan(n)
        basis = rotate(basis, found)[:, found.places]
        multiplets = [slice(at, at + d) for kind, at, d, _ in found.operations if kind == SOLVE]
    z = np.asarray(zeta(np.eye(2**n), backend="reference")).T
    up, down = z.T @ basis, z @ basis
    return _Half(basis, multiplets, (up.T @ up, down.T @ down))
