"""The basis in which every operator that treats n variables alike is block-diagonal, with blocks of at most n + 1.

A vector over subsets is a state of n spins, "present" being up. Coupling them one after the other to total spins (the
Schur transform) takes about ``n 2**(n - 1)`` plane rotations; a permutation-invariant operator then mixes only the
d = 2 j + 1 states of one multiplet, and does so alike in all multiplets of that size. The solver inverts
``step * (Z Z^T + Z^T Z) + slack_step * I`` with it, Z being the zeta transform: a sum of three Kronecker powers, which
no single Kronecker power diagonalises.

In a multiplet of d states over some spins, state i (of i + constant spins up) is coupled with the next spin so:
``i up-to-now + 0`` and ``(i - 1) + 1`` become ``sqrt((d - i) / d), sqrt(i / d)`` times them in the multiplet of d + 1,
and ``-sqrt(i / d), sqrt((d - i) / d)`` in that of d - 1 states.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROTATE, SOLVE, ROTATE_BACK = range(3)


@dataclass(frozen=True)
class SchurPlan:
    """How to apply the inverse to ``2**n`` values in place: depth first, so that all but a few steps stay in cache."""

    operations: Array  # (K, 4): kind; start and stop in the pairs, or start in ``places`` and size d; span
    pairs: Array  # (R, 2): where the two sides of a rotation start; each side is ``span`` consecutive values
    turns: Array  # (R, 2): their cosine and sine
    places: Array  # (2**n,): where the states of the multiplets are in the end
    spectrum: Array  # eigenvalues of Z Z^T + Z^T Z, those of size d from ``spectrum_at[d]`` on
    vectors: Array  # their eigenvectors in rows, (d, d) from ``vectors_at[d]`` on
    spectrum_at: Array
    vectors_at: Array


@functools.lru_cache(maxsize=32)
def plan(n: int) -> SchurPlan:
    """Return the plan for n variables."""
    operations: list[tuple[int, int, int, int]] = []
    pairs: list[tuple[int, int]] = []
    turns: list[tuple[float, float]] = []
    places: list[int] = []
    one_of: dict[int, list[int]] = {}  # multiplets by size

    def couple(states: list[int], span: int) -> None:
        """Couple a multiplet, whose states start at these places, with the spins left; ``span`` values are a state."""
        d = len(states)
        if span == 1:
            one_of.setdefault(d, states)
            operations.append((SOLVE, len(places), d, 1))
            places.extend(states)
            return
        half, start = span // 2, len(pairs)
        for i in range(1, d):
            pairs.append((states[i], states[i - 1] + half))
            turns.append((((d - i) / d) ** 0.5, (i / d) ** 0.5))
        rotation = (start, len(pairs), half)
        operations.append((ROTATE, *rotation))
        couple([*states, states[-1] + half], half)
        if d > 1:
            couple([state + half for state in states[:-1]], half)
        operations.append((ROTATE_BACK, *rotation))

    couple([0], 2**n)
    found = SchurPlan(
        operations=np.array(operations, np.int64),
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        turns=np.array(turns, np.float64).reshape(-1, 2),
        places=np.array(places, np.int64),
        spectrum=np.zeros(0),
        vectors=np.zeros(0),
        spectrum_at=np.zeros(n + 2, np.int64),
        vectors_at=np.zeros(n + 2, np.int64),
    )
    return _with_spectrum(found, one_of, n)


def rotate(f: Array, found: SchurPlan, back: bool = False) -> Array:
    """Return ``f (..., 2**n)`` in the coupled basis, or with ``back`` from it."""
    f = f.copy()
    kind, operations = (ROTATE_BACK, found.operations) if back else (ROTATE, found.operations)
    for operation, start, stop, span in operations:
        if operation == kind:
            for (i, j), (c, s) in zip(found.pairs[start:stop], found.turns[start:stop], strict=True):
                a, b = f[..., i : i + span].copy(), f[..., j : j + span].copy()
                f[..., i : i + span] = c * a - s * b if back else c * a + s * b
                f[..., j : j + span] = c * b + s * a if back else c * b - s * a
    return f


def _with_spectrum(found: SchurPlan, one_of: dict[int, list[int]], n: int) -> SchurPlan:
    from featdyn_kernels.moebius.transforms import zeta, zeta_adjoint

    spectrum_at, vectors_at = found.spectrum_at.copy(), found.vectors_at.copy()
    values, vectors = [], []
    at = 0, 0
    for d, states in sorted(one_of.items()):
        spectrum_at[d], vectors_at[d] = at
        units = np.zeros((d, 2**n))
        units[np.arange(d), states] = 1.0
        basis = rotate(units, found, back=True)
        up, down = zeta(basis, backend="reference"), zeta_adjoint(basis, backend="reference")
        value, vector = np.linalg.eigh(np.asarray(down @ down.T + up @ up.T))
        values.append(value)
        vectors.append(vector.T.ravel())
        at = at[0] + d, at[1] + d * d
    return SchurPlan(
        found.operations, found.pairs, found.turns, found.places,
        np.concatenate(values), np.concatenate(vectors), spectrum_at, vectors_at,
    )  # fmt: skip
