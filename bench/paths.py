"""Distances within paths, beside torch: features of one probe at T checkpoints, float32; no targets were set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.harness import Case, sized
from featdyn_kernels import paths
from tests.kernels.peers import paths as peers

SHAPES = ((64, 15, 1_024), (8, 50, 8_192), (2, 200, 8_192))  # ResNet-20: digits; CIFAR after stage 2


def cases(device: str) -> Iterator[Case]:
    for n, steps, width in sized(SHAPES, ((3, 5, 40),)):
        draw = torch.Generator().manual_seed(width)
        walk = 0.02 * torch.randn(n, steps, width, generator=draw).cumsum(1)
        x = torch.randn(n, 1, width, generator=draw) + walk
        expected = paths.squared_distances(x.numpy(), backend="reference")
        x = x.to(device)

        def check(got: Any, expected: np.ndarray[Any, Any] = expected) -> None:
            np.testing.assert_allclose(got.cpu().double(), expected, rtol=1e-4, atol=1e-9)

        named = {
            "torch.cdist, differences": lambda x=x: peers.torch_cdist(x),
            "torch, float64 products": lambda x=x: peers.torch_products(x),
            "torch, a loop over times": lambda x=x: peers.torch_loop(x),
        }
        notes = "" if device == "cpu" else "no GPU figure exists yet"
        yield Case(
            f"N={n} T={steps} F={width} float32",
            lambda x=x: paths.squared_distances(x),
            named,
            check,
            repeats=5,
            notes=notes,
        )
