"""kde.log_density beside SciPy, KeOps and blocked torch: N = M = 8,000, float32, Scott's bandwidth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.harness import Case, sized
from featdyn_kernels import kde
from tests.kernels.peers import kde as peers

CPU_TARGETS = {
    1: {"scipy": 40.0, "scipy-evaluate": 40.0, "keops": 10.0, "keops-no-max": 10.0},
    2: {"scipy": 40.0, "scipy-evaluate": 40.0, "keops": 10.0, "keops-no-max": 10.0},
    3: {"scipy": 40.0, "scipy-evaluate": 40.0, "keops": 10.0, "keops-no-max": 10.0},
    16: {"scipy": 20.0, "scipy-evaluate": 20.0, "keops": 5.0, "keops-no-max": 5.0},
    64: {"best": 1.5},
    128: {"best": 1.5},
    256: {"best": 1.5},
    512: {"best": 1.5},
}
GPU_TARGETS = {
    3: {"keops": 2.0},
    64: {"keops": 5.0},
    256: {"keops": 5.0, "ceiling": 0.5},
    512: {"keops": 5.0, "ceiling": 0.5},
}


def cases(device: str) -> Iterator[Case]:
    if device == "cuda":
        for d, target in GPU_TARGETS.items():
            yield _case(1_000_000 if d == 3 else 32_768, d, device, target, "no GPU figure exists yet")
        return
    for d, target in list(CPU_TARGETS.items())[: sized(None, 4) : sized(1, 3)]:
        yield _case(sized(8_000, 70), d, device, target)


def _case(n: int, d: int, device: str, target: dict[str, float], notes: str = "") -> Case:
    draw = torch.Generator().manual_seed(d)
    queries, samples = (torch.randn(n, d, generator=draw).to(device) for _ in range(2))
    factor = kde.scott(samples).float().tril()
    contenders = {
        "keops": lambda: peers.keops_logsumexp(queries, samples, factor),
        "blocked-torch": lambda: peers.blocked_torch(queries, samples, factor),
    }
    if d <= 16:  # above, densities underflow without a running maximum
        contenders["keops-no-max"] = lambda: peers.keops_sum(queries, samples, factor)
    if device == "cpu" and d <= 16:
        contenders["scipy"] = lambda: peers.scipy_logpdf(queries.numpy(), samples.numpy())
        contenders["scipy-evaluate"] = lambda: peers.scipy_evaluate(queries.numpy(), samples.numpy())
    few = torch.arange(0, n, -(-n // 64))
    expected = kde.log_density(queries[few].cpu(), samples.cpu(), factor.cpu().double(), backend="reference")

    def check(logs: Any) -> None:
        got = torch.as_tensor(logs)[few.to(device) if device == "cuda" else few].cpu().float()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-3)

    return Case(
        name=f"N=M={n} d={d} float32",
        ours=lambda: kde.log_density(queries, samples, factor),
        peers=contenders,
        check=check,
        # Below, a pair costs its exponential, not its d multiply-adds: that fraction would say nothing.
        ceiling="matmul-float32" if d >= 64 else None,
        amount=float(n) * n * d,
        target=target,
        repeats=7 if d <= 16 else 3,  # KeOps takes seconds there
        notes=notes,
    )
