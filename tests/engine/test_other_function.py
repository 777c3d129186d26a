"""A network that differs from the recorded one at some probes only is refused, wherever these are."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featdyn import Probes, Recorder
from featdyn.analysis import analyses
from featdyn.analysis.inputs.weights import CHECKED, PASSES, _spread
from featdyn.errors import NetworkError
from featdyn.store import Run

NAMES: dict[str, dict[str, Any]] = {
    "averaging": {},
    "drift": {"features": "recomputed"},
    "density": {"features": "recomputed", "permutations": 19},
    "interactions": {"players": 3, "samples": 2},
    "tangent_kernel": {"samples": 8},
}


def mlp(act: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run of 290 probes in two blocks; those from 256 on are beyond 6 behind the first layer."""
    path: Path = tmp_path_factory.mktemp("other") / "r.zarr"
    model, labels = mlp(nn.ReLU), torch.arange(290) % 3
    inputs = torch.randn(290, 6, generator=torch.Generator().manual_seed(0))
    inputs[:256] /= 10
    inputs[256:] *= 30
    split = np.array(["train"] * 256 + ["test"] * 34, object)
    with Recorder(model, Probes(inputs, labels, {"split": split}), path, layers=["0"], gradients=False) as recorder:
        for step in range(2):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1)
    return Run(path)


@pytest.mark.parametrize("name", NAMES)
def test_probes_behind_the_first_batch_tell_too(run: Run, name: str) -> None:
    with pytest.raises(NetworkError, match="the model is not the one recorded"):
        analyses()[name](run, model=mlp(nn.ReLU6), **NAMES[name])
    assert not run.results(name)


def test_the_recorded_network_is_taken(run: Run) -> None:
    assert np.isfinite(analyses()["averaging"](run, model=mlp(nn.ReLU))["loss"]).all()


@given(st.integers(1, 40), st.integers(1, 200))
def test_batches_that_are_compared_are_spread(checkpoints: int, batches: int) -> None:
    found = dict(_spread(checkpoints, batches))
    assert {0, checkpoints - 1} <= set(found)
    assert len(found) <= CHECKED
    most = max(2, PASSES // len(found))
    for places in found.values():
        assert len(set(places)) == len(places) == -(-batches // -(-batches // most)) <= most
        assert max(np.diff([*places, places[0] + batches])) <= -(-batches // most)  # no gap, around the end, is wider
    if batches > PASSES:
        assert len(set(chain(*found.values()))) > most or len(found) == 1  # other ones at other checkpoints
