"""Sums over all pairs on the GPU: distance tiles, reduced as they are made.

Block sizes are untuned: no GPU figure exists yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from featdyn_kernels._tiles.gpu import (
    by_products,
    column_splits,
    dot_precision,
    launcher,
    scaled_pair,
    squared_distances,
)
from featdyn_kernels.pairwise.scaling import scaling

_BM, _BN, _BK = 64, 128, 32
_VECTORS = 128  # labellings, at most, whose sums one program keeps

Array = np.ndarray[Any, Any]


def pair_sums(x: torch.Tensor, y: torch.Tensor, bandwidths: Array | None) -> tuple[torch.Tensor, ...]:
    """See :func:`featdyn_kernels.pairwise.reference.pair_sums`."""
    a, b, factors, unit = _prepared(x, y, bandwidths)

    def total(rows: torch.Tensor, points: torch.Tensor, same: bool) -> torch.Tensor:
        everyone = points.new_ones(len(points), 1)
        sums: torch.Tensor = pairwise_sums(rows, points, everyone, factors, same, by_products(points))
        return unit * sums.double().sum()

    return total(a, a, True), total(b, b, True), total(a, b, False)


def labelled_sums(points: torch.Tensor, members: Array, bandwidths: Array | None) -> tuple[torch.Tensor, ...]:
    """See :func:`featdyn_kernels.pairwise.reference.labelled_sums`."""
    a, _, factors, unit = _prepared(points, points, bandwidths)
    marked = torch.from_numpy(members).to(a.device)
    labels = torch.cat([marked.T.to(a.dtype), a.new_ones(len(a), 1)], 1)
    sums = unit * pairwise_sums(a, a, labels, factors, True, by_products(a)).double().sum(0)
    within = (sums[:, :-1] * marked.T).sum(0)
    from_members = marked.double() @ sums[:, -1]
    return within, sums[:, -1].sum() - 2.0 * from_members + within, from_members - within


def _prepared(
    x: torch.Tensor, y: torch.Tensor, bandwidths: Array | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    extent = float((y[: 2**10].double() - y[0].double()).abs().max())
    scale, spread, factors, unit = scaling(bandwidths, extent)
    a, b = scaled_pair(x, y, np.full(y.shape[1], scale), spread)
    return a, b, torch.from_numpy(factors).to(b), unit


@torch.library.triton_op("featdyn::pairwise_sums", mutates_args={})
def pairwise_sums(
    rows: torch.Tensor, points: torch.Tensor, weights: torch.Tensor, factors: torch.Tensor, same: bool, products: bool
) -> torch.Tensor:
    """Return ``sum_j g(|rows[i] - points[j]|^2) weights[j, r]`` as (splits, M, R); without j = i if ``same``.

    ``g(s) = sum_f 2**(-f s)``, or the root of s where there are no factors.
    """
    m, n, vectors = len(rows), len(points), weights.shape[1]
    splits = column_splits(m, n, _BM)
    sums = rows.new_empty(splits, m, vectors)
    block = min(_VECTORS, max(16, triton.next_power_of_2(vectors)))
    launcher(_sums_kernel)[(triton.cdiv(m, _BM), splits, triton.cdiv(vectors, block))](
        rows, points, weights, factors, sums, m, n, vectors, triton.cdiv(triton.cdiv(n, splits), _BN) * _BN,
        FACTORS=len(factors), DEPTH=rows.shape[1], SAME=same, PRODUCTS=products, BM=_BM, BN=_BN, BK=_BK, BR=block,
        PRECISION=dot_precision(points), num_warps=4,
    )  # fmt: skip
    return sums


@triton.jit
def _sums_kernel(
    a_ptr,  # (m, DEPTH)
    b_ptr,  # (n, DEPTH)
    weights_ptr,  # (n, vectors)
    factors_ptr,  # (FACTORS,)
    sums_ptr,  # (splits, m, vectors)
    m,
    n,
    vectors,
    span,  # columns of a split, a multiple of BN
    FACTORS: tl.constexpr,
    DEPTH: tl.constexpr,
    SAME: tl.constexpr,
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
    total = tl.zeros((BM, BR), kind)
    for c in range(first, min(first + span, n), BN):
        columns = c + tl.arange(0, BN)
        d2 = squared_distances(a_ptr, b_ptr, rows, columns, m, n, DEPTH, PRODUCTS, BM, BN, BK)
        if FACTORS == 0:
            g = tl.sqrt(d2)
        else:
            g = tl.zeros((BM, BN), kind)
            for f in range(FACTORS):
                g += tl.exp2(-tl.load(factors_ptr + f) * d2)
        kept = (columns < n)[None, :]
        if SAME:
            kept = kept & (rows[:, None] != columns[None, :])
        w_mask = (columns < n)[:, None] & (v < vectors)[None, :]
        w = tl.load(weights_ptr + columns[:, None].to(tl.int64) * vectors + v[None, :], w_mask, 0.0)
        total = tl.dot(tl.where(kept, g, 0.0), w, total, input_precision=PRECISION, out_dtype=kind)
    at = tl.program_id(1).to(tl.int64) * m + rows
    tl.store(sums_ptr + at[:, None] * vectors + v[None, :], total, (rows < m)[:, None] & (v < vectors)[None, :])
