"""Eigendecompositions beside torch and numpy; on the CPU those with vectors are LAPACK's, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench.harness import Case, sized
from featdyn_kernels import eigh
from tests.kernels.peers import eigh as peers

CPU = ((500, 64),)
VALUES = ((200, 128, 10), (500, 64, 64))
CUDA = ((4000, 16), (2000, 32), (500, 64), (500, 100), (200, 128), (16, 512), (1, 4096))
LOOPED = {"torch.linalg.eigh": 10.0}  # torch loops over batches of matrices above n = 32 on CUDA (pytorch#174674)


def cases(device: str) -> Iterator[Case]:
    for batch, n in sized(CPU, ((3, 9),)) if device == "cpu" else CUDA:
        yield _batch(batch, n, device)
    for batch, n, k in sized(VALUES, ((17, 9, 3),)) if device == "cpu" else ():
        for dtype in (torch.float32, torch.float64):
            yield _values(batch, n, k, dtype)
    yield _gram(*sized((500, 2048), (12, 30)), device)


def _batch(batch: int, n: int, device: str) -> Case:
    x = torch.randn(batch, n, 2 * n, generator=torch.Generator().manual_seed(0)).to(device)
    a = x @ x.mT / n
    on_gpu = LOOPED if batch > 1 and n > 32 else {"best": 1.0}

    def check(result: tuple[Any, Any]) -> None:
        residual, distance = peers.errors(a.cpu(), *(part.cpu() for part in result))
        assert max(residual, distance) < 10 * torch.finfo(a.dtype).eps * n**0.5, (residual, distance)

    contenders = {name: call for name, call in peers.PEERS.items() if device == "cpu" or name.startswith("torch")}
    return Case(
        name=f"{batch} of {n}x{n} float32",
        ours=lambda: eigh.eigh(a),
        peers={name: lambda call=call: call(a) for name, call in contenders.items()},
        check=check,
        target={} if device == "cpu" else on_gpu,
        repeats=15 if batch * n**3 < 5e8 else 7,
        notes="" if device == "cpu" else "no GPU figure exists yet" + "; ours calls torch too" * (n <= 32 or n > 128),
    )


def _values(batch: int, n: int, k: int, dtype: torch.dtype) -> Case:
    x = torch.randn(batch, n, 2 * n, generator=torch.Generator().manual_seed(0)).to(dtype)
    a = x @ x.mT / n
    expected = torch.linalg.eigvalsh(a.double())

    def check(result: Any) -> None:
        error = float(((result - expected[:, n - k :]).abs() / expected[:, -1:]).max())
        assert error < 10 * torch.finfo(dtype).eps * n**0.5, error

    return Case(
        name=f"{k} largest values of {batch} of {n}x{n} {str(dtype).removeprefix('torch.')}",
        ours=lambda: eigh.eigvalsh(a, k),
        peers={name: lambda call=call: call(a, k) for name, call in peers.VALUES.items()},
        check=check,
        target={"best": 1.5} if dtype == torch.float32 or k < n else {"best": 1.0},
        repeats=15,
    )


def _gram(samples: int, features: int, device: str) -> Case:
    x = torch.randn(samples, features, generator=torch.Generator().manual_seed(0)).to(device)

    def check(result: tuple[Any, Any]) -> None:
        residual, distance = peers.errors((x.mT @ x).cpu(), *(part.cpu() for part in result))
        assert max(residual, distance) < 10 * torch.finfo(x.dtype).eps * features**0.5, (residual, distance)

    return Case(
        name=f"gram_eigh, x {samples}x{features} float32",
        ours=lambda: eigh.gram_eigh(x),
        peers={name: lambda call=call: call(x) for name, call in peers.GRAM.items()},
        check=check,
        target={"best": 1.5},
        repeats=7,
        notes="" if device == "cpu" else "no GPU figure exists yet",
    )
