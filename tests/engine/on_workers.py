"""A user's own network, recorded in several blocks, and the check that workers change nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.capture import Probes, Recorder
from featdyn.compute import Workers, workers
from featdyn.errors import ComputeError
from featdyn.store import Run, schema


class Own(nn.Module):
    """Two convolutions with BatchNorm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.two(self.one(x))))


def own_run(path: Path, checkpoints: int = 4, n: int = 42) -> tuple[Run, Own]:
    """Record a network that changes at random: n probes in blocks of 16 and batches of 5, stored as float32."""
    model, random = Own(), torch.Generator().manual_seed(1)
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, 1, 6, 6, generator=random) + labels[:, None, None, None]
    split = np.array(["train"] * (n // 2) + ["test"] * (n - n // 2), dtype=object)
    probes = Probes(inputs, labels, {"split": split})
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.no_grad(),
    ):
        patch.setattr(schema, "SHARD_SAMPLES", 16)
        with Recorder(model, probes, path, layers=["*"], batch=5, dtype="float32") as recorder:
            for t in range(checkpoints):
                for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                    tensor += 0.2 * torch.rand(tensor.shape, generator=random)
                recorder.record(step=10 * t)
    run = Run(path)
    assert run.schema.blocks == -(-n // 16)
    return run, model


def same_on(
    clusters: dict[str, Workers],
    analysis: Callable[..., xr.Dataset],
    found: xr.Dataset,
    run: Run,
    **options: Any,
) -> None:
    """Check that threads and processes find what this process found, every bit of it, and say how far they are."""
    for one in clusters.values():
        seen: list[tuple[int, int]] = []
        again = analysis(run, workers=one, progress=lambda *at, seen=seen: seen.append(at), **options)
        same_numbers(again, found)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert seen[-1][0] == seen[-1][1]


def same_numbers(again: xr.Dataset, found: xr.Dataset) -> None:
    """Check that two results are the same, every bit, but for when they were made."""
    xr.testing.assert_identical(again.assign_attrs(provenance=None), found.assign_attrs(provenance=None))


def plans(analysis: Callable[..., xr.Dataset], run: Run, log: pytest.LogCaptureFixture, **options: Any) -> None:
    """Check that an analysis says what it will need, and that it does nothing where that cannot fit."""
    with (
        log.at_level(logging.INFO, "featdyn"),
        workers(memory_limit=1000) as tight,
        pytest.raises(ComputeError, match=r"^[^\n]* needs .* of memory .* raise --memory-limit[^\n]*$"),
    ):
        analysis(run, workers=tight, **options)
    assert " task" in log.text
    assert "to read; at most" in log.text
