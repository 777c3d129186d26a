"""The split by the published recipe: SGD on p and q, kept for comparison with published figures.

The group's public code starts from p = q = 0 and takes SGD with momentum 0.9, a learning rate that falls log-spaced to
a tenth, and clips q after each step. It is far from converged for most tables: at n = 10 with planted interactions of
L1 18.1 it reached 51 after 20,000 iterations, and other learning rates ended higher.
"""

from __future__ import annotations

import numpy as np

from featdyn.statistics.interactions.subsets import Values
from featdyn_kernels import moebius
from featdyn_kernels.moebius.sparse.certificate import fold_shift


def published_sgd(
    values: Values,
    bound: Values,
    *,
    fold: int = 1,
    learning_rate: float = 1e-5,
    iterations: int = 20_000,
    momentum: float = 0.9,
) -> tuple[Values, Values]:
    """Return the split p and the slack q, both (..., 2**n), after so many iterations.

    Parameters
    ----------
    values : (..., 2**n)
    bound : (...)
        Largest ``|q|`` of each table.
    fold
        As for :func:`featdyn.statistics.interactions.and_or`; it is done once, at the end, as the code does.
    learning_rate
        At the start: 1e-5 for images, 1e-7 to 1e-5 for text in the public code.
    iterations, momentum
        10,000 to 50,000, and 0.9 (0.999 in the code of 2025).
    """
    if not (0 < learning_rate < np.inf and iterations >= 1 and 0 <= momentum < 1):
        raise ValueError("learning_rate must be positive, iterations at least 1 and momentum in [0, 1)")
    rows, limit = values.reshape(-1, values.shape[-1]), bound.reshape(-1, 1)
    p, q = np.zeros_like(rows), np.zeros_like(rows)
    velocities = np.zeros((2, *rows.shape))
    for rate in np.geomspace(learning_rate, learning_rate / 10, iterations):
        by_and, by_or = _gradients(rows, p, q)
        velocities *= momentum
        velocities += np.stack([by_and - by_or, (by_and + by_or) / 2])
        p -= rate * velocities[0]
        q = np.clip(q - rate * velocities[1], -limit, limit)
    p += fold_shift(np, rows, p, q, fold)
    return p.reshape(values.shape), q.reshape(values.shape)


def _gradients(values: Values, p: Values, q: Values) -> tuple[Values, Values]:
    """Return the subgradient of L1 with respect to v_and and v_or."""
    signs_and, signs_or = (np.sign(part) for part in moebius.interactions(values, p, q))
    empty = signs_or[..., 0].copy()
    signs_or[..., 0] = 0.0  # the OR interaction of the empty set is v_or of it, no sum over subsets
    by_or = -np.asarray(moebius.moebius_adjoint(signs_or))[..., ::-1]
    by_or[..., 0] += empty
    return np.asarray(moebius.moebius_adjoint(signs_and)), by_or
