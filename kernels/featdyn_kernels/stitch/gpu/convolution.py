"""Convolutions and linear layers of many checkpoints as one matrix product each, with all that follows fused into it.

An implicit GEMM: rows are the output pixels of all samples, columns the output channels, and the sum runs over taps
and input channels, gathered from where they lie. Nothing like im2col is laid out. A program computes one tile of one
checkpoint; a linear layer is a convolution of one tap on images of one pixel. Tiles are untuned: no GPU figure exists
yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl

from featdyn_kernels._dispatch import interpreting
from featdyn_kernels._tiles.gpu import dot_precision, launcher

_FULL = 2 * 132
"""Programs from which large tiles are taken: two on each processor of an H100."""


@torch.library.triton_op("featdyn::stitch_convolution", mutates_args={})
def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None,
    before: int,
    stride: list[int],
    padding: list[int],
    relu: bool,
) -> torch.Tensor:
    """Return ``relu(conv(x) + bias + residual)`` of every checkpoint, (T, N, outputs, out_height, out_width), channels
    last.

    ``x`` is (T or 1, N, inputs, height, width), of any strides and type; of 1, all checkpoints read the same features.
    ``weight`` is (T, rows, columns, inputs, outputs), of the type of products (sums are float32) and of the result;
    ``bias`` (T, outputs), float32. The residual, (T or 1, N, channels, out_height, out_width), of any strides and type,
    is added to the output channels from ``before`` on. Stride and padding are of rows and columns.
    """
    samples, inputs, height, width = x.shape[1:]
    checkpoints, taps_i, taps_j, _, outputs = weight.shape
    out_height = (height + 2 * padding[0] - taps_i) // stride[0] + 1
    out_width = (width + 2 * padding[1] - taps_j) // stride[1] + 1
    shape = checkpoints, samples, out_height, out_width, outputs
    y = torch.empty(shape, dtype=weight.dtype, device=x.device)
    rows = samples * out_height * out_width
    bn, bk = _block(outputs, 128), _block(inputs, 32 if weight.dtype == torch.float32 else 64)
    columns = triton.cdiv(outputs, bn)
    bm = 128 if checkpoints * triton.cdiv(rows, 128) * columns >= _FULL else 64
    added = x if residual is None else residual
    if rows:
        launcher(_convolution_kernel)[(triton.cdiv(rows, bm) * columns, checkpoints)](
            x, weight, bias, added, y, rows, height, width, out_height, out_width, *_strides(x), *_strides(added),
            before, added.shape[2], INPUTS=inputs, OUTPUTS=outputs, TAPS_I=taps_i, TAPS_J=taps_j,
            STRIDE_I=stride[0], STRIDE_J=stride[1], PADDING_I=padding[0], PADDING_J=padding[1],
            RESIDUAL=residual is not None, RELU=relu, PRECISION=dot_precision(weight),
            WIDEN=interpreting(), BM=bm, BN=bn, BK=bk, num_warps=8 if bm * bn > 64 * 128 else 4, num_stages=3,
        )  # fmt: skip
    return y.permute(0, 1, 4, 2, 3)


def _block(n: int, most: int) -> int:
    """Return the power of two that covers n, of those that ``tl.dot`` takes."""
    return max(16, min(int(triton.next_power_of_2(n)), most))


def _strides(x: torch.Tensor) -> tuple[int, ...]:
    """Return the strides, 0 for the checkpoints of what they share."""
    return (x.stride(0) if x.shape[0] > 1 else 0, *x.stride()[1:])


@triton.jit
def _convolution_kernel(
    x_ptr,  # (checkpoints or 1, samples, INPUTS, height, width), strides x_*
    w_ptr,  # (checkpoints, TAPS_I, TAPS_J, INPUTS, OUTPUTS)
    bias_ptr,  # (checkpoints, OUTPUTS)
    residual_ptr,  # (checkpoints or 1, samples, residual_channels, out_height, out_width), strides r_*
    y_ptr,  # (checkpoints, rows, OUTPUTS)
    rows,  # samples * out_height * out_width
    height,
    width,
    out_height,
    out_width,
    x_t,
    x_n,
    x_c,
    x_i,
    x_j,
    r_t,
    r_n,
    r_c,
    r_i,
    r_j,
    before,  # output channels before the first that has a residual
    residual_channels,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TAPS_I: tl.constexpr,
    TAPS_J: tl.constexpr,
    STRIDE_I: tl.constexpr,
    STRIDE_J: tl.constexpr,
    PADDING_I: tl.constexpr,
    PADDING_J: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,  # under Triton's interpreter, which cannot multiply bfloat16
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    columns: tl.constexpr = (OUTPUTS + BN - 1) // BN
    chunks: tl.constexpr = (INPUTS + BK - 1) // BK
    t = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) // columns * BM + tl.arange(0, BM)
    k = tl.program_id(0) % columns * BN + tl.arange(0, BN)
    n = (row // (out_height * out_width)).to(tl.int64)
    i, j = row // out_width % out_height, row % out_width
    # Where the first tap falls, which may be outside of the image.
    from_i, from_j = i * STRIDE_I - PADDING_I, j * STRIDE_J - PADDING_J
    channel = tl.arange(0, BK)
    x_row = x_ptr + t * x_t + n * x_n + from_i.to(tl.int64) * x_i + from_j.to(tl.int64) * x_j
    x_tile = x_row[:, None] + (channel * x_c)[None, :]
    w_tile = w_ptr + t * (TAPS_I * TAPS_J * INPUTS * OUTPUTS) + (channel * OUTPUTS)[:, None] + k[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for step in range(TAPS_I * TAPS_J * chunks):
        tap, first = step // chunks, step % chunks * BK
        tap_i, tap_j = tap // TAPS_J, tap % TAPS_J
        inside = (from_i >= -tap_i) & (from_i < height - tap_i) & (from_j >= -tap_j) & (from_j < width - tap_j)
        used = channel < INPUTS - first
        x_mask, w_mask = (inside & (row < rows))[:, None] & used[None, :], used[:, None] & (k < OUTPUTS)[None, :]
        x = tl.load(x_tile + (tap_i * x_i + tap_j * x_j + first * x_c), x_mask, 0.0).to(w_ptr.dtype.element_ty)
        w = tl.load(w_tile + (tap * INPUTS + first) * OUTPUTS, w_mask, 0.0)
        if WIDEN:
            x, w = x.to(tl.float32), w.to(tl.float32)
        total = tl.dot(x, w, total, input_precision=PRECISION)
    total += tl.load(bias_ptr + t * OUTPUTS + k, k < OUTPUTS, 0.0)[None, :]
    if RESIDUAL:
        c = k - before
        pixel = residual_ptr + t * r_t + n * r_n + i.to(tl.int64) * r_i + j.to(tl.int64) * r_j
        r_mask = (row < rows)[:, None] & ((c >= 0) & (c < residual_channels))[None, :]
        total += tl.load(pixel[:, None] + c.to(tl.int64)[None, :] * r_c, r_mask, 0.0).to(tl.float32)
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # unlike a maximum, keeps NaN
    y_row = y_ptr + (t * rows + row) * OUTPUTS
    tl.store(y_row[:, None] + k[None, :], total, (row < rows)[:, None] & (k < OUTPUTS)[None, :])
