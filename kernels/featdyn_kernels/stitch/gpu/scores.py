"""Predictions, margins and losses on the GPU: from logits, or from features that the kernel pools and multiplies.

What is reduced, and how NaN and ties come out, is said at :mod:`featdyn_kernels.stitch.score`; sums are float32 here.
Labels are (sample,), own logits (checkpoint, sample, class) of any strides. Block sizes are untuned: no GPU figure
exists yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from featdyn_kernels._tiles.gpu import dot_precision, launcher

MOST_CLASSES = 256
"""Classes whose logits one program of the fused head holds, with those of 16 samples; more go through memory."""
_SAMPLES, _CHANNELS = 16, 64  # of one program of the fused head
_NUMBERS = 4096  # logits that one program reduces: 32 for each of 128 threads


def reduce(
    logits: torch.Tensor, labels: torch.Tensor | None, own: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce logits (sample, checkpoint, class)."""
    found: tuple[torch.Tensor, torch.Tensor] = scores(logits.transpose(0, 1), labels, own)
    return found


@torch.library.triton_op("featdyn::stitch_scores", mutates_args={})
def scores(
    logits: torch.Tensor, labels: torch.Tensor | None, own: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and figures of logits (checkpoint, sample, class) of any strides and floating type."""
    checkpoints, samples, classes = logits.shape
    prediction, figures = _results(logits, checkpoints)
    block = triton.next_power_of_2(classes)
    height = max(1, _NUMBERS // block)
    if checkpoints * samples:
        launcher(_scores_kernel)[(triton.cdiv(samples, height), checkpoints)](
            logits, *_compared(figures, labels, own), prediction, figures, samples, classes, *logits.stride(),
            LABELLED=labels is not None, OWN=own is not None, BN=height, BC=block, num_warps=4,
        )  # fmt: skip
    return prediction, figures


@torch.library.triton_op("featdyn::stitch_heads", mutates_args={})
def heads(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor | None, own: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and figures of linear heads on mean features (T or 1, N, inputs, pixels), of any strides and
    type.

    ``weight`` and ``bias`` are (T, inputs, classes) and (T, classes), float32, classes at most ``MOST_CLASSES``;
    ``labels`` (N,), int64, and ``own`` (T, N, classes).
    """
    _, samples, inputs, pixels = x.shape
    checkpoints, _, classes = weight.shape
    prediction, figures = _results(x, checkpoints)
    if samples:
        launcher(_heads_kernel)[(triton.cdiv(samples, _SAMPLES), checkpoints)](
            x, weight, bias, *_compared(figures, labels, own), prediction, figures, samples, pixels, classes,
            x.stride(0) if x.shape[0] > 1 else 0, *x.stride()[1:], INPUTS=inputs, LABELLED=labels is not None,
            OWN=own is not None, PRECISION=dot_precision(weight), BN=_SAMPLES, BK=_CHANNELS,
            BC=max(16, triton.next_power_of_2(classes)), num_warps=4,
        )  # fmt: skip
    return prediction, figures


def _results(like: torch.Tensor, checkpoints: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = checkpoints, like.shape[1]
    prediction = torch.empty(shape, dtype=torch.int64, device=like.device)
    return prediction, torch.empty((6, *shape), dtype=torch.float32, device=like.device)


def _compared(blank: torch.Tensor, labels: torch.Tensor | None, own: torch.Tensor | None) -> tuple[Any, ...]:
    """Return what a kernel takes: labels, own logits and their strides; of what lacks, something that is not read."""
    return (blank if labels is None else labels, *((blank, 0, 0, 0) if own is None else (own, *own.stride())))


@triton.jit
def _write_scores(
    z,  # (BN, BC), float32
    n,  # (BN,), samples
    c,  # (BC,), classes
    labels_ptr,  # (samples,)
    own_ptr,  # (checkpoints, samples, classes), strides p_*
    p_t,
    p_n,
    p_c,
    prediction_ptr,  # (checkpoints, samples)
    figures_ptr,  # (6, checkpoints, samples)
    samples,
    classes,
    LABELLED: tl.constexpr,
    OWN: tl.constexpr,
    BC: tl.constexpr,
):
    inside = tl.broadcast_to((c < classes)[None, :], z.shape)
    usable = inside & (z == z)
    at = tl.where(inside, c[None, :], BC)
    broken = tl.max((inside & (z != z)).to(tl.int32), 1) > 0
    clean = tl.where(usable, z, float("-inf"))
    first = tl.max(clean, 1)
    best = tl.min(tl.where(clean == first[:, None], at, BC), 1)
    second = tl.max(tl.where(c[None, :] == best[:, None], float("-inf"), clean), 1)
    t = tl.program_id(1).to(tl.int64)
    written = n < samples
    to = figures_ptr + t * samples + n
    step = tl.num_programs(1).to(tl.int64) * samples
    tl.store(prediction_ptr + t * samples + n, tl.where(broken, -1, best).to(tl.int64), written)
    tl.store(to, tl.where(broken, float("nan"), first - second), written)
    tl.store(to + step, tl.max(tl.where(usable, tl.abs(z), 0.0), 1), written)
    above = z - first[:, None]
    log_terms = tl.log(tl.sum(tl.where(inside, tl.exp(above), 0.0), 1))
    loss = tl.full(n.shape, float("nan"), tl.float32)
    margin = loss
    log_odds = loss
    divergence = loss
    if LABELLED:
        label = tl.load(labels_ptr + n, written, 0)
        reached = tl.sum(tl.where(c[None, :] == label[:, None], z, 0.0), 1)
        loss = log_terms + (first - reached)
        margin = tl.where(broken, float("nan"), reached - tl.where(best == label, second, first))
        # The largest of the others, so that their sum does not underflow.
        top = tl.where((best == label) & (second > float("-inf")), second, first)
        others = tl.sum(tl.where(inside & (c[None, :] != label[:, None]), tl.exp(z - top[:, None]), 0.0), 1)
        log_odds = reached - top - tl.log(others)
    if OWN:
        source = own_ptr + t * p_t + n.to(tl.int64)[:, None] * p_n + c.to(tl.int64)[None, :] * p_c
        p = tl.load(source, written[:, None] & inside, 0.0).to(tl.float32)
        p -= tl.max(tl.where(inside, p, float("-inf")), 1)[:, None]
        chance = tl.where(inside, tl.exp(p), 0.0)
        terms = tl.sum(chance, 1)
        # Where the chance is 0 its term is, whatever the other logit.
        divergence = tl.sum(tl.where(chance == 0, 0.0, chance * (p - above)), 1) / terms + log_terms - tl.log(terms)
        # Rounding may leave a tiny negative number where the two are equal; NaN stays NaN.
        divergence = tl.where(broken, float("nan"), tl.where(divergence < 0, 0.0, divergence))
    tl.store(to + 2 * step, loss, written)
    tl.store(to + 3 * step, margin, written)
    tl.store(to + 4 * step, log_odds, written)
    tl.store(to + 5 * step, divergence, written)


@triton.jit
def _scores_kernel(
    logits_ptr,  # (checkpoints, samples, classes), strides z_*
    labels_ptr,
    own_ptr,
    p_t,
    p_n,
    p_c,
    prediction_ptr,
    figures_ptr,
    samples,
    classes,
    z_t,
    z_n,
    z_c,
    LABELLED: tl.constexpr,
    OWN: tl.constexpr,
    BN: tl.constexpr,
    BC: tl.constexpr,
):
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    c = tl.arange(0, BC)
    row = logits_ptr + tl.program_id(1).to(tl.int64) * z_t + n.to(tl.int64) * z_n
    z = tl.load(row[:, None] + c.to(tl.int64)[None, :] * z_c, (n < samples)[:, None] & (c < classes)[None, :], 0.0)
    z = z.to(tl.float32)
    _write_scores(
        z, n, c, labels_ptr, own_ptr, p_t, p_n, p_c, prediction_ptr, figures_ptr, samples, classes, LABELLED, OWN, BC
    )


@triton.jit
def _heads_kernel(
    x_ptr,  # (checkpoints or 1, samples, INPUTS, pixels), strides x_*
    w_ptr,  # (checkpoints, INPUTS, classes)
    bias_ptr,  # (checkpoints, classes)
    labels_ptr,
    own_ptr,
    p_t,
    p_n,
    p_c,
    prediction_ptr,
    figures_ptr,
    samples,
    pixels,
    classes,
    x_t,
    x_n,
    x_c,
    x_p,
    INPUTS: tl.constexpr,
    LABELLED: tl.constexpr,
    OWN: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BC: tl.constexpr,
):
    t = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    c = tl.arange(0, BC)
    x_row = x_ptr + t * x_t + n.to(tl.int64) * x_n
    z = tl.zeros((BN, BC), tl.float32)
    for start in range(0, INPUTS, BK):
        k = start + tl.arange(0, BK)
        x_mask = (n < samples)[:, None] & (k < INPUTS)[None, :]
        source = x_row[:, None] + k.to(tl.int64)[None, :] * x_c
        pooled = tl.zeros((BN, BK), tl.float32)
        for _ in range(pixels):
            pooled += tl.load(source, x_mask, 0.0).to(tl.float32)
            source += x_p
        w_mask = (k < INPUTS)[:, None] & (c < classes)[None, :]
        w = tl.load(w_ptr + (t * INPUTS + k)[:, None] * classes + c[None, :], w_mask, 0.0)
        z = tl.dot(pooled / pixels, w, z, input_precision=PRECISION)
    z += tl.load(bias_ptr + t * classes + c, c < classes, 0.0)[None, :]
    _write_scores(
        z, n, c, labels_ptr, own_ptr, p_t, p_n, p_c, prediction_ptr, figures_ptr, samples, classes, LABELLED, OWN, BC
    )
