"""The sparsification solver on the GPU: a warp a sample for the steps, products of small matrices for the inverse.

A launch serves all samples that are still running; after every round of iterations one number, how many these are,
crosses to the host. The sizes of programs are untuned: no GPU figure exists yet.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import functools

import torch
import triton

from featdyn_kernels._tiles.gpu import dot_precision, launcher
from featdyn_kernels.moebius.gpu import moebius_transform
from featdyn_kernels.moebius.sparse import gpu_kernels as row
from featdyn_kernels.moebius.sparse import settings
from featdyn_kernels.moebius.sparse.blocks import blocks
from featdyn_kernels.moebius.sparse.gpu_kernels import look_kernel, solve_kernel, step_kernel

_SAMPLES, _PART = 32, 16  # samples that a program solves for, and eigenvectors it takes at a time
_PER_WARP = 2**12  # bytes of a sample


def solve(
    values: torch.Tensor, bound: torch.Tensor, split: torch.Tensor, slack: torch.Tensor, prices: torch.Tensor,
    tolerance: float, iterations: int,
) -> torch.Tensor:  # fmt: skip
    """See :func:`featdyn_kernels.moebius.sparse.reference.solve`."""
    batch, size = values.shape
    n, kind = size.bit_length() - 1, str(values.dtype).removeprefix("torch.")
    work = values.new_zeros(row.ARRAYS, batch, size)
    half = (values + slack) / 2
    work[row.COEFFICIENTS], work[row.COEFFICIENTS + 1] = half + split, half - split
    moebius_transform(work[row.COEFFICIENTS], work[row.COEFFICIENTS], -1.0, False)
    moebius_transform(work[row.COEFFICIENTS + 1], work[row.COEFFICIENTS + 1], -1.0, True)
    work[row.COEFFICIENTS + 1].neg_()
    work[row.VALUES], work[row.SLACK], work[row.PRICE] = values, slack, prices
    reach = (values - values[:, :1]).abs().amax(1)
    numbers = values.new_empty(row.NUMBERS, batch)
    numbers[row.BOUND], numbers[row.ROUNDING] = bound, settings.rounding(n, kind) * reach
    # A constant table is solved as it comes.
    first = torch.where(reach > 0, settings.FIRST_STEP * reach, 1.0)
    numbers[row.STEP] = numbers[row.SLACK_STEP] = numbers[row.FIRST_STEP] = first

    tables = _tables(n, values.dtype, values.device)
    running = torch.arange(batch, device=values.device)
    taken = torch.zeros_like(running)
    done = 0
    while len(running):
        done += settings.CHECK
        unsolved = moebius_sparse_round(running, work, numbers, *tables, tolerance, done <= settings.ADAPTING)
        taken[running] = done
        running = running[unsolved] if done < iterations else running[:0]
    for result, at in ((split, row.SPLIT), (slack, row.SLACK), (prices, row.PRICE)):
        result.copy_(work[at])
    return taken


@functools.lru_cache(maxsize=8)
def _tables(n: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    found = blocks(n)
    real = (found.high, found.low, found.vectors, found.spectrum)
    return torch.from_numpy(found.places).to(device), *(
        torch.from_numpy(x).to(device, dtype).contiguous() for x in real
    )


@torch.library.triton_op("featdyn::moebius_sparse_round", mutates_args={"work", "numbers"})
def moebius_sparse_round(
    running: torch.Tensor, work: torch.Tensor, numbers: torch.Tensor, places: torch.Tensor, high: torch.Tensor,
    low: torch.Tensor, vectors: torch.Tensor, spectrum: torch.Tensor, tolerance: float, adapt: bool,
) -> torch.Tensor:  # fmt: skip
    """Take the iterations from one look to the next; return which of the ``running (R,)`` samples are not solved."""
    count, batch, size = len(running), work.shape[1], int(work.shape[2])
    unsolved = torch.empty_like(running, dtype=torch.bool)
    if not count:
        return unsolved
    shape = {"HIGH": len(high).bit_length() - 1, "LOW": len(low).bit_length() - 1, "PRECISION": dot_precision(work)}
    warps = max(1, size * work.element_size() // _PER_WARP)
    pending = 0.0  # how far prices have still to go along the move that the kernel before has solved for
    for k in range(settings.CHECK):
        relaxation = settings.RELAXATION if k < settings.CHECK - 1 else 1.0  # a look is at a point of proximal steps
        launcher(step_kernel)[(count,)](
            running, work, numbers, high, low, batch, pending, relaxation, **shape, num_warps=warps
        )
        launcher(solve_kernel)[(triton.cdiv(count, _SAMPLES), len(places))](
            running, work, numbers, places, vectors, spectrum, batch, count, size, SAMPLES=_SAMPLES,
            WIDTH=places.shape[1], PART=_PART, PRECISION=shape["PRECISION"], num_warps=4,
        )  # fmt: skip
        pending = relaxation
    launcher(look_kernel)[(count,)](
        running, work, numbers, high, low, unsolved, batch, pending, tolerance, adapt, **shape, num_warps=warps
    )
    return unsolved
