"""What is lost in rounding to the stored type is said to be, in planted features far from zero; what is not is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featdyn import Probes, Recorder
from featdyn.analysis import analyses
from featdyn.analysis.inputs.rounded_away import LOST, lost, rounded_away, vectors_rounded_away
from featdyn.analysis.status import DEAD, reasons
from featdyn.statistics.rounding import rounding_share, roundoff
from featdyn.store import ArraySpec, Run

N, P = 60, 6
MEASURES: dict[str, tuple[str, dict[str, Any]]] = {
    "spectra": ("variance", {}),
    "representation": ("two_nn", {}),
    "collapse": ("nc1", {}),
    "richness": ("low_rank", {}),
    "similarity": ("procrustes", {}),
    "layer_isotropy": ("activation_participation_ratio", {"of": "activation"}),
    "drift": ("cka_debiased", {"features": "stored"}),
    "density": ("statistic", {"features": "stored", "permutations": 19}),
}


def planted(path: Path, middle: float, dtype: str) -> tuple[Run, nn.Module]:
    """Return a run with features ``middle`` +- 1 at two checkpoints, and its network."""
    random = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(N, P, bias=False), nn.Linear(P, 3, bias=False))
    coords = {"split": np.array(["train", "test"] * (N // 2), object)}
    probes = Probes(torch.eye(N), torch.arange(N) % 3, coords)
    with Recorder(network, probes, path, layers=["0"], gradients=False, dtype=dtype) as recorder, torch.no_grad():
        for step in range(2):
            network[0].weight.copy_(torch.from_numpy(middle + random.normal(size=(P, N))))  # type: ignore[operator]
            network[1].weight.copy_(torch.from_numpy(1e-3 * random.normal(size=(3, P))))  # type: ignore[operator]
            recorder.record(step=step)
    return Run(path), network


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[float, str], tuple[Run, nn.Module]]:
    folder = tmp_path_factory.mktemp("rounded")
    worlds = ((3000.0, "float16"), (20000.0, "float16"), (3000.0, "float32"), (10.0, "float16"))
    return {world: planted(folder / f"{i}.zarr", *world) for i, world in enumerate(worlds)}


def said(runs: dict[tuple[float, str], tuple[Run, nn.Module]], world: tuple[float, str], name: str) -> set[str]:
    """Return why a measure is missing, '' where it is there, over all its cells."""
    (run, network), (measure, options) = runs[world], MEASURES[name]
    found = analyses()[name](run, model=network if name in ("drift", "density") else None, **options)
    why = reasons(found, measure)
    assert why is not None
    why = xr.broadcast(why, found[measure])[0].transpose(*found[measure].dims)
    assert (np.isfinite(found[measure].values) == (why.values == "")).all()
    return set(why.values.ravel().tolist())


@pytest.mark.parametrize("name", MEASURES)
def test_what_rounding_leaves_is_not_measured(runs: dict[tuple[float, str], tuple[Run, nn.Module]], name: str) -> None:
    assert said(runs, (3000.0, "float16"), name) == {"lost in rounding to float16 which dtype float32 keeps"}
    constant = said(runs, (20000.0, "float16"), name)
    assert constant == {"constant or lost in rounding to float16 which dtype float32 tells"}
    for kept in ((3000.0, "float32"), (10.0, "float16")):
        assert not any("rounding" in why for why in said(runs, kept, name))


def spec(dtype: str, shape: tuple[int, ...] = (P,), dims: tuple[str, ...] = ("sample", "feature")) -> ArraySpec:
    return ArraySpec("layers/a/activation", dims, (N, *shape), dtype)


@given(st.floats(0.1, 1e4), st.floats(-4, 0), st.integers(0, 2**32 - 1))
def test_the_share_is_that_of_what_rounding_changes(middle: float, spread: float, seed: int) -> None:
    exact = middle * (1 + 10.0**spread * np.random.default_rng(seed).normal(size=(512, 8)))
    stored = exact.astype(np.float16).astype(np.float64)
    share = rounding_share(roundoff("float16"), np.square(stored).mean(), max(stored.var(0).mean(), 1e-300))
    changed = np.square(stored - exact).mean() / max(stored.var(0).mean(), 1e-300)
    if changed < 0.1:  # finer than what varies, rounding is as if at random
        assert changed / 2.5 < share < 2.5 * changed


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2**-11), ("float32", 2**-24)])
def test_each_type_has_a_limit_of_its_own(dtype: str, unit: float) -> None:
    size = 0.18 * unit**2 / LOST  # the variance at the limit, of features 1
    assert lost(spec(dtype), 1.0, 1.01 * size, averaged=False) == ""
    assert lost(spec(dtype), 1.0, 0.99 * size, averaged=False).startswith(f"lost_in_rounding_to_{dtype}")
    maps = spec(dtype, (P, 10, 10), ("sample", "channel", "height", "width"))
    assert lost(maps, 1.0, 0.99 * size, averaged=True) == ""  # it averages out over 100 positions
    zero, one = np.zeros(P), np.eye(P)[0]
    assert rounded_away(spec(dtype), zero, zero, averaged=False) == ""  # of zeros nothing is rounded
    assert rounded_away(spec("int16"), one, zero, averaged=False) == ""
    assert rounded_away(spec(dtype), 1e6 * one, 1 - one, averaged=False) == ""  # a constant hides no other
    constant = vectors_rounded_away(spec(dtype), np.full((N, P), 0.3), averaged=False)
    assert constant == (
        "" if dtype == "float32" else "constant_or_lost_in_rounding_to_float16_which_dtype_float32_tells"
    )


def test_an_ordinary_run_loses_no_cell(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(96, 1, 8, 8) * 16, torch.arange(96) % 3
    images[:, 0, :, 0] += 8 * labels[:, None]
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 3)
    )
    trained, coords = torch.optim.SGD(network.parameters(), 0.05), {"split": np.array(["train", "test"] * 48, object)}
    with Recorder(network, Probes(images, labels, coords), tmp_path / "r.zarr", layers=["1", "5"]) as recorder:
        for step in range(2):
            network.eval()
            recorder.record(step=step)
            network.train()
            for _ in range(5):
                trained.zero_grad()
                nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
                trained.step()
    run = Run(tmp_path / "r.zarr")
    for name in ("spectra", "representation", "collapse", "richness", "similarity", "layer_isotropy"):
        measure, options = MEASURES[name]
        found = analyses()[name](run, **options)
        why = reasons(found, measure)
        assert why is not None
        assert not any("rounding" in str(each) for each in why.values.ravel())
    assert DEAD not in {str(each) for each in reasons(analyses()["spectra"](run), "variance").values.ravel()}  # type: ignore[union-attr]
