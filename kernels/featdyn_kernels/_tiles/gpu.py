"""Distance tiles on the GPU: by differences for few dimensions or wide spreads, by matrix products otherwise."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from featdyn_kernels._dispatch import interpreting
from featdyn_kernels._tiles.points import FAR, SPREAD, single_precision

BM, BN, BK = 64, 128, 32  # rows, columns and dimensions of a tile; untuned: no GPU figure exists yet
_FEW = 16  # dimensions up to which differences cost no more than a product of padded tiles
# |x|^2 + |y|^2 - 2 x.y is wrong by some 1e-7 of |y|^2: products only where that is below 2e-6 a dimension.
_NEAR = 16.0


def launcher(kernel: Any) -> Any:
    """Return what launches a kernel inside a ``triton_op``: wrapped for tracing, or bare under Triton's interpreter.

    ``wrap_triton`` takes compiled kernels only, which the interpreter's are not.
    """
    return kernel if interpreting() else torch.library.wrap_triton(kernel)


def scaled_pair(
    queries: torch.Tensor, samples: torch.Tensor, scale: np.ndarray[Any, Any], spread: float = SPREAD
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both sets of points around a place among the samples, as ``_tiles.coordinates.scaled_pair``."""
    centre = samples[:: -(-len(samples) // 256)].double().mean(0)
    factor = torch.from_numpy(np.ascontiguousarray(scale)).to(samples.device)

    def scaled(x: torch.Tensor) -> torch.Tensor:
        around = x.double() - centre
        return around * factor if factor.ndim == 1 else around @ factor.T

    points = scaled(samples)
    rows = points if queries is samples else scaled(queries)
    reach = [float(x.abs().max()) if len(x) else 0.0 for x in (points, rows)]
    if single_precision(queries, samples) and reach[0] <= spread and reach[1] <= FAR:
        points, rows = points.float(), rows.float()
    return rows, points


def by_products(points: torch.Tensor) -> bool:
    """Whether distances to these points may be taken from matrix products."""
    d = points.shape[1]
    return d > _FEW and points.dtype == torch.float32 and float(points.square().sum(1).max()) <= _NEAR * d


def dot_precision(points: torch.Tensor) -> str:
    """Return the ``input_precision`` of products: of float32 three in TF32, which together have its accuracy."""
    return "tf32x3" if points.dtype == torch.float32 else "ieee"


def column_splits(m: int, n: int) -> int:
    """Return into how many parts to cut n columns, so that few rows fill a GPU too, and no float32 sum grows long."""
    rows = max(1, -(-m // BM))
    return max(1, min(-(-n // 4096), -(-528 // rows)), -(-n // 2**16))  # 4 programs on each of 132 processors


def vectors_at_once(vectors: int, dtype: torch.dtype) -> int:
    """Return how many weight vectors a program takes: a power of two, 16 at least, as ``tl.dot`` wants it.

    Of float64 no more than 64: a tile and its weights then are 128 KiB of the 163 that a block has on an A100.
    """
    block = 16
    while block < min(vectors, 64 if dtype == torch.float64 else 128):
        block *= 2
    return block


def reduce_tiles(
    kernel: Any,
    splits: int,
    rows: torch.Tensor,
    points: torch.Tensor,
    tensors: tuple[torch.Tensor, ...],
    vectors: int = 0,
    **constants: Any,
) -> None:
    """Run a kernel over all pairs, a program for each block of rows, part of the columns and block of weight vectors.

    Arguments of the kernel: ``rows``, ``points``, the tensors; m, n, ``vectors`` where there are some, and the span of
    a part; constants.
    """
    m, n = len(rows), len(points)
    if not m:
        return
    sizes, block = [m, n], 1
    if vectors:
        block = vectors_at_once(vectors, points.dtype)
        sizes.append(vectors)
        constants |= {"BR": block, "PRECISION": dot_precision(points)}
    span = triton.cdiv(triton.cdiv(n, splits), BN) * BN
    grid = triton.cdiv(m, BM), splits, triton.cdiv(max(1, vectors), block)
    launcher(kernel)[grid](
        rows, points, *tensors, *sizes, span, DEPTH=rows.shape[1], BM=BM, BN=BN, BK=BK, num_warps=4, **constants
    )


@triton.jit
def squared_distances(
    a_ptr,  # (m, DEPTH)
    b_ptr,  # (n, DEPTH)
    rows,  # (BM,)
    columns,  # (BN,)
    m,
    n,
    DEPTH: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Return |a - b|^2 as (BM, BN), infinite in columns beyond n."""
    total = tl.zeros((BM, BN), a_ptr.dtype.element_ty)
    a_row, b_row = a_ptr + rows.to(tl.int64) * DEPTH, b_ptr + columns.to(tl.int64) * DEPTH
    row_mask, column_mask = rows < m, columns < n
    if PRODUCTS:
        a_norm = tl.zeros((BM,), tl.float32)
        b_norm = tl.zeros((BN,), tl.float32)
        for k0 in range(0, DEPTH, BK):
            k = k0 + tl.arange(0, BK)
            a = tl.load(a_row[:, None] + k[None, :], row_mask[:, None] & (k < DEPTH)[None, :], 0.0)
            b = tl.load(b_row[None, :] + k[:, None], column_mask[None, :] & (k < DEPTH)[:, None], 0.0)
            # Three TF32 products: float32's accuracy at a third of the tensor cores' speed, above plain float32's.
            total = tl.dot(a, b, total, input_precision="tf32x3")
            a_norm += tl.sum(a * a, 1)
            b_norm += tl.sum(b * b, 0)
        total = tl.maximum(a_norm[:, None] + b_norm[None, :] - 2.0 * total, 0.0)
    else:
        for k in range(DEPTH):
            a = tl.load(a_row + k, row_mask, 0.0)
            b = tl.load(b_row + k, column_mask, 0.0)
            difference = a[:, None] - b[None, :]
            total = tl.fma(difference, difference, total)
    return tl.where(column_mask[None, :], total, float("inf"))


@triton.jit
def load_weights(weights_ptr, columns, v, n, vectors):
    """Return the weights (n, vectors) of these columns and vectors, 0 beyond either."""
    mask = (columns < n)[:, None] & (v < vectors)[None, :]
    return tl.load(weights_ptr + columns[:, None].to(tl.int64) * vectors + v[None, :], mask, 0.0)


@triton.jit
def store_sums(sums_ptr, sums, rows, v, m, vectors):
    """Write sums (splits, m, vectors) of these rows and vectors, and of the program's own split."""
    at = tl.program_id(1).to(tl.int64) * m + rows
    tl.store(sums_ptr + at[:, None] * vectors + v[None, :], sums, (rows < m)[:, None] & (v < vectors)[None, :])
