"""Subset transforms on the CPU: blocks that fit the first cache, then blocks that fit the second, then the rest.

Element ``t`` of a contiguous array is worked on by its bits: a register holds the lowest, a tile of 16 registers four
more, and each further pass takes two to four.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from featdyn_kernels import _simd as simd
from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.moebius.butterflies import butterflies

Array = np.ndarray[Any, Any]

# Bits of a register's number within a tile, a block of the first-level cache (16 KiB) and of the second (256 KiB).
TILE, FIRST, SECOND = 4, 8, 12
# Bytes ahead of the reads that a source is fetched. AMD Zen 5 (EPYC 9005), n = 16, float32, one core: 2 to 32 KiB
# swept, 8 KiB took 5.7 ms where no prefetch took 9.9 ms and a copy 4.4 ms.
AHEAD = 8192
_COLUMNS = 1024  # contiguous elements at a time in the passes over more than the second-level cache
# Elements to a thread, at least. Of 2**20 (n = 12, batch 256) one thread of a Zen 5 takes 0.17 ms where they lie in its
# caches and 0.59 where other work evicts them, two threads 0.19 and 0.71.
_SPREAD = 2**20


def transform(f: Array, out: Array, sign: float, adjoint: bool) -> None:
    """See :func:`featdyn_kernels.moebius.moebius`; ``f`` and ``out`` are contiguous, ``(batch, 2**n)``."""
    n = f.shape[-1].bit_length() - 1
    source, target, factor = f.reshape(-1), out.reshape(-1), f.dtype.type(sign)
    second = SECOND + int(np.log2(simd.REGISTER // f.itemsize))
    low = min(n, second)

    def blocks(start: int, stop: int) -> None:
        _blocks(source, target, low, start, stop, factor, adjoint)

    parallel_blocks(blocks, f.size >> low, min_block=max(1, _SPREAD >> low))
    if n > second:
        # The high bits of one row, column by column: threads may share a row.
        per_row = (1 << second) // _COLUMNS

        def columns(start: int, stop: int) -> None:
            for k in range(start, stop):
                row, column = divmod(k, per_row)
                first = column * _COLUMNS
                strided(target, row << n, second, n, first, first + _COLUMNS, 2, factor, adjoint)

        parallel_blocks(columns, len(f) * per_row)


@njit
def _blocks(source: Any, target: Any, n: int, start: int, stop: int, sign: Any, adjoint: bool) -> None:
    """Transform blocks ``start`` to ``stop`` of ``2**n`` elements each."""
    lanes = simd.lanes(source)
    tile, register = lanes << TILE, 0
    while 1 << register < lanes:
        register += 1
    if n < register + TILE:
        _short(source, target, n, start, stop, sign, adjoint)
        return
    first = min(n, register + FIRST)
    for block in range(start << n, stop << n, 1 << n):
        for part in range(block, block + (1 << n), 1 << first):
            for t in range(part, part + (1 << first), tile):
                simd.prefetch(source, t + AHEAD // source.itemsize, 16)
                if adjoint:
                    butterflies(source, t, target, t, lanes, sign, 16, True, True)
                else:
                    butterflies(source, t, target, t, lanes, sign, 16, True, False)
            strided(target, part, register + TILE, first, 0, tile, 4, sign, adjoint)
        # 16 lines a power of two apart share few sets of the first-level cache: two passes of 4 take half the time.
        strided(target, block, first, n, 0, 1 << first, 2, sign, adjoint)


@njit(specialised=False)
def strided(
    f: Any, start: int, low: int, high: int, first: int, last: int, widest: int, sign: Any, adjoint: bool
) -> None:
    """Transform bits ``low`` to ``high`` of the elements from ``start`` on, at most ``widest`` bits a pass.

    Of every ``2**low`` elements only those from ``first`` to ``last`` are touched.
    """
    lanes = simd.lanes(f)
    bit = low
    while bit < high:
        width = widest if high - bit >= widest else min(2, high - bit)
        stride = 1 << bit
        for group in range(start, start + (1 << high), stride << width):
            for run in range(group, group + stride, 1 << low):
                for i in range(run + first, run + last, lanes):
                    _butterflies(f, i, stride, width, sign, adjoint)
        bit += width


@register_jitable(inline="always")
def _butterflies(f: Any, i: int, stride: int, width: int, sign: Any, adjoint: bool) -> None:
    if adjoint:
        if width == 4:
            butterflies(f, i, f, i, stride, sign, 16, False, True)
        elif width == 2:
            butterflies(f, i, f, i, stride, sign, 4, False, True)
        else:
            butterflies(f, i, f, i, stride, sign, 2, False, True)
    elif width == 4:
        butterflies(f, i, f, i, stride, sign, 16, False, False)
    elif width == 2:
        butterflies(f, i, f, i, stride, sign, 4, False, False)
    else:
        butterflies(f, i, f, i, stride, sign, 2, False, False)


@njit
def _short(source: Any, target: Any, n: int, start: int, stop: int, sign: Any, adjoint: bool) -> None:
    """Transform blocks of less than a tile."""
    target[start << n : stop << n] = source[start << n : stop << n]
    for bit in range(n):
        stride = 1 << bit
        for group in range(start << n, stop << n, 2 * stride):
            for i in range(group, group + stride):
                if adjoint:
                    target[i] += sign * target[i + stride]
                else:
                    target[i + stride] += sign * target[i]
