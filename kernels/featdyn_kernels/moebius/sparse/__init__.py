"""The sparse AND-OR model of a masked network: how to split a table of outputs so that its interactions are few.

A table v of one output per subset T of present variables is explained by two sets of interactions,

    v(T) + q(T) = v_and(T) + v_or(T),   v_and = (v + q) / 2 + p,   v_or = (v + q) / 2 - p,

I_and the Moebius transform of v_and, I_or(S) minus that of v_or with present and absent swapped (I_or of the empty set
is v_or of it). :func:`sparsify` looks for the p and the small slack q, ``|q| <= bound``, with the least
``L1 = sum |I_and| + sum |I_or|``. That is a linear program. He et al. (arXiv 2407.19198, 2401.16318) descend on it with
SGD, whose result depends on its start and its learning rate; here it is solved, with a proof of how well.

**Method.** Written in interactions, with Z the zeta transform and z the OR interactions indexed by complements, the
program is ``min sum |x| + sum |z|  subject to  Z x - Z^T z - q = v``: basis pursuit with two dictionaries. Each step of
the primal-dual method moves (x, z, q) against the prices y of the constraints (soft thresholds and a clip), then moves
y by the residual times the inverse of ``step * (Z Z^T + Z^T Z) + slack_step * I``: the largest step that converges.
That operator is a sum of Kronecker powers which no Kronecker power diagonalises, but it treats all variables alike and
is block-diagonal in the coupled basis of :mod:`featdyn_kernels.moebius.sparse.schur`, at the cost of two more
transforms. (With steps per entry instead, as Pock and Chambolle propose, 8,000 iterations at n = 10 end where 50 of
these do.) Steps are over-relaxed, and their sizes follow those of the primal and the dual as they are found.

**Gap.** L1 is that of the returned p and q. From any y a lower bound of the program's optimum follows (see
:mod:`featdyn_kernels.moebius.sparse.certificate`), so ``l1 - gap <= optimum <= l1`` holds whatever the solver did, up
to float64 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, implementation, is_tensor, like, namespace
from featdyn_kernels.moebius.sparse.certificate import and_or, certificate, fold_shift
from featdyn_kernels.moebius.transforms import subset_values

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

_LARGEST = 13  # variables


@dataclass(frozen=True)
class SparseModel:
    """What :func:`sparsify` found; arrays are of the kind and dtype of its table, with its leading axes."""

    p: Array  # (..., 2**n), the split: v_and = (v + q) / 2 + p and v_or = (v + q) / 2 - p
    q: Array  # (..., 2**n), the slack, within the bound
    l1: Array  # (...), sum |I_and| + sum |I_or| of this p and q, float64
    gap: Array  # (...), duality gap: l1 - gap is a lower bound of what any p and q reach, float64
    prices: Array  # (..., 2**n), what the lower bound follows from; a start for the next, similar table
    iterations: Array  # (...), how many the solver took


def sparsify(
    v: Array,
    *,
    bound: Any,
    tolerance: float = 0.01,
    iterations: int = 10_000,
    start: SparseModel | None = None,
    fold: int = 1,
    backend: Backend | None = None,
) -> SparseModel:
    """Find the split of each table into AND and OR interactions of least L1.

    Parameters
    ----------
    v : (..., 2**n)
        One output per subset of present variables, bit i of the index being variable i; n from 1 to 13. The literature
        takes the log-odds of the true class; leading axes are samples, checkpoints, networks.
    bound : scalar or (...)
        Largest ``|q|``, one for all tables or one for each; the literature takes 0.02 or 0.04 times ``|v(N) - v(0)|``.
    tolerance
        A table is solved when its gap is at most this times its L1. float32 tables reach about 1e-4, float64 ones 1e-9.
    iterations
        After how many to stop at the latest, rounded up to the next look at the gap (every 20). What was found then is
        returned with its gap; the reference ignores this.
    start
        The result for similar tables of the same shape, such as those of the checkpoint before.
    fold
        1 counts OR interactions of one variable as AND interactions, which they equal; 0 folds that of the empty set
        only. Folding moves p and never raises L1.
    backend
        ``"reference"`` (HiGHS, n up to 11), ``"cpu"`` or ``"gpu"``; by default the device of ``v`` decides.

    Returns
    -------
    SparseModel

    Raises
    ------
    ValueError
        If shapes do not match, values are not finite, or a bound is negative.

    Notes
    -----
    Rounding p to float32 alone makes interactions of about 1e-7 ``|v| 2**(|S|/2)``: an L1 below that is noise.
    """
    chosen = choose(backend, v)
    values = subset_values(v, "v", chosen)
    shape, n = tuple(values.shape), values.shape[-1].bit_length() - 1
    require(1 <= n <= _LARGEST, f"v must have 2 to {2**_LARGEST} values in its last axis, got {shape}")
    require(fold in (0, 1), f"fold must be 0 or 1, got {fold}")
    require(tolerance >= 0, f"tolerance must not be negative, got {tolerance}")
    require(iterations >= 1, f"iterations must be at least 1, got {iterations}")
    xp = namespace(values)
    require(bool(xp.isfinite(values).all()), f"v {shape} must be finite: it holds NaN or infinite values")
    table = values.reshape(-1, shape[-1])
    exact = _bounds(bound, shape[:-1], table, xp)
    limit = _rounded_down(exact, table, xp)
    split, slack, prices = _started(start, table, limit, chosen, xp)
    taken = implementation("moebius.sparse", "solve", chosen)(table, limit, split, slack, prices, tolerance, iterations)

    wide = xp.float64
    v64, q64 = _as(table, wide), _as(slack, wide)
    split = _as(_as(split, wide) + fold_shift(xp, v64, _as(split, wide), q64, fold), table.dtype)
    l1, gap = certificate(xp, v64, exact, _as(split, wide), q64, _as(prices, wide))

    def finished(result: Any, lead: tuple[int, ...] = ()) -> Any:
        return like(result.reshape(shape[:-1] + lead), v)

    return SparseModel(
        p=finished(split, shape[-1:]),
        q=finished(slack, shape[-1:]),
        l1=finished(l1),
        gap=finished(gap),
        prices=finished(prices, shape[-1:]),
        iterations=finished(taken),
    )


def interactions(v: Array, p: Array | None = None, q: Array | None = None) -> tuple[Array, Array]:
    """Return the AND and the OR interactions of tables ``v`` under a split ``p`` and a slack ``q``, both 0 by default.

    All are (..., 2**n), of one shape; I_and and I_or are computed in float64, in the kind and dtype of ``v``. For all
    T, ``v(T) + q(T) = sum_{S in T} I_and(S) + sum_{S meets T, or S = 0} I_or(S)``.
    """
    chosen = choose(None, v)
    values = subset_values(v, "v", chosen)
    xp = namespace(values)
    parts = []
    for name, part in (("p", p), ("q", q)):
        found = xp.zeros_like(values) if part is None else subset_values(part, name, chosen)
        require(
            found.shape == values.shape, f"{name} must have v's shape {tuple(values.shape)}, got {tuple(found.shape)}"
        )
        parts.append(_as(found, xp.float64))
    both = and_or(xp, _as(values, xp.float64), *parts)
    return tuple(like(_as(part, values.dtype), v) for part in both)


def _as(array: Any, kind: Any) -> Any:
    return array.to(kind) if is_tensor(array) else array.astype(kind)


def _bounds(bound: Any, lead: tuple[int, ...], table: Any, xp: Any) -> Any:
    """Return one bound a table, float64, where the table is."""
    found = np.asarray(bound.detach().cpu() if is_tensor(bound) else bound, dtype=np.float64)
    require(found.ndim == 0 or found.shape == lead, f"bound must be a scalar or have shape {lead}, got {found.shape}")
    require(bool((found >= 0).all() and np.isfinite(found).all()), "bound must be finite and not negative")
    each = np.array(np.broadcast_to(found, lead)).reshape(-1)
    return each if xp is np else xp.from_numpy(each).to(table.device)


def _rounded_down(exact: Any, table: Any, xp: Any) -> Any:
    """Return the largest bounds of the table's dtype that do not exceed ``exact``: q stays within what was asked."""
    limit = _as(exact, table.dtype)
    return xp.where(_as(limit, xp.float64) > exact, xp.nextafter(limit, xp.zeros_like(limit)), limit)


def _started(start: SparseModel | None, table: Any, limit: Any, backend: str, xp: Any) -> tuple[Any, Any, Any]:
    """Return fresh p, q and prices to start from and to write into."""
    if start is None:
        return xp.zeros_like(table), xp.zeros_like(table), xp.zeros_like(table)
    parts = []
    for name, part in (("p", start.p), ("q", start.q), ("prices", start.prices)):
        found = subset_values(part, f"start.{name}", backend).reshape(-1, table.shape[-1])
        require(
            found.shape == table.shape,
            f"start.{name} must have v's shape, got {tuple(part.shape)}: another start, or none",
        )
        require(bool(xp.isfinite(found).all()), f"start.{name} must be finite")
        parts.append(_as(found, table.dtype) + 0)
    parts[1] = xp.clip(parts[1], -limit[:, None], limit[:, None])
    return parts[0], parts[1], parts[2]
