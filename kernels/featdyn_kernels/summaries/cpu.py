"""A row at a time, in pieces that stay in the first-level cache: widened once, then summed and scattered from there.

Loops are simple ones that LLVM vectorises for any processor: sums in float64 lanes, magnitudes as integers (bits of
floats are ordered as they are, infinity and NaN last). The sketch is one addition a value to an accumulator that the
cache holds; gathered by component instead, values would be read in random order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._dispatch import is_tensor, to_numpy
from featdyn_kernels._half import magnitude, narrow, numeric, widen
from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.summaries import reference

PIECE = 1024  # values: 8 KiB in float64, twice, beside what is read and the sketch
SHARE = 2**17  # values that are worth a thread
MOST = 2**15  # components whose slots are 16 bits

_INFINITE = np.int32(0x7F800000)  # the bits of float32's infinity


def rounded(values: Any, out: Any) -> np.ndarray[Any, Any]:
    """See :func:`featdyn_kernels.summaries.rounded`; rows are (N, F)."""
    target = to_numpy(out)
    if "float64" in str(values.dtype) or target.dtype == np.float64:  # rare: of networks in float64, and imported
        return reference.rounded(values, out)
    x = _numeric(values)
    target = target.view(np.int16) if target.dtype == np.float16 else target
    found = np.zeros(len(x))
    n, width = x.shape
    if width:
        parallel_blocks(lambda i, j: _rounded(x, target, found, i, j), n, min_block=max(1, SHARE // width))
    return found


def summarise(stored: Any, before: Any, slots: Any, width: int) -> tuple[np.ndarray[Any, Any] | None, ...]:
    """See :func:`featdyn_kernels.summaries.summarise`; rows are (N, F)."""
    if width > MOST or "float64" in str(stored.dtype):  # rare, the latter as above
        return reference.summarise(stored, before, slots, width)
    x = _numeric(stored)
    n, features = x.shape
    compared, projected = before is not None, slots is not None
    # What is not asked for is empty, not None: one machine code for each type.
    y = _numeric(before) if compared else x[:0]
    places = slots.astype(np.uint16) if projected else np.empty(0, np.uint16)
    sums, sketch = np.zeros((5, n)), np.zeros((n, width if projected else 0))
    work = max(1, features * (1 + compared + 2 * projected))
    parallel_blocks(lambda i, j: _summarise(x, y, places, sums, sketch, i, j), n, min_block=max(1, 2 * SHARE // work))
    return (*sums[:3], *(sums[3:] if compared else (None, None)), sketch if projected else None)


def _numeric(rows: Any) -> np.ndarray[Any, Any]:
    """Return rows as Numba reads them; torch turns other memory formats many times faster than NumPy."""
    return numeric(rows.contiguous() if is_tensor(rows) else rows, "rows")


@njit
def _rounded(values: Any, out: Any, found: Any, first: int, stop: int) -> None:
    for n in range(first, stop):
        x, y = values[n], out[n]
        most = np.int32(0)
        for k in range(x.size):
            value = widen(x[k])
            y[k] = narrow(value, y[k])
            bits = magnitude(value)
            most = bits if bits > most else most
        if most > _INFINITE:
            found[n] = np.nan
            continue
        largest = np.float32(0)
        if most == _INFINITE:  # rare: masked scores hold -inf by design
            for k in range(x.size):
                size = abs(widen(x[k]))
                largest = size if largest < size < np.inf else largest
        else:
            largest = np.int32(most).view(np.float32)
        found[n] = largest


@njit(fastmath={"reassoc", "contract"})
def _summarise(stored: Any, before: Any, slots: Any, sums: Any, sketch: Any, first: int, stop: int) -> None:
    features, width = stored.shape[1], sketch.shape[1]
    a, b = np.empty(PIECE), np.empty(PIECE)
    signed = np.empty(2 * width)
    for n in range(first, stop):
        total = squares = nonzero = product = squares_before = 0.0
        signed[:] = 0.0
        for start in range(0, features, PIECE):
            length = min(PIECE, features - start)
            x = stored[n, start : start + length]
            for k in range(length):
                a[k] = widen(x[k])
            for k in range(length):
                total += a[k]
                squares += a[k] * a[k]
                nonzero += 1.0 if a[k] != 0.0 else 0.0
            if before.size:
                y = before[n, start : start + length]
                for k in range(length):
                    b[k] = widen(y[k])
                for k in range(length):
                    product += a[k] * b[k]
                    squares_before += b[k] * b[k]
            if slots.size:
                place = slots[start : start + length]
                for k in range(length):
                    signed[place[k]] += a[k]
        sums[0, n], sums[1, n], sums[2, n], sums[3, n], sums[4, n] = total, squares, nonzero, product, squares_before
        for k in range(width):
            sketch[n, k] = signed[k] - signed[width + k]
