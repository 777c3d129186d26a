"""Batches of middling matrices by Jacobi's method, a program each; the rest by torch; what fails again in float64.

On CUDA ``torch.linalg.eigh`` solves batches together up to n = 32 only, and one matrix after the other above.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl

from featdyn_kernels._tiles.gpu import launcher
from featdyn_kernels.eigh import cpu
from featdyn_kernels.eigh.cholesky_qr import orthonormal
from featdyn_kernels.eigh.warning import warn_of_retry

# Torch is batched up to SMALL. Above LARGEST, three such matrices do not fit the registers of a processor. FEWEST and
# the numbers of warps are guesses, untuned: no GPU figure exists yet.
SMALL, LARGEST, FEWEST = 32, {torch.float32: 128, torch.float64: 64}, 4
LIMIT = 30  # sweeps over all pairs; ten are many


def eigh(a: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values (B, k) and vectors (B, n, k) of ``a`` (B, n, n), float32 or float64."""
    n = a.shape[-1]
    finite = _finite(a)
    usable = a if finite is None else torch.where(finite[:, None, None], a, 0.0)
    jacobi = SMALL < n <= LARGEST[a.dtype] and len(a) >= FEWEST
    values, vectors, converged = (_jacobi if jacobi else _torch)(usable)
    failed = (~converged).nonzero().flatten().tolist()
    if failed:
        warn_of_retry(len(failed), tuple(a.shape), str(a.dtype).removeprefix("torch."))
        for i in failed:
            values[i], vectors[i] = _insist(usable[i : i + 1].double())
    if finite is not None:
        values[~finite], vectors[~finite] = torch.nan, torch.nan
    return values[:, n - k :], vectors[:, :, n - k :]


def eigvalsh(a: torch.Tensor, k: int) -> torch.Tensor:
    """Return values (B, k) of ``a`` (B, n, n), float32 or float64."""
    return eigh(a, k)[0]


