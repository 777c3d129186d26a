"""One pass over the samples in blocks: sums in float64, centred products in float32 registers and float64 tiles.

For every block of rows: its mean (float64), the deviations from that mean, packed into strips of columns, and their
products, upper triangle only. Deviations from a block's own mean are never larger, in sum of squares, than those from
the mean of all samples, so rounding errors are relative to the scatter itself, however large the means are; and they
are those of short sums: float32 carries ``CHAIN`` products, then ``PANEL / CHAIN`` such sums, then float64 takes over.
The block means are a sample of their own, whose scatter in float64 is the missing part (Chan, Golub, LeVeque 1979).
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from featdyn_kernels._dispatch import to_numpy
from featdyn_kernels._half import numeric, widen
from featdyn_kernels._jit import njit
from featdyn_kernels._simd import WIDE, add_float64, aligned_empty, broadcast, lanes, load, prefetch, splat, store
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.moments.result import Moments

# Columns packed together, registers of a register tile, side of a cache tile. A tile of 4 x 3 registers, twice, and its
# operands fill the 32 registers of AVX-512; 4 x 1, each halved, those of AVX2 (4 x 3 spill there: 3.6 times as long on
# Zen 3). The float64 sums of a cache tile and two panels of deviations share an L2 cache of 1 MB, or 512 KB.
#
# A BLAS is no way out: NumPy's syrk on centred blocks takes 0.7 to 0.85 of our time on Zen 3, but it sums a whole block
# in one chain, and columns of few distinct values (pixels, one-hot) round the same way each time: errors of 2e-6 to
# 5e-6 at 192 to 4,096 rows, where 1e-6 is promised and ours has 2e-7.
STRIP, REGISTERS, SIDE = (48, 3, 192) if WIDE else (16, 1, 128)
ROWS = 4  # rows of a register tile
# Cache lines of a row's float64 sums, which are fetched from L2 while products are made. One thread on a busy Sapphire
# Rapids, 4,000 x 2,048, processor time, medians of five: the products had 0.91 of the speed of NumPy's syrk without it,
# 0.98 with it; compiled for AVX2 0.76 and 0.89.
LINES = 2 * REGISTERS
# Rows packed together, and rows summed before the next longer sum takes over. On a Zen 5 core (peak 119 GFMA/s) 192 and
# 16 gave 90 to 104 GFMA/s, 256 and 16 83 to 88. One sum of 64 rows into float64 gave 86; one of 256 rows 97, but errors
# of 3e-6 on float16, whose few distinct values round the same way again and again.
PANEL, CHAIN = 192, 16
BLOCK_BYTES = 2**23  # packed deviations of one block of rows: stays in the last-level cache
# Products of deviations outside this range would leave float32's normal range: such a block is taken in float64.
SMALLEST, LARGEST = 1e-15, 1e17
# Up to this many columns there are too few tiles to share out: the threads take rows instead, in pieces of one length,
# so that sums do not depend on how many threads there are.
NARROW, PIECE = 512, 2**12


def accumulate(features: Any, outputs: Any, labels: Any, classes: int) -> Moments:
    """See :func:`featdyn_kernels.moments.accumulate`; arguments are checked, ``classes`` is known."""
    parts = [numeric(features, "features")]
    if outputs is not None:
        parts.append(numeric(outputs, "outputs"))
    index = None if labels is None else np.ascontiguousarray(to_numpy(labels), dtype=np.int64)
    n, width = parts[0].shape
    abreast = STRIP // width if width and len(parts) == 1 and index is None else 1
    if abreast > 1 and n >= abreast:
        return _side_by_side(parts[0], abreast)
    return _accumulate(parts, index, classes)


def _side_by_side(rows: np.ndarray[Any, Any], abreast: int) -> Moments:
    """Return the moments of narrow rows: as many as fit a strip stand side by side, which would be padding otherwise.

    They are samples of their own, with moments in the diagonal blocks: 2.8 times as fast at 16 columns, Zen 5.
    """
    n, width = rows.shape
    whole = n - n % abreast
    wide = _accumulate([rows[:whole].reshape(-1, abreast * width)], None, 0)
    columns = [slice(i * width, (i + 1) * width) for i in range(abreast)]
    parts = [Moments(wide.count, wide.mean[mine].copy(), wide.scatter[mine, mine].copy()) for mine in columns]
    if whole < n:
        parts.append(_accumulate([rows[whole:]], None, 0))
    return reduce(add, parts)


def _accumulate(parts: list[np.ndarray[Any, Any]], index: np.ndarray[Any, Any] | None, classes: int) -> Moments:
    n = len(parts[0])
    pieces: dict[int, Moments] = {}

    wide = sum(part.shape[1] for part in parts) > NARROW
    length = n if wide else PIECE

    def work(first: int, stop: int) -> None:
        for piece in range(first, stop):
            rows = slice(piece * length, (piece + 1) * length)
            sample = _Sample([part[rows] for part in parts], None if index is None else index[rows], classes)
            pieces[piece] = sample.moments()

    if wide:
        work(0, 1)
    else:
        parallel_blocks(work, max(1, -(-n // length)))
    return reduce(add, (pieces[piece] for piece in sorted(pieces)))


class _Sample:
    """Rows of features and outputs side by side, each padded to whole strips, and the sums over them."""

    def __init__(self, parts: list[np.ndarray[Any, Any]], index: np.ndarray[Any, Any] | None, classes: int) -> None:
        self.parts = parts
        self.n = len(parts[0])
        self.index = index
        self.firsts = [0]  # first column of each part, and the end
        for part in parts:
            self.firsts.append(self.firsts[-1] + -(-part.shape[1] // STRIP) * STRIP)
        self.width = self.firsts[-1]
        self.dtype = np.float64 if any(part.dtype == np.float64 for part in parts) else np.float32
        side = -(-self.width // SIDE)
        self.scatter = np.zeros((side * (side + 1) // 2, SIDE, SIDE))
        self.class_sum = np.zeros((0 if index is None else classes, self.width))

    def moments(self) -> Moments:
        step = max(1, BLOCK_BYTES // (4 * PANEL * max(self.width, 1))) * PANEL
        packed = aligned_empty(min(step, -(-self.n // PANEL) * PANEL) * self.width, self.dtype)
        sums, rows = [], []
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are propagated in silence
            for start in range(0, self.n, step):
                block = [part[start : start + step] for part in self.parts]
                rows.append(len(block[0]))
                sums.append(self._sum(block, self.index if self.index is None else self.index[start : start + step]))
                self._add_products(block, sums[-1] / rows[-1], packed)
            mean = np.sum(sums, axis=0) / self.n if sums else np.zeros(self.width)
            if len(sums) > 1:
                steps = np.array(sums) / np.array(rows)[:, None] - mean
                parts = [steps[:, first:stop] for first, stop in pairwise(self.firsts)]
                between = [np.sqrt(rows)[:, None] * part for part in parts]
                size = -(-len(rows) // PANEL) * PANEL * self.width
                self._add_products(between, np.zeros(self.width), aligned_empty(size, np.float64))
        return self._collect(mean)

    def _sum(self, block: list[np.ndarray[Any, Any]], index: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
        """Return the column sums of a block, and add its rows to their classes."""
        total = np.zeros(self.width)
        index = np.zeros(0, np.int64) if index is None else index
        for part, first in zip(block, self.firsts, strict=False):
            _over_columns(_sums, part, index, total[first:], self.class_sum[:, first:])
        return total

    def _add_products(self, block: list[np.ndarray[Any, Any]], mean: np.ndarray[Any, Any], packed: Any) -> None:
        """Add the products of deviations from ``mean`` to the tiles of the scatter; ``packed`` is the work space."""
        high = mean.astype(packed.dtype)
        low = (mean - high).astype(packed.dtype)
        reach = np.zeros(self.width, packed.dtype)
        for part, first in zip(block, self.firsts, strict=False):
            _over_columns(_pack, part, packed, self.width, first, high, low, reach)
        if packed.dtype == np.float32 and np.any((reach > LARGEST) | ((reach > 0) & (reach < SMALLEST))):
            self._add_products(block, mean, aligned_empty(packed.size, np.float64))
            return
        rows = len(block[0])
        parallel_blocks(
            lambda start, stop: _products(packed, rows, self.width, start, stop, self.scatter), len(self.scatter)
        )

    def _collect(self, mean: np.ndarray[Any, Any]) -> Moments:
        columns = [slice(first, first + p.shape[1]) for first, p in zip(self.firsts, self.parts, strict=False)]
        found: dict[str, Any] = {"mean": mean[columns[0]].copy(), "scatter": self._scatter(0, 0)}
        if len(columns) == 2:
            found["output_mean"] = mean[columns[1]].copy()
            found["output_scatter"] = self._scatter(1, 1)
            found["cross_scatter"] = self._scatter(0, 1)
        if self.index is not None:
            found["class_count"] = np.bincount(self.index, minlength=len(self.class_sum)).astype(np.float64)
            for name, part in zip(("class_sum", "class_output_sum"), columns, strict=False):
                found[name] = self.class_sum[:, part].copy()
        return Moments(count=self.n, **found)

    def _scatter(self, a: int, b: int) -> np.ndarray[Any, Any]:
        """Return the scatter between parts a and b from its tiles."""
        out = np.empty((self.parts[a].shape[1], self.parts[b].shape[1]))
        first, second = self.firsts[a], self.firsts[b]
        parallel_blocks(
            lambda start, stop: _unpack(self.scatter, self.width, first, second, start, stop, out),
            len(out),
            min_block=2 * STRIP,
            align=STRIP,
        )
        return out


def _over_columns(kernel: Any, part: np.ndarray[Any, Any], *arguments: Any) -> None:
    parallel_blocks(
        lambda start, stop: kernel(part, start, stop, *arguments), part.shape[1], min_block=2 * STRIP, align=STRIP
    )


@njit
def _sums(x: Any, start: int, stop: int, index: Any, total: Any, class_sum: Any) -> None:
    """Add the rows of columns ``start:stop`` to ``total`` and, where there are classes, to their class."""
    total = total[start:stop]
    for i in range(x.shape[0]):
        row = x[i, start:stop]
        for j in range(row.size):
            total[j] += widen(row[j])
        if index.size:
            class_total = class_sum[index[i], start:stop]
            for j in range(row.size):
                class_total[j] += widen(row[j])


@njit
def _pack(x: Any, start: int, stop: int, packed: Any, width: int, first: int, high: Any, low: Any, reach: Any) -> None:
    """Write deviations as packed[panel, strip, row, column], zeros beyond the last column, and their reach."""
    padded = -(-(stop - start) // STRIP) * STRIP
    deviation = np.zeros(padded, packed.dtype)
    columns = slice(first + start, first + stop)
    high, low, reach = high[columns], low[columns], reach[columns]
    for i in range(x.shape[0]):
        row = x[i, start:stop]
        for j in range(row.size):
            # The mean in two parts, so that the rounding error is relative to the deviation, not to the mean.
            value = (packed.dtype.type(widen(row[j])) - high[j]) - low[j]
            deviation[j] = value
            reach[j] = max(reach[j], abs(value))
        target = (i // PANEL) * PANEL * width + (i % PANEL) * STRIP + (first + start) * PANEL
        for strip in range(0, padded, STRIP):
            for j in range(strip, strip + STRIP, REGISTERS * lanes(packed)):
                store(packed, target + j - strip, load(deviation, j, REGISTERS))
            target += PANEL * STRIP


@njit
def _products(packed: Any, rows: int, width: int, start: int, stop: int, scatter: Any) -> None:
    """Add products to the tiles ``start:stop``, counted along the rows of the upper triangle of tiles."""
    sums = scatter.reshape(-1)
    tile_row, tile_column, unit = 0, 0, 0
    while unit < stop:
        if unit >= start:
            for panel in range(0, rows, PANEL):
                depth = min(PANEL, rows - panel)
                for right in range(tile_column * SIDE, min(width, (tile_column + 1) * SIDE), STRIP):
                    for left in range(tile_row * SIDE, min(right + STRIP, (tile_row + 1) * SIDE), STRIP):
                        target = unit * SIDE * SIDE + (left - tile_row * SIDE) * SIDE + right - tile_column * SIDE
                        for j in range(0, STRIP, REGISTERS * lanes(packed)):
                            for i in range(0, STRIP, ROWS):
                                _register_tile(
                                    packed,
                                    panel * width + left * PANEL + i,
                                    panel * width + right * PANEL + j,
                                    depth,
                                    sums,
                                    target + i * SIDE + j,
                                )
        unit += 1
        tile_column += 1
        if tile_column * SIDE >= width:
            tile_row += 1
            tile_column = tile_row


@njit
def _register_tile(packed: Any, left: int, right: int, depth: int, sums: Any, target: int) -> None:
    """Add ``sum over k of packed[left + k * STRIP + (0..3)] * packed[right + k * STRIP + (REGISTERS)]``."""
    for row in range(ROWS):
        prefetch(sums, target + row * SIDE, LINES)
    zero = splat(packed.dtype.type(0), REGISTERS)
    t0, t1, t2, t3 = zero, zero, zero, zero
    for chain in range(0, depth * STRIP, CHAIN * STRIP):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for k in range(chain, min(chain + CHAIN * STRIP, depth * STRIP), STRIP):
            b = load(packed, right + k, REGISTERS)
            s0 = s0 + broadcast(packed, left + k, REGISTERS) * b
            s1 = s1 + broadcast(packed, left + k + 1, REGISTERS) * b
            s2 = s2 + broadcast(packed, left + k + 2, REGISTERS) * b
            s3 = s3 + broadcast(packed, left + k + 3, REGISTERS) * b
        t0, t1, t2, t3 = t0 + s0, t1 + s1, t2 + s2, t3 + s3
    add_float64(sums, target, t0)
    add_float64(sums, target + SIDE, t1)
    add_float64(sums, target + 2 * SIDE, t2)
    add_float64(sums, target + 3 * SIDE, t3)


@njit
def _unpack(scatter: Any, width: int, first: int, second: int, start: int, stop: int, out: Any) -> None:
    """Write rows ``start:stop`` of ``out``, whose element (i, j) belongs to packed columns first + i and second + j."""
    tiles = -(-width // SIDE)
    for top in range(start, stop, STRIP):
        for side in range(0, out.shape[1], STRIP):
            p, q = first + top, second + side
            low, high = min(p, q), max(p, q)  # only strips above the diagonal were summed
            row, column = low // SIDE, high // SIDE
            unit = row * tiles - row * (row - 1) // 2 + column - row
            source = scatter[unit, low - row * SIDE :, high - column * SIDE :]
            for i in range(min(STRIP, stop - top)):
                for j in range(min(STRIP, out.shape[1] - side)):
                    out[top + i, side + j] = source[i, j] if p <= q else source[j, i]
