"""Gaussian kernel sums on the GPU: one pass over tiles with an online minimum, as attention takes its maximum."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from featdyn_kernels._tiles.gpu import (
    by_products,
    column_splits,
    load_weights,
    reduce_tiles,
    scaled_pair,
    squared_distances,
    store_sums,
)
from featdyn_kernels.kde.whitening import whitening


def log_density(
    queries: torch.Tensor, samples: torch.Tensor, bandwidth: Any, weights: torch.Tensor | None
) -> torch.Tensor:
    """See :func:`featdyn_kernels.kde.log_density`."""
    white = whitening(bandwidth, samples.shape[1])
    rows, points = scaled_pair(queries, samples, white.scale)
    relative = _relative(weights, samples)
    return _log_sums(rows, points, relative) - relative.sum().log() + white.log_peak


def log_density_many(
    queries: torch.Tensor, samples: torch.Tensor, bandwidth: Any, weights: torch.Tensor
) -> torch.Tensor:
    """See :func:`featdyn_kernels.kde.log_density_many`."""
    white = whitening(bandwidth, samples.shape[1])
    rows, points = scaled_pair(queries, samples, white.scale)
    relative = _relative(weights, samples)
    least, parts = kde_many_sums(rows, points, relative.T.to(points.dtype).contiguous(), by_products(points))
    least, sums = _joined(least, parts)
    # Each term is right to 2**-126 (2**-1022) of the nearest sample's: below this sum that is not precise enough.
    lost = sums <= len(points) * 2.0 ** (-100 if points.dtype == torch.float32 else -965)
    result = (sums.log() - math.log(2.0) * least[:, None]).T.contiguous()
    for r in lost.any(0).nonzero().flatten().tolist():  # a weight vector that is zero near some queries
        result[r, lost[:, r]] = _log_sums(rows[lost[:, r]], points, relative[r])
    return result - relative.sum(1, keepdim=True).log() + white.log_peak


def _relative(weights: torch.Tensor | None, samples: torch.Tensor) -> torch.Tensor:
    """Return float64 weights, the largest of each vector 1."""
    if weights is None:
        return torch.ones(len(samples), dtype=torch.float64, device=samples.device)
    return weights / weights.amax(-1, keepdim=True)


def _log_sums(rows: torch.Tensor, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the natural log of ``sum_j weights[j] 2**(-|rows[i] - points[j]|^2)`` as float64; weights at most 1."""
    start = -weights.log2().to(points.dtype)
    least, parts = kde_log_sums(rows.contiguous(), points, start, by_products(points))
    least, sums = _joined(least, parts[..., None])
    return sums[:, 0].log() - math.log(2.0) * least


def _joined(least: torch.Tensor, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the splits' minima (S, M) and sums (S, M, R), each in units of its minimum, in float64."""
    least, parts = least.double(), parts.double()
    lowest = least.amin(0)
    shift = torch.where(least == lowest, 0.0, lowest - least)  # no inf - inf where a query is beyond float64
    return lowest, (parts * shift.exp2()[..., None]).sum(0)


@torch.library.triton_op("featdyn::kde_log_sums", mutates_args={})
def kde_log_sums(
    rows: torch.Tensor, points: torch.Tensor, start: torch.Tensor, products: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the minima of ``s = start[j] + |rows[i] - points[j]|^2`` and ``sum_j 2**(minimum - s)``: (splits, M)."""
    m = len(rows)
    splits = column_splits(m, len(points))
    least, sums = rows.new_empty(splits, m), rows.new_empty(splits, m)
    reduce_tiles(_log_sums_kernel, splits, rows, points, (start, least, sums), PRODUCTS=products)
    return least, sums


@torch.library.triton_op("featdyn::kde_many_sums", mutates_args={})
def kde_many_sums(
    rows: torch.Tensor, points: torch.Tensor, weights: torch.Tensor, products: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the minima (splits, M) of ``|rows[i] - points[j]|^2``, and in their units the sums for weights (N, R).

    The sums ``sum_j weights[j, r] 2**(minimum - |rows[i] - points[j]|^2)`` are (splits, M, R).
    """
    m, vectors = len(rows), weights.shape[1]
    splits = column_splits(m, len(points))
    least, sums = rows.new_empty(splits, m), rows.new_empty(splits, m, vectors)
    reduce_tiles(_many_sums_kernel, splits, rows, points, (weights, least, sums), vectors, PRODUCTS=products)
    return least, sums


@triton.jit
def _log_sums_kernel(
    a_ptr,  # (m, DEPTH)
    b_ptr,  # (n, DEPTH)
    start_ptr,  # (n,)
    least_ptr,  # (splits, m)
    sums_ptr,  # (splits, m)
    m,
    n,
    span,  # columns of a split, a multiple of BN
    DEPTH: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    kind = a_ptr.dtype.element_ty
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * span
    least = tl.full((BM,), float("inf"), kind)
    total = tl.zeros((BM,), kind)
    for c in range(first, min(first + span, n), BN):
        columns = c + tl.arange(0, BN)
        d2 = squared_distances(a_ptr, b_ptr, rows, columns, m, n, DEPTH, PRODUCTS, BM, BN, BK)
        d2 += tl.load(start_ptr + columns, columns < n, 0.0)[None, :]
        near = tl.minimum(least, tl.min(d2, 1))
        finite = tl.where(near == float("inf"), 0.0, near)
        total = total * tl.exp2(tl.where(near == least, 0.0, finite - least)) + tl.sum(tl.exp2(finite[:, None] - d2), 1)
        least = near
    tl.store(least_ptr + tl.program_id(1).to(tl.int64) * m + rows, least, rows < m)
    tl.store(sums_ptr + tl.program_id(1).to(tl.int64) * m + rows, total, rows < m)


@triton.jit
def _many_sums_kernel(
    a_ptr,  # (m, DEPTH)
    b_ptr,  # (n, DEPTH)
    weights_ptr,  # (n, vectors)
    least_ptr,  # (splits, m)
    sums_ptr,  # (splits, m, vectors)
    m,
    n,
    vectors,
    span,  # columns of a split, a multiple of BN
    DEPTH: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BR: tl.constexpr,
    PRECISION: tl.constexpr,
):
    kind = a_ptr.dtype.element_ty
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    v = tl.program_id(2) * BR + tl.arange(0, BR)
    first = tl.program_id(1) * span
    least = tl.full((BM,), float("inf"), kind)
    total = tl.zeros((BM, BR), kind)
    for c in range(first, min(first + span, n), BN):
        columns = c + tl.arange(0, BN)
        d2 = squared_distances(a_ptr, b_ptr, rows, columns, m, n, DEPTH, PRODUCTS, BM, BN, BK)
        near = tl.minimum(least, tl.min(d2, 1))
        finite = tl.where(near == float("inf"), 0.0, near)
        w = load_weights(weights_ptr, columns, v, n, vectors)
        total *= tl.exp2(tl.where(near == least, 0.0, finite - least))[:, None]
        total = tl.dot(tl.exp2(finite[:, None] - d2), w, total, input_precision=PRECISION, out_dtype=kind)
        least = near
    tl.store(least_ptr + tl.program_id(1).to(tl.int64) * m + rows, least, rows < m)
    store_sums(sums_ptr, total, rows, v, m, vectors)
