"""Moments beside the matrix product that a user would write.

Equal precision is ``1e-6 * sqrt(s_ii s_jj)`` in every element of a second moment, which every contender must pass. For
raw moments a float32 product does. For centred ones, with means of ten standard deviations, only float64 or a first
pass for the mean does. Ours is the same call in both: it returns mean and centred moments, and the raw ones follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.harness import Case, sized
from featdyn_kernels import moments
from tests.kernels.peers import moments as peers

N, F = 20_000, 2_048
MAPS = (1_000, 16, 1_024), (1_000, 32, 256), (500, 128, 64)  # the layers of a ResNet, as they are stored
GPU = ", in ours three of halves, so that it may pass the ceiling; no GPU figure exists yet"


def cases(device: str) -> Iterator[Case]:
    noise = torch.randn(*sized((N, F), (400, 60)), generator=torch.Generator().manual_seed(0)).to(device)
    x = torch.relu(noise)
    contenders = {name: call for name, call in peers.RAW.items() if device == "cpu" or not name.startswith("numpy")}
    yield _case(x, "raw, after a ReLU", contenders, "second", x.double().T @ x.double())
    x = noise + 10
    deviation = x.double() - x.double().mean(0)
    yield _case(x, "centred, mean of 10 standard deviations", peers.SCATTER, "scatter", deviation.T @ deviation)
    for n, width, positions in sized(MAPS, ((5, 8, 40),)):
        yield _maps(n, width, positions, device)


def _maps(n: int, width: int, positions: int, device: str) -> Case:
    x = torch.relu(torch.randn(n, width, positions, generator=torch.Generator().manual_seed(0)) + 0.5).half().to(device)
    expected = moments.accumulate(x, backend="reference").scatter
    return Case(
        name=f"N={n} F={width} P={positions} float16, centred, channels first",
        ours=lambda: moments.accumulate(x),
        peers={peer: lambda call=call: call(x) for peer, call in peers.MAPS.items()},
        check=_check("scatter", expected),
        ceiling="copy",
        amount=2 * x.numel(),
        target={"best": 1.5},
        notes="bytes read once",
    )


def _case(x: torch.Tensor, name: str, contenders: dict[str, Callable], moment: str, expected: torch.Tensor) -> Case:
    return Case(
        name=f"N={len(x)} F={x.shape[1]} float32, {name}",
        ours=lambda: moments.accumulate(x),
        peers={peer: lambda call=call: call(x) for peer, call in contenders.items()},
        check=_check(moment, expected),
        ceiling="matmul-float32",
        amount=x.numel() * (x.shape[1] + 1) / 2,
        target={"ceiling": 0.8} if x.is_cuda else {"best": 1.5, "ceiling": 0.8},
        repeats=7,
        notes="multiply-adds: one per symmetric pair" + (GPU if x.is_cuda else ""),
    )


def _check(moment: str, expected: torch.Tensor) -> Callable[[Any], None]:
    expected = expected.cpu().numpy()

    def check(result: Any) -> None:
        found = getattr(result, moment) if isinstance(result, moments.Moments) else torch.as_tensor(result)
        error = peers.error(found.cpu().numpy(), expected)
        assert error < 1e-6, f"relative error {error:.1e}"

    return check