def gram_eigh(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values (..., k) and vectors (..., F, k) of ``x^T x`` for ``x`` (..., N, F), float32 or float64."""
    lead, (samples, features) = x.shape[:-2], x.shape[-2:]
    # In float32 torch's settings and autocast may round products to TF32 or halves; float64 they leave alone.
    wide = x.reshape(-1, samples, features).double()
    if features <= samples:
        values, vectors = eigh((wide.mT @ wide).to(x.dtype), k)
    else:
        values, sides = eigh((wide @ wide.mT).to(x.dtype), k)
        vectors = orthonormal(wide.mT @ sides.double()).to(x.dtype)
    return values.reshape(*lead, k), vectors.reshape(*lead, features, k)


def _finite(a: torch.Tensor) -> torch.Tensor | None:
    """Return which matrices hold finite numbers only in their lower triangles; None: all."""
    if bool(a.sum().isfinite()):  # the usual case, at the price of one pass
        return None
    return a.tril().isfinite().flatten(1).all(1)


def _jacobi(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    largest = a.tril().abs().amax((1, 2))
    farthest = 120 if a.dtype == torch.float32 else 1000
    exponent = torch.frexp(largest).exponent.clamp(-farthest, farthest)
    size = torch.ldexp(torch.ones_like(largest, dtype=torch.float64), exponent).to(a)  # a power of two
    values, rows, converged = eigh_jacobi((a / size[:, None, None]).contiguous(), LIMIT)
    values, order = values.sort(1)
    vectors = rows.gather(1, order[:, :, None].expand_as(rows))
    return values * size[:, None], vectors.mT, converged


def _torch(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    try:
        values, vectors = torch.linalg.eigh(a)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if len(a) == 1:
            return a.new_zeros(1, a.shape[1]), torch.zeros_like(a), a.new_zeros(1, dtype=torch.bool)
        found = zip(*map(_torch, a.split(1)), strict=True)  # one that fails takes the whole batch with it
        return tuple(map(torch.cat, found))  # type: ignore[return-value]
    return values, vectors, values.isfinite().all(1)


def _insist(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eigenpairs of one float64 matrix (1, n, n) from torch or, where that gives up, from the CPU."""
    values, vectors, converged = _torch(a)
    if not bool(converged):
        values, vectors = (torch.from_numpy(part).to(a) for part in cpu.eigh(a.cpu().numpy(), a.shape[1]))
    return values[0], vectors[0]


@torch.library.triton_op("featdyn::eigh_jacobi", mutates_args={})
def eigh_jacobi(a: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return values (B, n), in no order, vectors as rows (B, n, n), and (B,) which converged within ``limit`` sweeps.

    Lower triangles of ``a`` (B, n, n) are read; elements near 1 at most.
    """
    batch, n, _ = a.shape
    values, vectors = a.new_empty(batch, n), torch.empty_like(a)
    converged = a.new_empty(batch, dtype=torch.bool)
    side = max(16, triton.next_power_of_2(n))
    if batch:
        launcher(_jacobi_kernel)[(batch,)](
            a, values, vectors, converged, n, limit, N=side, num_warps=max(1, side * side * a.itemsize // 2**12)
        )
    return values, vectors, converged


@triton.jit
def _jacobi_kernel(
    a_ptr,  # (B, n, n)
    values_ptr,  # (B, n)
    vectors_ptr,  # (B, n, n)
    converged_ptr,  # (B,)
    n,
    limit,
    N: tl.constexpr,
):
    """Rotate pairs of rows of ``V``, at first one, and of ``W = V A`` until ``W V^T`` is diagonal.

    In a round all rows are in pairs that no other round has ("circle method"), so that a sweep of n - 1 rounds, n even,
    meets all pairs. Row i goes with mate[i]; both find the same rotation, of opposite signs. Elements of ``W V^T`` are
    inner products of rows, so that no columns are ever exchanged, and values are Rayleigh quotients.
    """
    i, j = tl.arange(0, N), tl.arange(0, N)
    matrix = tl.program_id(0).to(tl.int64) * n * n
    inside = (i < n)[:, None] & (j < n)[None, :]
    row, column = tl.maximum(i[:, None], j[None, :]), tl.minimum(i[:, None], j[None, :])
    w = tl.load(a_ptr + matrix + row * n + column, inside, 0.0)
    kind: tl.constexpr = a_ptr.dtype.element_ty
    v = tl.where(i[:, None] == j[None, :], 1.0, 0.0).to(kind)
    # Twice the rounding error of an inner product of such rows, as a part of the largest eigenvalue.
    negligible: tl.constexpr = 2.4e-7 if kind == tl.float32 else 4.5e-16
    players = n + n % 2
    rounds = players - 1
    sweep, turned = 0, 1
    while (turned > 0) & (sweep < limit):
        here = tl.sum(w * v, 1)
        floor = negligible * tl.max(tl.abs(here))
        turning = tl.zeros((N,), tl.int32)
        for r in range(rounds):
            mate = (r - i + 2 * rounds) % rounds
            mate = tl.where(mate == i, rounds, mate)
            mate = tl.where(i == rounds, (r * (players // 2)) % rounds, tl.where(i > rounds, i, mate))
            index = tl.broadcast_to(mate[:, None], (N, N))
            other = tl.gather(v, index, 0)
            coupling = tl.sum(w * other, 1)
            coupling = tl.where(i < mate, coupling, tl.gather(coupling, mate, 0))
            turns = tl.abs(coupling) > floor
            turning += turns.to(tl.int32)
            ratio = (tl.gather(here, mate, 0) - here) / tl.where(turns, 2.0 * coupling, 1.0)
            sign = tl.where((ratio > 0) | ((ratio == 0) & (i < mate)), 1.0, -1.0).to(kind)
            tangent = tl.where(turns, sign / (tl.abs(ratio) + tl.sqrt(1.0 + ratio * ratio)), 0.0)
            here -= tangent * coupling
            # Any angle will do, but sine and half must belong to the same one, or rows lose their length: so the one
            # division is exact, and Rutishauser's form of "cosine v - sine other" has no cosine to round.
            half = tangent / (1.0 + tl.sqrt(1.0 + tangent * tangent))  # the tangent of half the angle
            twice, square = half + half, 1.0 + half * half
            sine = tl.div_rn(twice, square) if kind == tl.float32 else twice / square
            v -= sine[:, None] * (other + half[:, None] * v)
            w -= sine[:, None] * (tl.gather(w, index, 0) + half[:, None] * w)
        turned = tl.sum(turning)
        sweep += 1
    tl.store(values_ptr + tl.program_id(0).to(tl.int64) * n + i, tl.sum(w * v, 1), i < n)
    tl.store(vectors_ptr + matrix + i[:, None] * n + j[None, :], v, inside)
    tl.store(converged_ptr + tl.program_id(0), turned == 0)
