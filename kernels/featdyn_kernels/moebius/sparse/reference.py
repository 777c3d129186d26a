"""What sparsification means: the linear program, in float64, by HiGHS.

Written in interactions (a row for each subset, multiplied by the Moebius matrix): some 3**n nonzero coefficients, which
HiGHS solves ten times faster than the program in p and q that the method's authors print.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from featdyn_kernels._check import require
from featdyn_kernels.moebius.transforms import moebius_adjoint, zeta

Array = np.ndarray[Any, Any]

_LARGEST = 11


def solve(
    values: Array, bound: Array, split: Array, slack: Array, prices: Array, tolerance: float, iterations: int
) -> Array:
    """Solve each table, ``values`` (batch, 2**n) with ``|slack|`` up to ``bound`` (batch,), to optimality.

    ``split``, ``slack`` and ``prices`` (batch, 2**n) hold the start and are overwritten with the result. Returned are
    the iterations taken, (batch,). HiGHS takes no start, and has its own ``tolerance`` and ``iterations``.
    """
    size = values.shape[1]
    require(size <= 2**_LARGEST, f"v must have at most {_LARGEST} variables for the reference, got {values.shape}")
    taken = np.zeros(len(values), np.int64)
    for k, (table, limit) in enumerate(zip(values.astype(np.float64), bound.astype(np.float64), strict=True)):
        x, z, q, y, taken[k] = linear_program(table, float(limit))
        v_or = z[0] + z.sum() - zeta(z)[::-1]
        split[k], slack[k], prices[k] = (zeta(x) - v_or) / 2, np.clip(q, -bound[k], bound[k]), y
    return taken


def linear_program(table: Array, bound: float) -> tuple[Array, Array, Array, Array, int]:
    """Return I_and, I_or, the slack, the prices of ``I_and's and I_or's tables - slack = table``, and iterations."""
    size = len(table)
    power = scipy.sparse.csr_array(np.ones((1, 1)))
    inverse = power
    for _ in range(size.bit_length() - 1):
        power = scipy.sparse.kron(np.array([[1.0, 0.0], [1.0, 1.0]]), power, format="csr")
        inverse = scipy.sparse.kron(np.array([[1.0, 0.0], [-1.0, 1.0]]), inverse, format="csr")
    v_or = 1.0 - power.toarray()[::-1]
    v_or[:, 0] = 1.0
    either = scipy.sparse.csr_array(inverse @ v_or)
    one = scipy.sparse.eye_array(size)
    result = linprog(
        np.concatenate([np.ones(4 * size), np.zeros(size)]),
        A_eq=scipy.sparse.hstack([one, -one, either, -either, -inverse], format="csc"),
        b_eq=inverse @ table,
        bounds=[(0, None)] * (4 * size) + [(-bound, bound)] * size,
        method="highs-ipm",
    )
    if not result.success or result.x is None:
        raise RuntimeError(f"HiGHS: {result.message}")
    x, z = (
        result.x[2 * k * size : (2 * k + 1) * size] - result.x[(2 * k + 1) * size : (2 * k + 2) * size] for k in (0, 1)
    )
    y = np.asarray(moebius_adjoint(result.eqlin.marginals))
    return x, z, result.x[4 * size :], y, int(result.nit)
