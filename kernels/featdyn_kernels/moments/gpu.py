"""Moments on the GPU: sums in float64, then products of deviations from the mean on the tensor cores, upper tiles only.

Each block of samples is read twice. The first read gives sums, per class, and extremes, in float64 and in a fixed
order. The second takes deviations from the mean, in units of a power of two of their reach, as sums of two float16
numbers: together they have float32's 24 bits, and three products of halves cost half of what three of TF32 do.
``STEP`` rows are summed by the tensor cores, which round down; ``SPAN / STEP`` such sums by float32 additions, which
round to nearest; then float64 takes over. So elements are right to a few roundings of float32, relative to the scatter,
however large the means are. Nothing is added atomically: the same input gives the same bits.

float64 input is left to cuBLAS. Block sizes are untuned: no GPU figure exists yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from featdyn_kernels._dispatch import kind_of, to_device
from featdyn_kernels._tiles.gpu import launcher
from featdyn_kernels.moments.result import Moments

TILE = 128  # side of a tile of the scatter
# Rows of one product of tiles, and of one float32 sum. With 64 a step registers spill (Triton 3.6 and 3.9, compiled for
# an H100).
STEP, SPAN = 32, 1024
UNITS = 14  # deviations stay below 2**14, so that both halves of all but negligible ones are normal float16 numbers
PROGRAMS = 1056  # eight on each of 132 processors
WORK_BYTES = 2**28  # float32 sums kept at a time
_SUM_ROWS, _SUM_COLUMNS = 16, 128
_STRIP = 16


def accumulate(features: Any, outputs: Any, labels: Any, classes: int) -> Moments:
    """See :func:`featdyn_kernels.moments.accumulate`; arguments are checked, ``classes`` is known."""
    parts = [_numbers(features, "features")]
    if outputs is not None:
        parts.append(_numbers(outputs, "outputs"))
    n, device = len(parts[0]), parts[0].device
    if labels is None:
        order, counts = None, torch.tensor([n], device=device)
    else:
        index = to_device(labels).long()
        order, counts = torch.argsort(index, stable=True), torch.bincount(index, minlength=classes)
    limits = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    sums = [moments_sums(part, order, limits) for part in parts]
    means = [part[0].sum(0) / max(n, 1) for part in sums]

    narrow = all(part.dtype != torch.float64 for part in parts)
    shifts = [_shift(mean, s[1].amin(0), s[2].amax(0)) if narrow else mean for mean, s in zip(means, sums, strict=True)]

    def scatter(a: int, b: int) -> torch.Tensor:
        multiply = moments_products if narrow else _float64_products
        found: torch.Tensor = multiply(parts[a], parts[b], shifts[a], shifts[b], a == b)
        return found

    found: dict[str, Any] = {"mean": means[0], "scatter": scatter(0, 0)}
    if outputs is not None:
        found |= {"output_mean": means[1], "output_scatter": scatter(1, 1), "cross_scatter": scatter(0, 1)}
    if labels is not None:
        found["class_count"] = counts.double()
        found |= dict(zip(("class_sum", "class_output_sum"), (s[0] for s in sums), strict=False))
    return Moments(count=n, **found)


def _numbers(array: Any, name: str) -> torch.Tensor:
    tensor = to_device(array)
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {kind_of(tensor)}")
    return tensor.contiguous()


def _shift(mean: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return a power of two per column, and the mean in its units as a sum of two float32 numbers, (3, columns)."""
    reach = torch.maximum(high - mean, mean - low)
    usable = reach.isfinite() & (reach > 0)  # NaN and infinity are propagated, constant columns have no deviations
    exponent = torch.frexp(torch.where(usable, reach, 2.0 ** (UNITS - 1))).exponent
    factor = torch.ldexp(torch.ones_like(mean), (UNITS - exponent).clamp(max=126))
    scaled = mean * factor
    return torch.stack([factor.float(), scaled.float(), (scaled - scaled.float().double()).float()])


