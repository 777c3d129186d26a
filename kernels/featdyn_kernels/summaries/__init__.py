"""Summaries of rows: what a recording keeps of values beside the values themselves, in one pass each.

:func:`rounded` converts rows to the type that they are stored in and sees how they fit it; :func:`summarise` takes
norms, sums, zeros, products with the rows of before and a random projection from what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import choose, implementation, is_tensor, kind_of, like, to_numpy

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

__all__ = ["Summaries", "rounded", "summarise"]

STORED = ("float16", "float32", "float64")
KINDS = ("bfloat16", *STORED)


@dataclass(frozen=True, eq=False)
class Summaries:
    """Of each of N rows, float64 of shape (N,); what was not asked for is None."""

    total: Array
    squares: Array
    """The sum of squares: finite only where all values are (of float64 rows, where their squares are)."""
    nonzero: Array
    product: Array | None = None
    """The sum of products with the row of before."""
    before_squares: Array | None = None
    sketch: Array | None = None
    """(N, width)."""


def rounded(values: Array, out: Array, *, backend: Backend | None = None) -> Array:
    """Write rows into ``out``, rounded to its type, and return the largest finite magnitude of each row before that.

    Parameters
    ----------
    values : array, shape (N, ...)
        float16, bfloat16, float32 or float64.
    out : array, shape (N, ...)
        Contiguous, float16, float32 or float64; the kind of array that ``values`` is, on its device.

    Returns
    -------
    array, shape (N,)
        float64: 0 of a row without finite values, NaN where one holds NaN. Nothing is squared, so nothing vanishes.

    Raises
    ------
    ValueError
        Other shapes, or ``out`` is not contiguous.
    TypeError
        Numbers of another kind than those above.
    """
    for name, array, kinds in (("values", values, KINDS), ("out", out, STORED)):
        if kind_of(array) not in kinds:
            raise TypeError(f"{name} must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {kind_of(array)}")
    require(
        len(values.shape) > 0 and tuple(values.shape) == tuple(out.shape),
        f"values and out must have one shape (N, ...), got {tuple(values.shape)} and {tuple(out.shape)}",
    )
    target: Any = out
    require(bool(target.is_contiguous() if is_tensor(out) else target.flags.c_contiguous), "out must be contiguous")
    chosen = choose(backend, values)
    found: Array = like(implementation("summaries", "rounded", chosen)(_rows(values), _rows(out)), values)
    return found


def summarise(
    stored: Array,
    before: Array | None = None,
    slots: Array | None = None,
    width: int = 0,
    *,
    backend: Backend | None = None,
) -> Summaries:
    """Return sums over each row, all in one pass.

    Parameters
    ----------
    stored : array, shape (N, ...)
        float16, float32 or float64.
    before : array, shape (N, ...), optional
        Other values of the same rows, of the same type: their products are summed.
    slots : integer array, shape (F,), optional
        With the component that each of a row's F values adds to, below ``width``; or subtracts from, ``width`` more: a
        count sketch (Charikar, Chen and Farach-Colton 2002), given by its buckets and signs.
    width : int
        Components of the sketch.

    Raises
    ------
    ValueError
        Other shapes or types, or a slot that is none.
    TypeError
        Numbers of another kind than those above.

    Notes
    -----
    Sums are float64, to a relative error of 1e-12 of the sum of magnitudes. NaN and infinity stay with their rows.
    """
    if kind_of(stored) not in STORED:
        raise TypeError(f"stored must be float16, float32 or float64, got {kind_of(stored)}")
    require(len(stored.shape) > 0, "stored must have shape (N, ...), got ()")
    for other in () if before is None else (before,):
        require(
            tuple(other.shape) == tuple(stored.shape) and kind_of(other) == kind_of(stored),
            f"before must be {kind_of(stored)} of shape {tuple(stored.shape)} like stored, "
            f"got {kind_of(other)} of shape {tuple(other.shape)}",
        )
    rows = _rows(stored)
    places = None
    if slots is not None:
        require_ndim(slots, "slots", 1, "(F,)")
        places = to_numpy(slots, "slots")
        require(len(places) == rows.shape[1], f"slots must have length {rows.shape[1]}, got {len(places)}")
        fits = len(places) == 0 or (int(places.min()) >= 0 and int(places.max()) < 2 * width)
        require(fits, f"slots must lie in [0, {2 * width}), twice the width")
    chosen = choose(backend, stored)
    found: Any = implementation("summaries", "summarise", chosen)(
        rows, None if before is None else _rows(before), places, width
    )
    parts: list[Any] = [None if part is None else like(part, stored) for part in found]
    return Summaries(*parts)


def _rows(array: Any) -> Any:
    """Return ``(N, F)``."""
    return array.reshape(len(array), int(np.prod(array.shape[1:])))
