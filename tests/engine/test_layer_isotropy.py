"""Tests of isotropy on recorded arrays: planted noise is told from isotropic noise, whatever the layer's shape."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from featdyn import analyze
from featdyn.analysis import analyses
from featdyn.analysis.status import reasons
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram, isotropy
from featdyn.statistics.family import FAMILY
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.on_workers import same_numbers

layer_isotropy = analyses()["layer_isotropy"]
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
    assert (reasons(found, "gradient_stable_rank").sel(t=2) == "draws do not vary").all()
    assert found["gradient_directions"].sel(t=1).values.tolist() == [1, 1]
    assert found["gradient_draws"].sel(t=0).values.tolist() == [39, 30]
    assert (found["gradient_share"].sel(t=1, k=1) > 0.5).all()
    assert np.isnan(found["gradient_pvalue"].sel(t=2)).all()
    first = found.sel(t=0)
    valid = first["gradient_valid"].values
    assert (first["gradient_holm"].values >= first["gradient_pvalue"].values)[valid].all()


def test_numbers_are_those_of_the_tests_on_the_draws(run):
    found = layer_isotropy(run).sel(layer="a", set="test", t=1)
    x = run.array("layers/a/gradient")[1].values[SETS["train"] :].reshape(30, -1)
    x = x[np.random.default_rng(0).permutation(30)]
    wanted = isotropy(Gram.of(x), center="estimated", rng=0, alpha=0.05)
    values = [np.nan if e.result is None else e.result.statistic for e in wanted.tests]
    np.testing.assert_allclose(found["gradient_statistic"], values)
    assert found["test"].values.tolist() == list(FAMILY)
    assert found["gradient_reason"] == wanted.reason
    share = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(found["gradient_share"], [share[:k].sum() / share.sum() for k in (1, 5, 10)], rtol=1e-6)


def test_a_block_with_probes_of_both_sets_is_read_once(tmp_path, monkeypatch):
    """Sets that alternate: numbers are those of the same probes one set after the other."""
    values = np.random.default_rng(0).standard_normal((2, 48, 7)).astype(np.float32)
    split = np.array(["train", "test"], dtype=object)
    mixed = recorded(tmp_path / "mixed.zarr", values, {"split": ("sample", np.tile(split, 24))})
    order = np.argsort(np.arange(48) % 2, kind="stable")
    sorted_ = recorded(tmp_path / "sorted.zarr", values[:, order], {"split": ("sample", np.repeat(split, 24))})
    block, read = Run.block, []

    def counted(run, path, t, number, *args, **options):
        read.append((path, t, number))
        return block(run, path, t, number, *args, **options)

    monkeypatch.setattr(Run, "block", counted)
    found = layer_isotropy(mixed)
    assert sorted(read) == sorted(set(read))
    xr.testing.assert_equal(found, layer_isotropy(sorted_))


def test_the_same_on_workers(run, clusters):
    here = layer_isotropy(run, samples=24)
    for found in clusters.values():
        same_numbers(layer_isotropy(run, samples=24, workers=found), here)


def recorded(path, gradients, coords):
    """Record one layer's gradients ``(t, sample, feature)``."""
    _, samples, width = gradients.shape
    specs = [
        ArraySpec("step", (), (), "int64"),
        ArraySpec("layers/a/gradient", ("sample", "feature"), (samples, width), "float32"),
    ]
    root = xr.Dataset(coords={"sample": [f"s{i}" for i in range(samples)], **coords})
    static = {"": root, "cube": xr.Dataset(coords={"layer": np.array(["a"], dtype=object)})}
    with RunWriter.create(path, Schema(tuple(specs), samples, 128), static=static, attributes={}) as writer:
        for t, values in enumerate(gradients):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("step", np.array(t))
                checkpoint.write("layers/a/gradient", values.astype(np.float32), 0)
    return Run(path)


def test_copies_of_an_image_are_one_draw(tmp_path):
    """64 images, two copies each, isotropic: anisotropic where copies are taken for images."""
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.standard_normal((4, 64, 200)), 2, axis=1)
    draws = np.sqrt(0.5) * (shared + rng.standard_normal((4, 128, 200)))
    run = recorded(tmp_path / "r.zarr", draws, {"origin": ("sample", np.repeat(np.arange(64), 2))})
    found = layer_isotropy(run).isel(layer=0, set=0)
    assert (found["gradient_draws"] == 64).all()
    assert (found["gradient_verdict"] != "anisotropic").all()
    taken = layer_isotropy(recorded(tmp_path / "taken.zarr", draws, {})).isel(layer=0, set=0)
    assert (taken["gradient_draws"] == 128).all()
    assert (taken["gradient_verdict"] == "anisotropic").all()


def test_sets_too_small_and_values_that_are_not_finite_have_their_reason(tmp_path):
    draws = np.random.default_rng(0).standard_normal((2, 12, 9))
    draws[1, 11] = np.inf
    split = np.array(["train"] * 2 + ["test"] * 10, dtype=object)
    found = layer_isotropy(recorded(tmp_path / "r.zarr", draws, {"split": ("sample", split)})).isel(layer=0)
    why = reasons(found, "gradient_stable_rank").transpose("set", "t").values.tolist()
    assert why == [["too few samples"] * 2, ["", "not finite"]]
    assert (found["gradient_verdict"].sel(set="train") == "undecided").all()
    only = layer_isotropy(Run(tmp_path / "r.zarr"), sets=("test",))
    assert only["set"].values.tolist() == ["test"]


def test_bad_input_is_one_line(run):
    with pytest.raises(FeatdynError, match="no activations were recorded"):
        layer_isotropy(run, of="activation")


def test_it_is_an_analysis_like_the_others(run, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "r.zarr")
    analyze(tmp_path / "r.zarr", "layer_isotropy", samples=8)
    kept = Run(tmp_path / "r.zarr").result("layer_isotropy")
    assert kept.sizes["t"] == 3
    assert kept["gradient_share"].attrs["units"] == "1"
