"""Tangent kernels of a run, beside gradients that a plain loop takes one by one in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.features.tangent_kernel.kernels import directions
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.statistics.richness.ntk import ntk_deviation
from featdyn.store import Run
from featdyn.validation import validate
from tests.engine.on_workers import Own, own_run, plans, same_on

tangent_kernel = analyses()["tangent_kernel"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Own]:
    return own_run(tmp_path_factory.mktemp("own") / "run.zarr", n=24, checkpoints=3)


def by_hand(model: nn.Module, inputs: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return J, ``(m, C, P)``, in float64."""
    model = model.double().eval()
    found = []
    for x in inputs.double():
        gradients = [torch.autograd.grad(out, list(model.parameters()), retain_graph=True) for out in model(x[None])[0]]
        found.append([np.concatenate([g.flatten().numpy() for g in one]) for one in gradients])
    return np.array(found)


def aligned(kernel: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    h = np.eye(len(kernel)) - 1 / len(kernel)
    k, y = h @ kernel @ h, h @ (labels[:, None] == labels) @ h
    return float((k * y).sum() / np.linalg.norm(k) / np.linalg.norm(y))


def words(found: xr.Dataset, name: str) -> Any:
    said = reasons(found, name)
    assert said is not None
    return said.values


@pytest.mark.parametrize("count", [3, 2])
def test_kernels_are_those_of_a_plain_loop(recorded: tuple[Run, Own], count: int) -> None:
    """Of three outputs each by itself, or sums of them with random signs."""
    run, model = recorded
    options = {"directions": count, "shuffles": 9}
    found = tangent_kernel(run, model=model, **options)
    ways = directions(3, validate(tangent_kernel.options, options, "tangent_kernel")).numpy()
    assert ways.shape == (count, 3)
    np.testing.assert_allclose(np.square(ways).sum(1), 1)
    mine = run.values("split") == "test"
    inputs, labels, kernels = torch.from_numpy(run.values("inputs/input")[mine]), run.values("label")[mine], []
    for t in range(3):
        network = Own()
        network.load_state_dict(run.state(t))
        j = by_hand(network, inputs)
        along = [np.einsum("c,icp->ip", way, j) for way in ways]
        kernels.append(np.mean([rows @ rows.T for rows in along], 0))
    for t, kernel in enumerate(kernels):
        cell = found.sel(set="test", t=t)
        assert float(cell["deviation"]) == pytest.approx(ntk_deviation(kernels[0], kernel), abs=1e-6)
        assert float(cell["gradient_square"]) == pytest.approx(kernel.diagonal().mean(), rel=1e-5)
        assert float(cell["alignment"]) == pytest.approx(aligned(kernel, labels), abs=1e-5)
        assert float(cell["alignment_low"]) < float(cell["alignment"]) < float(cell["alignment_high"])
        if t:
            assert float(cell["change"]) == pytest.approx(ntk_deviation(kernels[t - 1], kernel), abs=1e-6)
            assert float(cell["deviation_low"]) <= float(cell["deviation"]) <= float(cell["deviation_high"])
    assert set(words(found, "change")[:, 0]) == {"no earlier checkpoint"}
    assert float(found["deviation"].sel(t=2).min()) > 1e-3
    assert int(found["used"].sel(set="test")) == 12


def test_a_kernel_turns_to_what_was_learned(tmp_path: Path) -> None:
    """A linear network's kernel stands still; of one that is deeper it turns to the labels."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    inputs = torch.randn(32, 8, generator=rng)
    inputs[:, 0] += 2.0 * (2 * labels - 1)
    torch.manual_seed(0)
    for name, model in {
        "line": nn.Sequential(nn.Linear(8, 2)),
        "deep": nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)),
    }.items():
        step = torch.optim.SGD(model.parameters(), 0.1)
        with Recorder(model, Probes(inputs, labels), tmp_path / name, layers=["0"], gradients=False) as recorder:
            for t in range(3):
                recorder.record(step=30 * t)
                for _ in range(30):
                    step.zero_grad()
                    nn.functional.cross_entropy(model(inputs), labels).backward()
                    step.step()
        found = tangent_kernel(Run(tmp_path / name), model=model).isel(set=0)
        if name == "line":
            np.testing.assert_allclose(found["deviation"], 0, atol=1e-6)
        else:
            assert float(found["deviation"][2]) > float(found["deviation_low"][2]) > 0.005
            assert float(found["alignment"][2]) > float(found["alignment"][0])
        assert float(found["alignment"][2]) > 2 * float(found["alignment_shuffled"][2])


class Odd(nn.Module):
    """A network that asks for a tensor's value, which many samples at once do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.one(x)
        return self.two(torch.tanh(z) if float(z.detach().sum()) > 0 else z)


def test_a_network_that_looks_at_values_is_asked_sample_by_sample(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, inputs = Odd(), torch.randn(6, 3)
    coords = {"split": np.array(["train"] * 5 + ["test"], dtype=object)}
    with Recorder(model, Probes(inputs, None, coords), tmp_path / "r", layers=["one"], gradients=False, batch=1) as r:
        r.record(step=0)
    found = tangent_kernel(Run(tmp_path / "r"), model=model).isel(t=0)
    j = by_hand(model, inputs[:5])
    kernel = np.mean([j[:, c] @ j[:, c].T for c in range(2)], 0)
    assert float(found["gradient_square"].sel(set="train")) == pytest.approx(kernel.diagonal().mean(), rel=1e-5)
    assert set(words(found, "deviation")) == {"", "too few samples"}
    assert set(words(found, "alignment")) == {"no targets that can be used"}


def test_outputs_without_a_gradient_have_no_kernel(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with Recorder(model, Probes(torch.zeros(4, 3), None), tmp_path / "r", layers=["0"], gradients=False) as recorder:
        recorder.record(step=0)
    frozen = nn.Sequential(nn.Linear(3, 2).requires_grad_(requires_grad=False))
    frozen.load_state_dict(model.state_dict())
    found = tangent_kernel(Run(tmp_path / "r"), model=frozen)
    assert set(words(found, "deviation").ravel()) == {"no output has a gradient"}
    with pytest.raises(FeatdynError, match="needs network"):
        tangent_kernel(Run(tmp_path / "r"))


def test_the_same_on_workers(recorded: tuple[Run, Own], clusters: Any, caplog: pytest.LogCaptureFixture) -> None:
    run, model = recorded
    alone = tangent_kernel(run, model=model, shuffles=3)
    same_on(clusters, tangent_kernel, alone, run, model=model, shuffles=3)
    plans(tangent_kernel, run, caplog, model=model)
