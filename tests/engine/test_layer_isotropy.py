"""Tests of isotropy on recorded arrays: planted noise is told from isotropic noise, whatever the layer's shape."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis.layer_isotropy import layer_isotropy
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram, isotropy
from featdyn.statistics.family import FAMILY
from featdyn.store import ArraySpec, Run, RunWriter, Schema

SETS = {"train": 40, "test": 30}
SHAPE = 6, 5, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Checkpoint 0: isotropic draws; 1: one direction stands out; 2: nothing varies."""
    path, samples = tmp_path_factory.mktemp("isotropy") / "run.zarr", sum(SETS.values())
    specs = [
        ArraySpec("step", (), (), "int64"),
        ArraySpec("layers/a/gradient", ("sample", "channel", "height", "width"), (samples, *SHAPE), "float32"),
    ]
    split = np.repeat(np.array(list(SETS), dtype=object), list(SETS.values()))
    root = xr.Dataset(coords={"sample": [f"s{i}" for i in range(samples)], "split": ("sample", split)})
    static = {"": root, "cube": xr.Dataset(coords={"layer": np.array(["a"], dtype=object)})}
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(SHAPE)
    with RunWriter.create(path, Schema(tuple(specs), samples, 16), static=static, attributes={}) as writer:
        for t in range(3):
            noise = rng.standard_normal((samples, *SHAPE))
            if t == 1:
                noise += 2 * rng.standard_normal((samples, 1, 1, 1)) * direction
            if t == 2:
                noise[:] = 0
            noise[3] *= 1e-9  # a probe that has been learnt: its gradient is nothing but rounding
            with writer.checkpoint() as checkpoint:
                checkpoint.write("step", np.array(10 * t))
                for block in range(writer.schema.blocks):
                    rows = writer.schema.block_slice(block)
                    checkpoint.write("layers/a/gradient", noise[rows].astype(np.float32), block)
    return Run(path)


def test_planted_directions_are_found(run):
    found = layer_isotropy(run).sel(layer="a")
    assert (found["gradient_verdict"].sel(t=0) != "anisotropic").all()
    assert (found["gradient_verdict"].sel(t=1) == "anisotropic").all()
    assert (found["gradient_verdict"].sel(t=2) == "undecided").all()
    assert found["gradient_directions"].sel(t=1).values.tolist() == [1, 1]
    assert found["gradient_draws"].sel(t=0).values.tolist() == [39, 30]
    assert (found["gradient_share"].sel(t=1, k=1) > 0.5).all()
    assert np.isnan(found["gradient_pvalue"].sel(t=2)).all()
    first = found.sel(t=0)
    valid = first["gradient_valid"].values
    assert (first["gradient_holm"].values >= first["gradient_pvalue"].values)[valid].all()


def test_numbers_are_those_of_the_tests_on_the_draws(run):
    found = layer_isotropy(run, samples=20).sel(layer="a", set="test", t=1)
    x = run.array("layers/a/gradient")[1].values[SETS["train"] :][:20].reshape(20, -1)
    x = x[np.random.default_rng(0).permutation(20)]  # neighbours in a store may be alike
    wanted = isotropy(Gram.of(x), center="estimated", rng=0, alpha=0.05)
    values = [np.nan if e.result is None else e.result.statistic for e in wanted.tests]
    np.testing.assert_allclose(found["gradient_statistic"], values)
    assert found["test"].values.tolist() == list(FAMILY)


def test_the_same_on_workers(run, clusters):
    here = layer_isotropy(run, samples=24)
    for found in clusters.values():
        assert layer_isotropy(run, samples=24, workers=found).identical(here)


def test_bad_input_is_one_line(run):
    with pytest.raises(FeatdynError, match="no activation of \\* was recorded"):
        layer_isotropy(run, of="activation")


def test_it_is_an_analysis_like_the_others(run, tmp_path):
    import shutil

    from featdyn.analysis import analyses
    from featdyn.analysis.record import record

    shutil.copytree(run.path, tmp_path / "r.zarr")
    record(tmp_path / "r.zarr", analyses()["layer_isotropy"], {"samples": 8})
    assert Run(tmp_path / "r.zarr").result("layer_isotropy").sizes["t"] == 3
