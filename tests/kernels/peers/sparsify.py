"""What a user would otherwise call to sparsify tables of outputs, and planted tables to try it on."""

from __future__ import annotations

import functools

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from featdyn_kernels.moebius import reference
from featdyn_kernels.moebius.sparse import settings


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


@functools.lru_cache(maxsize=4)
def _operator(size: int, kind: np.dtype) -> tuple[np.ndarray, ...]:
    zeta = _transformed(np.eye(size), 1.0).T
    values, vectors = np.linalg.eigh(zeta @ zeta.T + zeta.T @ zeta)
    return tuple(array.astype(kind) for array in (zeta, values, vectors))


def numpy_iterations(
    values: np.ndarray, bound: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same iterations from p = q = 0 as matrix products over the batch; returns p, q and prices."""
    zeta, spectrum, vectors = _operator(values.shape[1], values.dtype)
    v, b = values, bound[:, None]
    left = np.array(_transformed(v / 2, -1.0), values.dtype)
    right = np.array(-_transformed(v / 2, -1.0, adjoint=True), values.dtype)
    q, y = np.zeros_like(v), np.zeros_like(v)
    first = settings.FIRST_STEP * np.abs(v - v[:, :1]).max(1, keepdims=True)
    step, slack_step = first.copy(), first.copy()

    def soft(x: np.ndarray, free: int) -> np.ndarray:
        result = x - np.clip(x, -step, step)
        result[:, free] = x[:, free]
        return result

    def moved(step: np.ndarray, factor: float, primal: np.ndarray, dual: np.ndarray) -> np.ndarray:
        ratio = factor * np.abs(primal).sum(1, keepdims=True) / np.abs(dual).sum(1, keepdims=True)
        return np.sqrt(step * np.clip(ratio, first / settings.STEP_RANGE, first * settings.STEP_RANGE))

    for k in range(1, iterations + 1):
        looking = k % settings.CHECK == 0
        relaxation = values.dtype.type(1.0 if looking else settings.RELAXATION)
        new_left = soft(left + step * (y @ zeta), 0)
        new_right = soft(right - step * (y @ zeta.T), -1)
        new_q = q - slack_step * y
        empty = v[:, :1] + new_q[:, :1]
        new_q[:, :1] = empty - np.clip(empty, -slack_step, slack_step) - v[:, :1]
        new_q = np.clip(new_q, -b, b)
        residual = (2 * new_left - left) @ zeta.T - (2 * new_right - right) @ zeta - (2 * new_q - q) - v
        move = ((residual @ vectors) / (step * spectrum + slack_step)) @ vectors.T
        left += relaxation * (new_left - left)
        right += relaxation * (new_right - right)
        q += relaxation * (new_q - q)
        y -= relaxation * move
        if looking and k <= settings.ADAPTING:
            reduced = np.concatenate([(y @ zeta)[:, 1:], (y @ zeta.T)[:, :-1] - (y @ zeta.T)[:, -1:]], 1)
            coefficients = np.concatenate([left[:, 1:], right[:, :-1]], 1)
            step, slack_step = (
                moved(step, settings.COEFFICIENT_STEP, coefficients, reduced),
                moved(slack_step, settings.SLACK_STEP, q, y),
            )
    return (left @ zeta.T + right @ zeta) / 2, q, y
