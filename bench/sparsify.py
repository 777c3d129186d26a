"""moebius.sparsify beside HiGHS and its own iterations in numpy, and beside the CPU path on a GPU: planted tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

from bench.harness import Case, sized
from featdyn_kernels import moebius
from featdyn_kernels.moebius.sparse.reference import linear_program
from tests.kernels.peers import sparsify as peers

N, BATCH, GPU_BATCH = 10, 50, 5_000
ITERATIONS = 200  # a multiple of those between two looks at the gap, so that ours does as many


def cases(device: str) -> Iterator[Case]:
    if device == "cuda":
        yield _against_cpu(*_tables(GPU_BATCH))
        return
    yield _against_highs(*_tables(BATCH))
    yield _against_numpy(*_tables(BATCH))


def _tables(batch: int) -> tuple[np.ndarray, np.ndarray]:
    table = peers.planted(sized(N, 5), sized(batch, 3))[0]
    return table.astype(np.float32), (0.02 * np.abs(table[:, -1] - table[:, 0])).astype(np.float32)


def _against_highs(v: np.ndarray, bound: np.ndarray) -> Case:
    found: list[moebius.SparseModel] = []

    def program() -> np.ndarray:
        solutions = [linear_program(t, float(b)) for t, b in zip(v.astype(np.float64), bound, strict=True)]
        return np.array([np.abs(i_and).sum() + np.abs(i_or).sum() for i_and, i_or, *_ in solutions])

    def check(result: Any) -> None:
        if isinstance(result, moebius.SparseModel):
            found.append(result)
            assert (result.gap <= 0.0101 * result.l1).all()
            return
        np.testing.assert_array_less(found[0].l1, 1.02 * result)
        np.testing.assert_array_less(found[0].l1 - found[0].gap, result * (1 + 1e-6))

    return Case(
        name=f"n={N} batch={BATCH} float32, to a gap of 1 %, L1 within 2 % of the optimum",
        ours=lambda: moebius.sparsify(v, bound=bound),
        peers={"highs": program},
        check=check,
        target={"highs": 10.0},
        repeats=2,
        notes="HiGHS, interior point, on one core, with the program in interactions, the faster way to write it",
    )


def _against_numpy(v: np.ndarray, bound: np.ndarray) -> Case:
    exact = moebius.sparsify(v.astype(np.float64), bound=bound, tolerance=0.0, iterations=ITERATIONS)

    def check(result: Any) -> None:
        q = result.q if isinstance(result, moebius.SparseModel) else result[1]
        np.testing.assert_allclose(q, exact.q, rtol=0, atol=1e-3 * bound.max())

    return Case(
        name=f"n={N} batch={BATCH} float32, {ITERATIONS} iterations",
        ours=lambda: moebius.sparsify(v, bound=bound, tolerance=0.0, iterations=ITERATIONS),
        peers={
            "numpy": lambda: peers.numpy_iterations(v, bound, ITERATIONS, "blocks"),
            "numpy-dense": lambda: peers.numpy_iterations(v, bound, ITERATIONS, "dense"),
        },
        check=check,
        target={"numpy": 20.0, "numpy-dense": 20.0},
        repeats=5,
        notes="numpy inverts the operator by our blocks, or in a dense basis of its eigenvectors; "
        f"BLAS threads: {max(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas')}",
    )


def _against_cpu(v: np.ndarray, bound: np.ndarray) -> Case:
    tables = torch.from_numpy(v).cuda()

    def check(result: Any) -> None:
        l1, gap = (torch.as_tensor(x).cpu() for x in (result.l1, result.gap))
        assert bool((gap <= 0.0101 * l1).all())

    return Case(
        name=f"n={N} batch={GPU_BATCH} float32, to a gap of 1 %",
        ours=lambda: moebius.sparsify(tables, bound=bound),
        peers={"cpu": lambda: moebius.sparsify(v, bound=bound)},
        check=check,
        target={"cpu": 10.0},
        repeats=5,
        notes="no GPU figure exists yet",
    )
