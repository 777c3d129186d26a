"""Sums over all pairs on the GPU: distance tiles, reduced as they are made."""

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
    load_weights,
    reduce_tiles,
    scaled_pair,
    squared_distances,
    store_sums,
)
from featdyn_kernels.pairwise.scaling import scaling

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
    vectors = weights.shape[1]
    splits = column_splits(len(rows), len(points))
    sums = rows.new_empty(splits, len(rows), vectors)
    reduce_tiles(
        _sums_kernel, splits, rows, points, (weights, factors, sums), vectors,
        FACTORS=len(factors), SAME=same, PRODUCTS=products,
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
        w = load_weights(weights_ptr, columns, v, n, vectors)
        total = tl.dot(tl.where(kept, g, 0.0), w, total, input_precision=PRECISION, out_dtype=kind)
    store_sums(sums_ptr, total, rows, v, m, vectors)
