"""Distances between feature distributions of checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis import analyses
from featdyn.analysis.features.density.basis import WIDTH, Basis
from featdyn.analysis.features.density.compute import MEASURES
from featdyn.statistics import two_sample
from featdyn.store import Run
from tests.engine.on_workers import same_numbers

density = analyses()["density"]


@pytest.fixture(scope="module")
def found(small_store):
    return density(Run(small_store), permutations=39)


def test_every_pair_cut_and_set(found, small_store):
    run = Run(small_store)
    assert found["statistic"].dims == ("measure", "cut", "set", "pair")
    assert found["t1"].values.tolist() == list(range(run.checkpoints - 1))
    assert (found["t2"] == run.checkpoints - 1).all()
    np.testing.assert_allclose(found["excess"], found["statistic"] - found["null_mean"])
    assert (found["adjusted"] >= found["pvalue"] - 1e-12).all()
    assert found["explained"].sum("component").max() <= 1 + 1e-6


def test_features_that_moved_are_told_from_features_that_did_not(found):
    # Between initialisation and the end everything moved; 40 probes tell.
    first = found.sel(set="train").isel(pair=0)
    assert (first["pvalue"].sel(measure="energy") <= 0.05).all()
    assert (first["excess"].sel(measure="total_variation") > 0).all()


def test_distances_are_those_of_the_projected_features(found, small_store):
    run = Run(small_store)
    member = run.coords["split"].values == "test"
    z = [
        run.array("layers/pooled/activation")[t].values[member].reshape(member.sum(), -1)
        for t in range(run.checkpoints)
    ]
    z = [np.asarray(one, np.float64) for one in z]
    x = np.concatenate(z)
    x = x - x.mean(0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    points = [((one - np.concatenate(z).mean(0)) @ axes.T).astype(np.float32) for one in z]
    # Signs of axes do not matter to any of these, nor does the rotation beyond those kept.
    for name in ("mmd", "energy"):
        wanted = getattr(two_sample, name)(points[1][:, :WIDTH], points[-1][:, :WIDTH], paired=True, permutations=39)
        cell = found["statistic"].sel(measure=name, cut="pooled", set="test").isel(pair=1)
        assert float(cell) == pytest.approx(wanted.statistic, rel=1e-3)
    wanted = two_sample.kde_total_variation(
        points[1][:, :2],
        points[-1][:, :2],
        paired=True,
        permutations=39,
        rng=0,
        groups=run.coords["origin"].values[member],
    )
    cell = found["statistic"].sel(measure="total_variation", cut="pooled", set="test").isel(pair=1)
    assert float(cell) == pytest.approx(wanted.statistic, rel=1e-3)


def test_pairs(small_store):
    run = Run(small_store)
    consecutive = density(run, cuts=("pooled",), pairs="consecutive", permutations=19, samples=30)
    assert (consecutive["t2"] == consecutive["t1"] + 1).all()
    assert consecutive["set_size"].max() == 30
    every = density(run, cuts=("pooled",), pairs="all", permutations=19, samples=30)
    assert every.sizes["pair"] == run.checkpoints * (run.checkpoints - 1) // 2


def test_the_basis_is_common_and_fitted_on_all_checkpoints():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal((100, 80)) * np.linspace(5, 0.1, 80) + t for t in range(3)])
    basis = Basis.of(z.astype(np.float32))
    np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(WIDTH), atol=1e-6)
    pooled = (z - z.mean(0)) @ basis.axes
    assert pooled.shape == (300, WIDTH)
    variance = pooled.var(0)
    assert (np.diff(variance) <= 1e-6).all()
    assert set(MEASURES) == {"total_variation", "mmd", "energy", "sliced_wasserstein", "classifier"}


def test_the_same_on_workers(small_store, clusters):
    options = {"cuts": ("pooled", "s1b1"), "permutations": 19, "samples": 30, "features": "stored"}
    run = Run(small_store)
    here = density(run, **options)
    found = [density(run, workers=workers, **options) for workers in clusters.values()]
    same_numbers(found[0], found[1])
    xr.testing.assert_allclose(found[0], here, rtol=1e-4, atol=1e-5)  # BLAS sums in another order on two threads
