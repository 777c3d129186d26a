"""What a user would otherwise call to sparsify tables of outputs, and planted tables to try it on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from featdyn_kernels.moebius import reference
from featdyn_kernels.moebius.sparse import settings
from featdyn_kernels.moebius.sparse.blocks import blocks


def _transformed(f: np.ndarray, sign: float, adjoint: bool = False) -> np.ndarray:
    out = np.empty(f.shape)
    reference.transform(f.reshape(-1, f.shape[-1]), out.reshape(-1, f.shape[-1]), sign, adjoint)
    return out


def planted(
    n: int, batch: int, terms: int = 12, orders: tuple[int, int] = (2, 5), noise: float = 0.02, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables (batch, 2**n) of ``terms`` AND and as many OR interactions, N(0, 1), and noise; and these interactions."""
    rng = np.random.default_rng(seed)
    order = np.array([bin(s).count("1") for s in range(2**n)])
    sets = np.flatnonzero((order >= orders[0]) & (order <= orders[1]))
    i_and, i_or = np.zeros((2, batch, 2**n))
    for found in (*i_and, *i_or):
        found[rng.choice(sets, min(terms, len(sets)), replace=False)] = rng.normal(size=min(terms, len(sets)))
    v_or = i_or.sum(-1, keepdims=True) - _transformed(i_or, 1.0)[:, ::-1]
    return _transformed(i_and, 1.0) + v_or + noise * rng.normal(size=(batch, 2**n)), i_and, i_or


def highs_as_printed(table: np.ndarray, bound: float) -> float:
    """Least L1 of one table, from the program in p and q as the method's authors print it."""
    size = len(table)
    power = scipy.sparse.csr_array(np.ones((1, 1)))
    for _ in range(size.bit_length() - 1):
        power = scipy.sparse.kron(np.array([[1.0, 0.0], [-1.0, 1.0]]), power, format="csr")
    flipped = scipy.sparse.lil_array(-power[:, ::-1])
    flipped[0] = np.eye(1, size)
    one, i_and, i_or = scipy.sparse.eye_array(size), power, scipy.sparse.csr_array(flipped)
    rows = [
        [i_and, 0.5 * i_and, -one, None],
        [-i_and, -0.5 * i_and, -one, None],
        [-i_or, 0.5 * i_or, None, -one],
        [i_or, -0.5 * i_or, None, -one],
    ]
    half = table / 2
    result = linprog(
        np.repeat([0.0, 1.0], 2 * size),
        A_ub=scipy.sparse.block_array(rows, format="csc"),
        b_ub=np.concatenate([-(i_and @ half), i_and @ half, -(i_or @ half), i_or @ half]),
        bounds=[(None, None)] * size + [(-bound, bound)] * size + [(0, None)] * (2 * size),
        method="highs-ipm",
    )
    assert result.success, result.message
    return float(result.fun)


