"""Spectra of recorded features against float64 arithmetic on whole arrays."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from featdyn.analysis import analyses
from featdyn.capture import Probes, Recorder
from featdyn.errors import ComputeError, FeatdynError
from featdyn.store import Run
from tests.engine.forked import forked_workers
from tests.engine.on_workers import same_numbers

spectra = analyses()["spectra"]
SETS = {"train": 23, "test": 17}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("spectra") / "run.zarr")


def recorded(store, dtype="float32"):
    """Two checkpoints of maps, tokens and vectors, in shards of a few samples; float16 gradients are stored scaled."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.Flatten(2), nn.Linear(36, 7), nn.Flatten(1), nn.Linear(35, 11), nn.Linear(11, 3)
    )
    samples = sum(SETS.values())
    split = np.repeat(np.array(list(SETS), dtype=object), list(SETS.values()))
    probes = Probes(torch.randn(samples, 1, 8, 8) + 3, torch.arange(samples) % 3, {"split": split})
    import featdyn.store.schema as schema

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 8)
        with Recorder(model, probes, store, layers=["0", "2", "4"], dtype=dtype, batch=8) as recorder:
            recorder.record(step=0)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
            recorder.record(step=5)
    return Run(store)


def observations(run: Run, layer: str, of: str, t: int) -> dict[str, np.ndarray]:
    array = run.array(f"layers/{layer}/{of}")[t]
    found = {}
    for name in SETS:
        values = array.values[run.coords["split"].values == name].astype(np.float64)
        width = 1 if array.ndim == 4 else values.ndim - 1
        found[name] = np.moveaxis(values, width, -1).reshape(-1, values.shape[width])
    return found


@pytest.mark.parametrize(("of", "dtype"), [("activation", "float32"), ("gradient", "float32"), ("gradient", "float16")])
def test_spectra_are_those_of_the_covariance(run, of, dtype, tmp_path):
    run = run if dtype == "float32" else recorded(tmp_path / "r.zarr", dtype)
    assert run.schema.blocks > 4
    found = spectra(run, of=of)
    assert found["width"].values.tolist() == [5, 7, 11]
    for layer in run.layers:
        for t in range(2):
            for name, x in observations(run, layer, of, t).items():
                cell = found.sel(layer=layer, set=name, t=t)
                values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
                scale = values[0]
                np.testing.assert_allclose(cell["eigenvalue"][: len(values)], values, atol=3e-6 * scale, rtol=1e-5)
                assert np.isnan(cell["eigenvalue"][len(values) :]).all()
                np.testing.assert_allclose(cell["variance"], values.sum(), rtol=1e-5)
                np.testing.assert_allclose(cell["mean_norm"], np.linalg.norm(x.mean(0)), rtol=1e-5)
                p = np.maximum(values, 0) / values.sum()
                np.testing.assert_allclose(
                    cell["effective_rank"], np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()), rtol=1e-3
                )
                np.testing.assert_allclose(cell["participation_ratio"], 1 / (p**2).sum(), rtol=1e-4)
                np.testing.assert_allclose(cell["stable_rank"], values.sum() / scale, rtol=1e-4)
                assert int(cell["observations"]) == len(x)


def test_the_same_on_workers(run, clusters):
    here = spectra(run, layers=("0", "4"))
    for found in clusters.values():
        same_numbers(spectra(run, layers=("0", "4"), workers=found), here)


def test_a_worker_killed_in_the_middle_changes_nothing(run):
    here, killed = spectra(run), []

    def kill(done: int, total: int) -> None:
        if done == 2:
            killed.extend(found.client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    with forked_workers(workers=2) as found:
        same_numbers(spectra(run, workers=found, progress=kill), here)
        assert killed[0] not in found.client.run(os.getpid, on_error="ignore").values()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_that_do_not_vary(tmp_path, dtype):
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    nn.init.zeros_(model[0].weight)
    probes = Probes(torch.randn(9, 4), torch.arange(9) % 2)
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["0"], dtype=dtype) as recorder:
        recorder.record(step=0)
    found = spectra(Run(tmp_path / "r.zarr"))
    if dtype == "float16":  # whether they did before they were rounded is not known
        assert "constant_or_lost_in_rounding" in found["status"].attrs["flag_meanings"]
        assert np.isnan(found["variance"].item())
        return
    assert float(found["variance"].item()) == 0
    assert np.isnan(found["effective_rank"].item())
    assert float(found["mean_norm"].item()) > 0


def test_bad_input_is_one_line(run):
    with pytest.raises(FeatdynError, match=r"no activation of s9\* was recorded; layers are 0, 2, 4"):
        spectra(run, layers=("s9*",))
    from featdyn.compute.serial import Serial

    with pytest.raises(ComputeError, match="3 layers x 2 checkpoints x 40 probes: needs"):
        spectra(run, workers=Serial(1000))
