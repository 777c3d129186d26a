"""Subset transforms on the GPU: a warp holds a tile of 16 KiB in its registers, so a pass transforms 7 to 12 variables.

A bit of an element's index that tells apart the registers of a lane costs an addition, one that tells apart lanes a
shuffle too, and no tile is shared by warps. One pass serves n up to 12 in float32 (11 in float64), two up to 19 (18),
three up to 26 (25). Rows that need several passes are taken a few at a time: a later pass finds in the second-level
cache what the one before it wrote, so the array crosses the memory bus twice, as in a copy. Sizes are untuned: no GPU
figure exists yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import itertools

import torch
import triton
import triton.language as tl

from featdyn_kernels._tiles.gpu import launcher

_TILE = 2**14  # bytes: 128 registers of each lane
_RUN = 2**7  # bytes: at least so many contiguous ones are read, a line of the cache
_CACHED = 2**24  # bytes of rows at a time, a third of an H100's second-level cache


def transform(f: torch.Tensor, out: torch.Tensor, sign: float, adjoint: bool) -> None:
    """See :func:`featdyn_kernels.moebius.moebius`; ``f`` and ``out`` are contiguous, ``(batch, 2**n)``."""
    moebius_transform(f, out, sign, adjoint)


@torch.library.triton_op("featdyn::moebius_transform", mutates_args={"out"})
def moebius_transform(f: torch.Tensor, out: torch.Tensor, sign: float, adjoint: bool) -> None:
    """Transform the rows of ``f (batch, 2**n)`` into ``out``, which may be ``f``: ``sign`` 1 is zeta, -1 Moebius."""
    batch, size = len(f), int(f.shape[1])
    tile, run = (_log2(nbytes // f.element_size()) for nbytes in (_TILE, _RUN))
    limits = [0, *range(tile, _log2(size), tile - run), _log2(size)]
    rows = batch if len(limits) == 2 else max(1, _CACHED // (size * f.element_size()))
    for start in range(0, batch, max(1, rows)):
        source, target = f[start : start + rows], out[start : start + rows]
        for low, high in itertools.pairwise(limits):
            launcher(_pass_kernel)[(triton.cdiv(source.numel(), 1 << tile),)](
                source, target, source.numel(), LOW=low, HIGH=high, FIRST=tile - (high - low) if low else 0,
                TILE=1 << tile, SIGN=sign, ADJOINT=int(adjoint), num_warps=1,
            )  # fmt: skip
            source = target


def _log2(size: int) -> int:
    return size.bit_length() - 1


@triton.jit
def butterflies(x, adjoint, sign, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Transform x (rows, elements) along bits FIRST to LAST of the element's index.

    The element with the bit gets ``sign`` times that without it added; where ``adjoint``, 0 or 1 or one for each row
    (rows, 1, 1, 1), is 1, the other way round.
    """
    receives = tl.arange(0, 2)[None, None, :, None] != adjoint
    for bit in tl.static_range(FIRST, LAST):
        pairs = tl.reshape(x, (x.shape[0], x.shape[1] >> (bit + 1), 2, 1 << bit))
        both = tl.sum(tl.where(receives, pairs, sign * pairs), 2, keep_dims=True)
        x = tl.reshape(tl.where(receives, both, pairs), (x.shape[0], x.shape[1]))
    return x


@triton.jit
def _pass_kernel(
    source_ptr,  # (elements,)
    target_ptr,  # (elements,)
    elements,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    FIRST: tl.constexpr,
    TILE: tl.constexpr,
    SIGN: tl.constexpr,
    ADJOINT: tl.constexpr,
):
    """Transform variables LOW to HIGH, in a tile of runs of ``2**FIRST`` elements that lie ``2**LOW`` apart."""
    RUN: tl.constexpr = 1 << FIRST
    COLUMNS: tl.constexpr = 1 << (LOW - FIRST)  # programs that share a row's high bits
    program = tl.program_id(0).to(tl.int64)
    start = program // COLUMNS * (TILE * COLUMNS) + program % COLUMNS * RUN
    element = tl.arange(0, TILE)
    at = start + (element // RUN * (1 << LOW) + element % RUN)
    x = tl.reshape(tl.load(source_ptr + at, at < elements), (1, TILE))
    x = butterflies(x, ADJOINT, SIGN, FIRST, FIRST + HIGH - LOW)
    tl.store(target_ptr + at, tl.reshape(x, (TILE,)), at < elements)