def numpy_iterations(
    values: np.ndarray, bound: np.ndarray, iterations: int, inverse: str = "blocks"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The solver's iterations from p = q = 0, vectorised over tables and entries; returns p, q and prices.

    ``inverse`` is how the operator is inverted: in a dense basis of eigenvectors, or in our blocks.
    """
    solve = {"dense": _dense_inverse, "blocks": _block_inverse}[inverse](values.shape[1], values.dtype)
    v = np.ascontiguousarray(values.T)  # (2**n, batch): what a variable adds, it adds to contiguous memory
    x, z = _butterflies(v / 2, -1.0, False), -_butterflies(v / 2, -1.0, True)
    q, y = np.zeros_like(v), np.zeros_like(v)
    first = settings.FIRST_STEP * np.abs(v - v[0]).max(0)
    step, slack_step = first, first

    def soft(changed: np.ndarray, free: int) -> np.ndarray:
        kept = changed[free].copy()
        changed -= np.clip(changed, -step, step)
        changed[free] = kept
        return changed

    def moved(step: np.ndarray, factor: float, primal: float, dual: float) -> np.ndarray:
        return np.sqrt(step * np.clip(factor * primal / dual, first / settings.STEP_RANGE, first * settings.STEP_RANGE))

    for k in range(1, iterations + 1):
        looking = k % settings.CHECK == 0
        relaxation = 1.0 if looking else settings.RELAXATION
        new_x = soft(x + step * _butterflies(y, 1.0, True), 0)
        new_z = soft(z - step * _butterflies(y, 1.0, False), -1)
        new_q = q - slack_step * y
        empty = v[0] + new_q[0]
        new_q[0] -= np.clip(empty, -slack_step, slack_step)
        np.clip(new_q, -bound, bound, out=new_q)
        residual = _butterflies(2 * new_x - x, 1.0, False)
        residual -= _butterflies(2 * new_z - z, 1.0, True)
        residual -= 2 * new_q - q
        residual -= v
        y -= relaxation * solve(residual, step, slack_step)
        x += relaxation * (new_x - x)
        z += relaxation * (new_z - z)
        q += relaxation * (new_q - q)
        if looking and k <= settings.ADAPTING:
            up, down = _butterflies(y, 1.0, False), _butterflies(y, 1.0, True)
            dual = np.abs(down[1:]).sum(0) + np.abs(up[:-1] - up[-1]).sum(0)
            primal = np.abs(x[1:]).sum(0) + np.abs(z[:-1]).sum(0)
            step, slack_step = (
                moved(step, settings.COEFFICIENT_STEP, primal, dual),
                moved(slack_step, settings.SLACK_STEP, np.abs(q).sum(0), np.abs(y).sum(0)),
            )
    p = (_butterflies(x, 1.0, False) + _butterflies(z, 1.0, True)) / 2
    return p.T, q.T, y.T


def _butterflies(f: np.ndarray, sign: float, adjoint: bool) -> np.ndarray:
    """Transform (2**n, batch), one vectorised step per variable."""
    result = f.copy()
    for variable in range(len(f).bit_length() - 1):
        pairs = result.reshape(-1, 2, result.shape[1] << variable)
        absent, present = pairs[:, 0], pairs[:, 1]
        receiver, giver = (absent, present) if adjoint else (present, absent)
        if sign > 0:
            receiver += giver
        else:
            receiver -= giver
    return result


@functools.lru_cache(maxsize=4)
def _dense_inverse(size: int, kind: np.dtype) -> Any:
    zeta = _butterflies(np.eye(size), 1.0, False)
    values, vectors = (array.astype(kind) for array in np.linalg.eigh(zeta @ zeta.T + zeta.T @ zeta))

    def solve(x: np.ndarray, step: np.ndarray, slack_step: np.ndarray) -> np.ndarray:
        return vectors @ ((vectors.T @ x) / (step * values[:, None] + slack_step))

    return solve


@functools.lru_cache(maxsize=4)
def _block_inverse(size: int, kind: np.dtype) -> Any:
    found = blocks(size.bit_length() - 1)
    high, low, vectors, values = (
        np.ascontiguousarray(array, kind) for array in (found.high, found.low, found.vectors, found.spectrum)
    )

    def solve(x: np.ndarray, step: np.ndarray, slack_step: np.ndarray) -> np.ndarray:
        batch = x.shape[1]
        halves = np.zeros((size + 1, batch), kind)  # place -1 of a block that is not full reads zero
        halves[:size] = (low.T @ (high.T @ x.reshape(len(high), -1)).reshape(len(high), -1, batch)).reshape(size, batch)
        inner = (vectors.transpose(0, 2, 1) @ halves[found.places]) / (step * values[..., None] + slack_step)
        halves[found.places] = vectors @ inner
        return (high @ (low @ halves[:size].reshape(len(high), -1, batch)).reshape(len(high), -1)).reshape(size, batch)

    return solve
