"""What a split is worth, and what no split can beat: in float64, for numpy (``xp`` numpy) and torch alike.

**Lower bound.** With x, z the interactions, z indexed by complements, the program is ``min sum |x| + sum |z|`` subject
to ``Z x - Z^T z - q = v`` and ``|q| <= b``. For prices y with ``|Z^T y| <= 1`` and ``|Z y| <= 1`` its Lagrangian shows
``optimum >= sum_T y_T v_T - b |y_T|``. Any y becomes such a y by division by the largest of those entries, if more than
one. The empty set is apart: its two interactions add up to v(0) + q(0) and its share of L1 is at least
``|v(0) + q(0)|``, so both of its coefficients are free of cost, which asks ``sum y = 0`` (y(0) is set so) and leaves
``min y(0) u + |u|`` over ``|u - v(0)| <= b`` for entry 0.
"""

from __future__ import annotations

from typing import Any

from featdyn_kernels.moebius.transforms import moebius, zeta, zeta_adjoint


def and_or(xp: Any, v: Any, p: Any, q: Any) -> tuple[Any, Any]:
    """Return I_and and I_or (..., 2**n) of the split."""
    half = (v + q) / 2
    v_or = half - p
    i_or = -moebius(xp.flip(v_or, (-1,)))
    i_or[..., 0] = v_or[..., 0]
    return moebius(half + p), i_or


def fold_shift(xp: Any, v: Any, p: Any, q: Any, order: int) -> Any:
    """Return what to add to p so that the OR interactions up to this order (0 or 1) become AND interactions.

    An OR interaction of one variable equals an AND interaction of it, and that of the empty set is a constant.
    """
    v_or = (v + q) / 2 - p
    moved = xp.zeros_like(p)
    moved[:, 0] = v_or[:, 0]
    size = p.shape[-1]
    for variable in range(size.bit_length() - 1 if order else 0):
        moved[:, 1 << variable] = v_or[:, -1] - v_or[:, size - 1 - (1 << variable)]
    return zeta(moved)


def certificate(xp: Any, v: Any, bound: Any, p: Any, q: Any, prices: Any) -> tuple[Any, Any]:
    """Return L1 of the split and the duality gap, each (batch,); ``bound`` is (batch,), the rest (batch, 2**n)."""
    i_and, i_or = and_or(xp, v, p, q)
    l1 = xp.sum(xp.abs(i_and), -1) + xp.sum(xp.abs(i_or), -1)
    y = prices + 0
    y[:, 0] = 0
    y[:, 0] = -xp.sum(y, -1)
    reduced = xp.maximum(xp.amax(xp.abs(zeta_adjoint(y)[:, 1:]), -1), xp.amax(xp.abs(zeta(y)[:, :-1]), -1))
    y = y / xp.clip(reduced, 1.0, None)[:, None]
    nearest = xp.clip(xp.zeros_like(bound), v[:, 0] - bound, v[:, 0] + bound)
    rest = xp.sum(y[:, 1:] * v[:, 1:], -1) - bound * xp.sum(xp.abs(y[:, 1:]), -1)
    return l1, l1 - (rest + y[:, 0] * nearest + xp.abs(nearest))