def _float64_products(
    left: torch.Tensor, right: torch.Tensor, left_mean: torch.Tensor, right_mean: torch.Tensor, same: bool
) -> torch.Tensor:
    total = left_mean.new_zeros(left.shape[1], right.shape[1])
    rows = max(1, WORK_BYTES // (8 * max(left.shape[1], right.shape[1], 1)))
    for start in range(0, len(left), rows):
        deviation = left[start : start + rows].double() - left_mean
        other = deviation if same else right[start : start + rows].double() - right_mean
        total += deviation.T @ other
    return (total + total.T) / 2 if same else total


@torch.library.triton_op("featdyn::moments_sums", mutates_args={})
def moments_sums(x: torch.Tensor, order: torch.Tensor | None, limits: torch.Tensor) -> torch.Tensor:
    """Return sums, minima and maxima of the rows ``order[limits[c]:limits[c + 1]]`` as (3, classes, columns), float64.

    Without ``order`` the rows are taken as they come.
    """
    n, width = x.shape
    classes, blocks = len(limits) - 1, triton.cdiv(width, _SUM_COLUMNS)
    programs = max(1, classes * blocks)
    splits = max(1, min(triton.cdiv(n, 4 * _SUM_ROWS * max(1, classes)), triton.cdiv(PROGRAMS, programs)))
    found = x.new_empty(3, classes, splits, width, dtype=torch.float64)
    if classes and width:
        launcher(_sums_kernel)[(blocks, splits, classes)](
            x, limits if order is None else order, limits, found, width,
            ORDERED=order is not None, ROWS=_SUM_ROWS, COLUMNS=_SUM_COLUMNS, num_warps=4,
        )  # fmt: skip
    return torch.stack([found[0].sum(1), found[1].amin(1), found[2].amax(1)])


@torch.library.triton_op("featdyn::moments_products", mutates_args={})
def moments_products(
    left: torch.Tensor, right: torch.Tensor, left_shift: torch.Tensor, right_shift: torch.Tensor, same: bool
) -> torch.Tensor:
    """Return the products of deviations, summed over rows, as float64 (left columns, right columns).

    Left and right are float16, bfloat16 or float32; shifts are those of :func:`_shift`. ``same``: both are one array.
    """
    n, tall, wide = len(left), left.shape[1], right.shape[1]
    scatter = left.new_zeros(tall, wide, dtype=torch.float64)
    bl, br = (min(TILE, max(16, triton.next_power_of_2(width))) for width in (tall, wide))
    down, across = triton.cdiv(tall, bl), triton.cdiv(wide, br)
    tiles = across * (across + 1) // 2 if same else down * across
    if not (n and tiles):
        return scatter
    span = triton.cdiv(min(SPAN, max(4 * STEP, n * tiles // PROGRAMS)), STEP) * STEP
    splits = min(triton.cdiv(n, span), max(1, WORK_BYTES // (4 * tiles * bl * br)))
    sums = left.new_empty(tiles, splits, bl, br, dtype=torch.float32)
    for first in range(0, n, splits * span):
        used = min(splits, triton.cdiv(n - first, span))
        launcher(_products_kernel)[(across, down, used)](
            left, right, left_shift, right_shift, sums, first, n, tall, wide, span,
            SAME=same, STEP=STEP, BL=bl, BR=br, num_warps=8 if bl * br > 64 * 64 else 4,
        )  # fmt: skip
        launcher(_add_kernel)[(across, down, bl // _STRIP)](
            sums, left_shift, right_shift, scatter, used, tall, wide,
            SAME=same, BL=bl, BR=br, STRIP=_STRIP, num_warps=4,
        )  # fmt: skip
    return scatter


@triton.jit
def _sums_kernel(
    x_ptr,  # (n, width)
    order_ptr,  # (n,)
    limits_ptr,  # (classes + 1,)
    found_ptr,  # (3, classes, splits, width)
    width,
    ORDERED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    kind = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    begin, end = tl.load(limits_ptr + tl.program_id(2)), tl.load(limits_ptr + tl.program_id(2) + 1)
    share = tl.cdiv(end - begin, tl.num_programs(1))
    begin += share * tl.program_id(1)
    end = tl.minimum(end, begin + share)
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    low = tl.full((ROWS, COLUMNS), float("inf"), kind)
    high = tl.full((ROWS, COLUMNS), float("-inf"), kind)
    for first in range(begin, end, ROWS):
        rows = first + tl.arange(0, ROWS).to(tl.int64)
        inside = (rows < end)[:, None] & (columns < width)[None, :]
        if ORDERED:
            rows = tl.load(order_ptr + rows, rows < end, 0)
        x = tl.load(x_ptr + rows[:, None] * width + columns[None, :], inside, 0.0).to(kind)
        total += x.to(tl.float64)
        low = tl.minimum(low, tl.where(inside, x, float("inf")))
        high = tl.maximum(high, tl.where(inside, x, float("-inf")))
    at = (tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * width + columns
    stride = tl.num_programs(2).to(tl.int64) * tl.num_programs(1) * width
    tl.store(found_ptr + at, tl.sum(total, 0), columns < width)
    tl.store(found_ptr + stride + at, tl.min(low, 0).to(tl.float64), columns < width)
    tl.store(found_ptr + 2 * stride + at, tl.max(high, 0).to(tl.float64), columns < width)


@triton.jit
def _halves(x_ptr, rows, n, columns, width, factor, high, low):
    """Return scaled deviations as two float16 tiles whose sum they are, zero beyond the last row and column."""
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    x = tl.load(x_ptr + rows[:, None].to(tl.int64) * width + columns[None, :], inside, 0.0).to(tl.float32)
    # The mean in two parts, so that the rounding error is relative to the deviation, not to the mean.
    deviation = tl.where(inside, (x * factor[None, :] - high[None, :]) - low[None, :], 0.0)
    coarse = deviation.to(tl.float16)
    return coarse, (deviation - coarse.to(tl.float32)).to(tl.float16)


@triton.jit
def _shift_of(shift_ptr, columns, width):
    inside = columns < width
    factor = tl.load(shift_ptr + columns, inside, 0.0)
    high = tl.load(shift_ptr + width + columns, inside, 0.0)
    return factor, high, tl.load(shift_ptr + 2 * width + columns, inside, 0.0)


@triton.jit
def _tile(tall, down, across, SAME: tl.constexpr):
    """Return where the tile (down, across) is kept; of a symmetric matrix only the upper triangle is."""
    return across * (across + 1) // 2 + down if SAME else across * tall + down


@triton.jit
def _products_kernel(
    left_ptr,  # (n, tall)
    right_ptr,  # (n, wide)
    left_shift_ptr,  # (3, tall)
    right_shift_ptr,  # (3, wide)
    sums_ptr,  # (tiles, splits, BL, BR)
    first,
    n,
    tall,
    wide,
    span,
    SAME: tl.constexpr,
    STEP: tl.constexpr,
    BL: tl.constexpr,
    BR: tl.constexpr,
):
    across, down = tl.program_id(0), tl.program_id(1)
    if SAME and down > across:
        return
    i, j = down * BL + tl.arange(0, BL), across * BR + tl.arange(0, BR)
    left_factor, left_high, left_low = _shift_of(left_shift_ptr, i, tall)
    right_factor, right_high, right_low = _shift_of(right_shift_ptr, j, wide)
    begin = first + tl.program_id(2) * span
    end = tl.minimum(begin + span, n)
    total = tl.zeros((BL, BR), tl.float32)
    for r in range(begin, end, STEP):
        rows = r + tl.arange(0, STEP)
        a, a_rest = _halves(left_ptr, rows, end, i, tall, left_factor, left_high, left_low)
        b, b_rest = _halves(right_ptr, rows, end, j, wide, right_factor, right_high, right_low)
        a, a_rest = tl.trans(a), tl.trans(a_rest)
        # Products of halves are exact, their sums float32; small ones first. What is left out is below 2**-24.
        product = tl.dot(a_rest, b, input_precision="ieee")
        product = tl.dot(a, b_rest, product, input_precision="ieee")
        total += tl.dot(a, b, product, input_precision="ieee")
    tile = _tile(tl.num_programs(1), down, across, SAME).to(tl.int64)
    at = (tile * tl.num_programs(2) + tl.program_id(2)) * BL
    tl.store(sums_ptr + (at + tl.arange(0, BL))[:, None] * BR + tl.arange(0, BR)[None, :], total)


@triton.jit
def _add_kernel(
    sums_ptr,  # (tiles, splits, BL, BR)
    left_shift_ptr,  # (3, tall)
    right_shift_ptr,  # (3, wide)
    scatter_ptr,  # (tall, wide)
    splits,
    tall,
    wide,
    SAME: tl.constexpr,
    BL: tl.constexpr,
    BR: tl.constexpr,
    STRIP: tl.constexpr,
):
    """Add the sums of all splits to the scatter, in its own units and on both sides of the diagonal."""
    across, down = tl.program_id(0), tl.program_id(1)
    if SAME and down > across:
        return
    row, column = tl.program_id(2) * STRIP + tl.arange(0, STRIP), tl.arange(0, BR)
    tile = _tile(tl.num_programs(1), down, across, SAME).to(tl.int64)
    at = (tile * splits * BL + row)[:, None] * BR + column[None, :]
    total = tl.zeros((STRIP, BR), tl.float64)
    for _ in range(splits):
        total += tl.load(sums_ptr + at).to(tl.float64)
        at += BL * BR
    i, j = down * BL + row, across * BR + column
    unit = tl.load(left_shift_ptr + i, i < tall, 1.0).to(tl.float64)[:, None]
    total /= unit * tl.load(right_shift_ptr + j, j < wide, 1.0).to(tl.float64)[None, :]
    kept = (i < tall)[:, None] & (j < wide)[None, :]
    if SAME:
        kept = kept & (i[:, None] <= j[None, :])
    here = scatter_ptr + i[:, None].to(tl.int64) * wide + j[None, :]
    total += tl.load(here, kept, 0.0)
    tl.store(here, total, kept)
    if SAME:
        tl.store(scatter_ptr + j[None, :].to(tl.int64) * wide + i[:, None], total, kept)
