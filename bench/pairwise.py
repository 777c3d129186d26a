"""Two-sample statistics beside torch, which keeps every N x N matrix: float32; no targets were set for these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.harness import Case, sized
from featdyn_kernels import pairwise
from tests.kernels.peers import pairwise as peers

LABELLINGS = 200
DIRECTIONS = 256


def cases(device: str) -> Iterator[Case]:
    n = sized(4_000, 60) if device == "cpu" else 20_000
    for d in sized((2, 64, 512), (3,)):
        yield from _cases(n, d, device, "" if device == "cpu" else "no GPU figure exists yet")


def _cases(n: int, d: int, device: str, notes: str) -> Iterator[Case]:
    draw = torch.Generator().manual_seed(d)
    x, y = torch.randn(n, d, generator=draw), torch.randn(n, d, generator=draw) + 0.1
    u = torch.nn.functional.normalize(torch.randn(DIRECTIONS, d, generator=draw), dim=1)
    labels = np.random.default_rng(0).permuted(np.tile(np.arange(2 * n) < n, (LABELLINGS, 1)), axis=1)
    labels[0] = np.arange(2 * n) < n
    h = float(d) ** 0.5
    host = x.numpy(), y.numpy()
    x, y, u, marks = (t.to(device) for t in (x, y, u, torch.from_numpy(labels)))
    points = torch.cat([x, y])
    mmd2 = pairwise.mmd2(*host, h, backend="reference")
    energy = pairwise.energy_distance(*host, backend="reference")
    sliced = pairwise.sliced_wasserstein(*host, directions=u.cpu(), backend="reference")

    def check(expected: Any) -> Any:
        def compare(got: Any) -> None:  # many labellings: the first is the true one
            np.testing.assert_allclose(torch.as_tensor(got).cpu().flatten()[0], expected, rtol=1e-3, atol=2e-6)

        return compare

    def case(name: str, ours: Any, peer: Any, expected: Any) -> Case:
        return Case(f"{name} N=M={n} d={d} float32", ours, {"torch": peer}, check(expected), repeats=7, notes=notes)

    yield case("mmd2", lambda: pairwise.mmd2(x, y, h), lambda: peers.torch_mmd2(x, y, h), mmd2)
    yield case(
        f"mmd2_many R={LABELLINGS}",
        lambda: pairwise.mmd2_many(points, labels, h),
        lambda: peers.torch_mmd2_many(points, marks, h),
        mmd2,
    )
    yield case("energy", lambda: pairwise.energy_distance(x, y), lambda: peers.torch_energy(x, y), energy)
    yield case(
        f"sliced_wasserstein s={DIRECTIONS}",
        lambda: pairwise.sliced_wasserstein(x, y, directions=u),
        lambda: peers.torch_sliced(x, y, u),
        sliced,
    )
