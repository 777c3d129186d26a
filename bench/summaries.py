"""Rounding and summarising what a recording stores, beside a pass for each number: float32 in, float16 stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.harness import Case, sized
from featdyn_kernels import summaries
from tests.kernels.peers import summaries as peers

SHAPES = ((256, 16_384), (256, 4_096), (1024, 64))  # ResNet-20 on CIFAR: first and last stage, pooled
WIDTH = 64


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    for n, features in sized(SHAPES, ((3, 70),)):
        draw = torch.Generator().manual_seed(features)
        x, walk = (torch.randn(n, features, generator=draw) for _ in range(2))
        x, before = x.relu(), (x + 0.1 * walk).relu().half()
        slots = np.random.default_rng(0).integers(0, 2 * WIDTH, features)
        out = torch.empty(n, features, dtype=torch.float16)
        expected = summaries.summarise(x.half(), before, slots, WIDTH, backend="reference")

        def ours(x: Any = x, before: Any = before, slots: Any = slots, out: Any = out) -> Any:
            largest = summaries.rounded(x, out)
            return out, largest, vars(summaries.summarise(out, before, slots, WIDTH))

        def check(got: Any, x: torch.Tensor = x, expected: Any = expected) -> None:
            assert torch.equal(torch.as_tensor(got[0]), x.half())
            assert torch.equal(torch.as_tensor(got[1]).double(), x.abs().amax(1).double())
            for name, values in got[2].items():
                torch.testing.assert_close(
                    torch.as_tensor(values).double(), getattr(expected, name), rtol=1e-4, atol=1e-2
                )

        yield Case(
            f"N={n} F={features} float32 to float16, compared, sketch of {WIDTH}",
            ours,
            {
                "torch, a pass for each": lambda x=x, b=before, s=slots: peers.torch_passes(x, b, s, WIDTH),
                "numpy, a pass for each": lambda x=x, b=before, s=slots: peers.numpy_passes(x, b, s, WIDTH),
            },
            check,
            ceiling="copy",
            amount=n * features * (4 + 2 + 2 + 2),  # values, stored, read again, before
            repeats=7,
        )
