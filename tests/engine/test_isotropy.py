"""Isotropy of sampled noise: what each cell says, beside float64 references on the draws themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn import analyze
from featdyn.analysis import analyses, isotropy_cells
from featdyn.analysis.gradient_noise.gram_arrays import to_arrays
from featdyn.analysis.gradient_noise.sampler import Sampler, flat
from featdyn.analysis.gradient_noise.training_data import training_data
from featdyn.analysis.inputs.weights import States, network
from featdyn.analysis.isotropy_variables import SHARES, TESTED
from featdyn.analysis.status import reasons
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram
from featdyn.statistics.family import FAMILY
from featdyn.store import Run, RunWriter
from featdyn.training import load
from featdyn.training.stage import train
from tests.engine.conftest import SMALL

DRAWS = 24
RECIPE = [*SMALL, "network.name=mlp", "data.train_size=100", "training.batch_size=20", "training.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    found = train(load("digits", RECIPE), tmp_path_factory.mktemp("isotropy") / "r.zarr")
    with pytest.raises(FeatdynError, match=r"isotropy reads a result of noise; run: featdyn analyze .* noise"):
        analyze(found, "isotropy")
    analyze(found, "noise", draws=DRAWS, probes=3, curvature=10)
    return Run(found.path)


@pytest.fixture(scope="module")
def result(run):
    return analyze(run, "isotropy")


def main_directions(x, k):
    return np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:k]


def test_shapes_and_order(run, result):
    assert result["parameter_verdict"].dims == ("cut", "t")
    assert result["feature_pvalue"].dims == ("test", "cut", "t", "probe")
    robust = result["parameter_pvalue"].sel(test="sign_test")
    assert ((robust >= 0) & (robust <= 1)).all()
    there = result["parameter_pvalue"].notnull()
    assert (result["parameter_holm"] >= result["parameter_pvalue"]).where(there, True).all()
    assert (result["parameter_share"].diff("k") >= -1e-12).all()
    assert (result["parameter_share_isotropic"] <= result["parameter_share_isotropic_high"]).all()
    assert set(np.unique(result["parameter_verdict"].values)) <= {"isotropic", "anisotropic", "undecided"}
    assert (result["parameter_reason"] != "").all()
    assert result.attrs["center"] == "known"
    assert (result["curvature_ratio"] > 0).any()


def test_the_drift_s_share_stands_beside_that_along_permuted_labels_and_halves(run, result):
    model = network(run)
    saved = States(run, model)
    sampler = Sampler(training_data(run, None, None, None), None, 0)
    sampler.at(saved[0])
    names = [name for name in saved[0] if name.startswith(tuple(n for n, _ in model.named_children()))]
    cut = -1
    size = int(run.result("noise")["prefix_params"][cut])
    names = names[: int(np.searchsorted(np.cumsum([saved[0][n].numel() for n in names]), size)) + 1]
    assert sum(saved[0][n].numel() for n in names) == size
    way = (flat(saved[1], names).double() - flat(saved[0], names)).numpy()
    found = result.isel(cut=cut, t=0)
    for permuted, name in ((False, "parameter_drift_share"), (True, "parameter_drift_share_permuted")):
        draws = torch.stack([flat(d, names) for d in sampler.draws(DRAWS, True, permuted=permuted)]).double().numpy()
        for i, k in enumerate(SHARES):
            wanted = np.square(main_directions(draws, k) @ way).sum() / (way @ way)
            assert float(found[name][i]) == pytest.approx(wanted, rel=1e-3)
        half = found[f"{name}_halves"].values
        assert ((half > 0) & (half < 1)).all()
    last = result.isel(t=-1)
    assert last["parameter_drift_share"].isnull().all()
    assert (reasons(result, "parameter_drift_share").isel(t=-1) == "no later checkpoint").all()


@pytest.fixture
def changed(run, tmp_path):
    """Commit the noise sample with some of its cells replaced, and test that."""
    import shutil

    def call(change):
        path = tmp_path / "r.zarr"
        shutil.copytree(run.path, path)
        sample = run.result("noise").load()
        with RunWriter.open(Run(path).place) as writer:
            writer.result("noise", change(sample))
        return analyses()["isotropy"](Run(path))

    return call


def replaced(sample, prefix, gram, **where):
    for name, (_, value) in to_arrays(prefix, gram).items():
        array = sample[name].copy()
        array[where] = value
        sample[name] = array
    return sample


def test_a_probe_whose_features_do_not_move_takes_no_other_along(changed, result):
    n = DRAWS

    def change(sample):
        p = int(sample["feature_p"].isel(cut=0, t=0, probe=1))
        for prefix in ("feature", "control", "permuted_feature"):
            sample = replaced(sample, prefix, Gram.of(np.zeros((n, p))), cut=0, t=0, probe=1)
        lost = Gram(n, p, np.full((n, n), np.nan), np.full(n, np.nan), np.nan, np.nan, np.nan)
        sample = replaced(sample, "feature", lost, cut=0, t=0, probe=2)
        still = sample["feature_drift_square"].copy()
        still[{"cut": 0, "t": 0, "probe": 0}] = 0.0
        return sample.assign(feature_drift_square=still)

    found = changed(change)
    cell = {"cut": 0, "t": 0}
    assert found["feature_verdict"].isel(cell).values[1:].tolist() == ["undecided"] * 2
    assert found["feature_reason"].isel(cell).values[1:].tolist() == ["draws do not vary", "not finite"]
    words = reasons(found, "feature_stable_rank").isel(cell).values.tolist()
    assert words == ["", "draws do not vary", "not finite"]
    drift = found["feature_drift_status"]
    meanings = np.array(drift.attrs["flag_meanings"].split())[drift.isel(cell).values]
    assert meanings.tolist() == ["does_not_move", "draws_do_not_vary", "not_finite"]
    others = found["feature_stable_rank"].isel(cut=1)
    np.testing.assert_array_equal(others, result["feature_stable_rank"].isel(cut=1))
    first = cell | {"probe": 0}
    assert found["feature_stable_rank"].isel(first) == result["feature_stable_rank"].isel(first)


def test_curvatures_are_compared_where_the_loss_is_curved_and_the_noise_moves(changed, run):
    sample = run.result("noise").load()

    def change(sample):
        sample["isotropic_curvature"][0, 0] = 0.0
        sample["noise_curvature"][1, 0] = np.nan
        return sample

    found = changed(change)
    wanted = (sample["noise_curvature"].mean("draw") / sample["isotropic_curvature"].mean("draw")).values
    wanted[[0, 1], 0] = np.nan
    np.testing.assert_allclose(found["curvature_ratio"], wanted)
    said = reasons(found, "curvature_ratio").values
    assert said[:2, 0].tolist() == ["loss is flat along random directions", "does not move"]
    assert (said != "").sum() == np.isnan(wanted).sum()


def test_permuted_labels_that_were_not_sampled_are_said_to_be_so(changed, result):
    found = changed(lambda sample: sample.drop_vars([n for n in sample.data_vars if str(n).startswith("permuted")]))
    for space in ("parameter", "feature"):
        for name in (f"{space}_drift_share_permuted", f"{space}_drift_share_permuted_halves"):
            there = result[name].notnull().any("k")
            assert there.any()
            assert found[name].isnull().all()
            why = reasons(found, name).where(there, "permuted labels were not sampled")
            assert (why == "permuted labels were not sampled").all()
            assert ((reasons(result, name) == "") == there).all()
        np.testing.assert_array_equal(found[f"{space}_drift_share"], result[f"{space}_drift_share"])


def test_draws_that_depend_on_each_other_are_undecided_and_heavy_tails_have_their_own_baseline(changed):
    rng = np.random.default_rng(1)

    def change(sample):
        p = 400
        x = rng.standard_normal((DRAWS, p))
        for i in range(1, DRAWS):  # each remembers the one before
            x[i] = 0.8 * x[i - 1] + 0.6 * x[i]
        heavy = rng.standard_normal((DRAWS, p)) / np.abs(rng.standard_normal((DRAWS, 1)))  # Cauchy
        sample = replaced(sample, "parameter", Gram.of(x), cut=0, t=0)
        return replaced(sample, "parameter", Gram.of(heavy), cut=0, t=1)

    found = changed(change).isel(cut=0)
    assert found["parameter_verdict"].values[0] == "undecided"
    assert "depend on their neighbours" in found["parameter_reason"].values[0]
    assert found["parameter_order_pvalue"].values[0] < 0.01
    heavy = found.isel(t=1)
    assert heavy["parameter_verdict"] != "anisotropic"
    assert float(heavy["parameter_share"].sel(k=5)) > 0.5  # few long draws hold most of the variance,
    assert (abs(heavy["parameter_share"] - heavy["parameter_share_isotropic"]) < 0.01).all()  # as isotropic ones do,
    assert heavy["parameter_held_out"].sel(k=5) < 0.1  # and no other half knows where they point


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(3, 9),
    p=st.integers(1, 6),
    kind=st.sampled_from(["equal rows", "zeros", "one row", "two rows", "lines", "plain", "huge", "nan"]),
    center=st.sampled_from(["known", "estimated"]),
    seed=st.integers(0, 99),
)
def test_no_draws_are_an_exception(n, p, kind, center, seed):
    x = np.random.default_rng(seed).standard_normal((n, p))
    if kind == "equal rows":
        x[:] = x[0]
    elif kind == "zeros":
        x[:] = 0
    elif kind in ("one row", "two rows"):
        x[1 + (kind == "two rows") :] = 0
    elif kind == "lines":
        x[:] = x[:, :1] * x[:1]
    elif kind == "huge":
        x *= 1e40
    gram = Gram.of(x)
    if kind == "nan":
        gram = Gram(n, p, np.full((n, n), np.nan), np.full(n, np.nan), np.nan, np.nan, np.nan)
    reason, values = isotropy_cells.tested(gram, center, 0.05, 0)
    assert bool(reason) != bool(values)
    cells = np.empty((2,), dtype=object)
    cells[:] = [(reason, values), ("", {})]
    found = isotropy_cells.stacked("x", cells, ("t",))
    assert set(found) == {f"x_{name}" for name in TESTED} | {"x_status"}
    assert found["x_pvalue"].shape == (len(FAMILY), 2)
    assert found["x_share"].shape == (len(SHARES), 2)
    if reason:
        assert np.isnan(found["x_pvalue"].values).all()
        assert found["x_reason"].values[0] == reason.replace("_", " ")
