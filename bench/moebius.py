"""moebius.moebius beside the dense matrix and loops over variables: batch 256, float32, into a given array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.harness import Case, sized
from featdyn_kernels import moebius
from tests.kernels.peers import moebius as peers

BATCH = 256
CPU_TARGETS: dict[int, dict[str, float]] = {10: {}, 12: {"dense": 50.0}, 16: {"ceiling": 0.5}}
GPU_TARGETS: dict[int, dict[str, float]] = {10: {"ceiling": 0.5}, 12: {"ceiling": 0.5}, 16: {"ceiling": 0.5}}


def cases(device: str) -> Iterator[Case]:
    targets = GPU_TARGETS if device == "cuda" else CPU_TARGETS
    for n, target in sized(targets, {4: {}, 9: {}}).items():
        # A GPU is filled by 2**26 elements at least.
        batch = sized(BATCH, 5) if device == "cpu" else max(BATCH, 2 ** (26 - n))
        yield _case(n, batch, device, target, "no GPU figure exists yet" if device == "cuda" else "")


def _case(n: int, batch: int, device: str, target: dict[str, float], notes: str) -> Case:
    f = torch.randn(batch, 2**n, generator=torch.Generator().manual_seed(n)).to(device)
    out = torch.empty_like(f)
    few = slice(0, 4)
    expected = moebius.moebius(f[few].cpu().double(), backend="reference")

    def check(result: Any) -> None:
        got = torch.as_tensor(result)[few].cpu()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))

    contenders = {"torch-loop": lambda: peers.torch_loop(f)}
    if device == "cpu":
        contenders["numpy-loop"] = lambda: peers.numpy_loop(f.numpy())
    if n <= 12:
        matrix, product = peers.dense_matrix(n, f.dtype, device), torch.empty_like(f)
        contenders["dense"] = lambda: peers.dense(f, matrix, product)
    return Case(
        name=f"n={n} batch={batch} float32",
        ours=lambda: moebius.moebius(f, out=out),
        peers=contenders,
        check=check,
        ceiling="copy",
        amount=2.0 * f.nbytes,
        target=target,
        notes=notes,
    )
