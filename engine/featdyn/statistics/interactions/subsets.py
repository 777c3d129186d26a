"""Tables over subsets: one value for each subset of n variables on the last axis, bit i of the index being variable
i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks

Values = NDArray[np.float64]


def table(v: ArrayLike, name: str) -> Values:
    """Return ``v (..., 2**n)``, n >= 1, as float64; all values are finite."""
    array = np.asarray(v)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    size = array.shape[-1] if array.ndim else 0
    if size < 2 or size & (size - 1):
        raise ValueError(f"{name} must have shape (..., 2**n) with n >= 1, got {array.shape}")
    return checks.finite(array.astype(np.float64), name)


def alike(a: NDArray[Any], b: NDArray[Any], names: str) -> None:
    """Refuse two arrays of different shapes."""
    if a.shape != b.shape:
        raise ValueError(f"{names} must have one shape, got {a.shape} and {b.shape}")


def variables(size: int) -> int:
    """Return the n of ``size = 2**n``."""
    return size.bit_length() - 1


def orders(n: int) -> NDArray[np.intp]:
    """Return how many variables each of the ``2**n`` subsets holds."""
    return np.bitwise_count(np.arange(2**n)).astype(np.intp)


def by_order(values: Values) -> Values:
    """Return the sums ``(..., n)`` of ``values (..., 2**n)`` over the subsets of order 1 to n; the empty set is left
    out.
    """
    order = orders(variables(values.shape[-1]))
    return np.asarray(values @ (order[:, None] == np.arange(1, order[-1] + 1)))


def divided(part: ArrayLike, whole: ArrayLike) -> Values:
    """Return ``part / whole``, NaN where the whole is not above 0."""
    a, b = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(a, b, out=np.full(b.shape, np.nan), where=b > 0))


def apart(low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """Return whether limits differ by more than rounding: draws that all agree tell no spread."""
    a, b = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return np.asarray(b - a > 1e-12 * (np.abs(a) + np.abs(b)))


def members(subset: int) -> tuple[int, ...]:
    """Return the variables of the subset with this index."""
    return tuple(i for i in range(subset.bit_length()) if subset >> i & 1)


def relabelled(v: ArrayLike, order: ArrayLike) -> NDArray[Any]:
    """Return the table after renaming: variable ``order[i]`` becomes variable i.

    For tables of other programs: one whose first variable is the most significant bit is ``relabelled(v,
    range(n)[::-1])``.

    Parameters
    ----------
    v : (..., 2**n)
    order : (n,)
        A permutation of 0 to n - 1.
    """
    array = np.asarray(v)
    n = variables(array.shape[-1] if array.ndim else 1)
    found = np.asarray(order)
    if array.ndim < 1 or array.shape[-1] != 2**n or sorted(found.tolist()) != list(range(n)):
        raise ValueError(
            f"v {array.shape} must be (..., 2**n) and order a permutation of 0 to n - 1, got {found.tolist()}"
        )
    new = np.arange(2**n)
    return array[..., sum(((new >> i & 1) << int(old) for i, old in enumerate(found)), np.zeros_like(new))]
