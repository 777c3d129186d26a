"""Drift: planted motion is read back, naive loops agree, and recorded networks give sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.driver import analyze
from featdyn.analysis.features.drift import motion
from featdyn.analysis.inputs.weights import States, network
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import NetworkError, RecipeError
from featdyn.networks import cuts
from featdyn.store import Run
from tests.engine.on_workers import own_run, plans, same_on

drift = analyses()["drift"]
WIDTH, STEPS, ANGLE = 6, 5, 0.2


class Planted(nn.Module):
    """Features are the inputs times a matrix, which tests set."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 3, bias=False)

    def forward(self, x):
        return self.head(self.body(x))


def turn(t):
    """Turn every plane by the same angle, so that every vector turns by it."""
    c, s = np.cos(ANGLE * t), np.sin(ANGLE * t)
    return torch.from_numpy(np.kron(np.eye(WIDTH // 2), [[c, -s], [s, c]])).float()


def planted(path, matrices, n=23, **options):
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, WIDTH, generator=random) + 2 * nn.functional.one_hot(labels, WIDTH)
    split = np.array(["train" if i < 12 else "test" for i in range(n)], dtype=object)
    model = Planted()
    with Recorder(model, Probes(inputs, labels, {"split": split}), path, layers=["*"], batch=8, **options) as recorder:
        for t, matrix in enumerate(matrices):
            with torch.no_grad():
                model.body.weight.copy_(matrix)
                model.head.weight.fill_(1.0 + t)
            recorder.record(step=10 * t)
    return Run(path), model, inputs


@pytest.fixture(scope="module")
def rotating(tmp_path_factory):
    run, model, _ = planted(tmp_path_factory.mktemp("turn") / "r.zarr", [turn(t) for t in range(STEPS)])
    return drift(run, model=model, cuts=("body",))


def test_planted_rotation_is_read_back(rotating):
    apart = np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
    for name in ("train", "test"):
        found = rotating.sel(cut="body", set=name)
        np.testing.assert_allclose(found["motion"], 2 * np.sin(ANGLE * apart / 2), atol=1e-6)
        np.testing.assert_allclose(found["cosine"], np.cos(ANGLE * apart), atol=1e-6)
        # Every probe moves alike, which does not tell how another would: no limits but on the diagonal, and a reason.
        width = (found["motion_high"] - found["motion_low"]).values
        alone = np.eye(STEPS, dtype=bool)
        np.testing.assert_allclose(width[alone], 0, atol=1e-5)
        assert (np.isnan(width) | (np.abs(width) < 1e-5)).all()
        said = reasons(found, "motion_low").values
        assert (said[np.isnan(width)] == "all probes are alike").all()
    alike = rotating.sel(cut="body", cut2="body")
    np.testing.assert_allclose(alike["cka"], 1, atol=1e-5)
    np.testing.assert_allclose(alike["cka_debiased"], 1, atol=1e-5)
    # Arcs: from chord to chord, over the chord of the whole turn.
    straight = np.sin(ANGLE * (STEPS - 1) / 2) / ((STEPS - 1) * np.sin(ANGLE / 2))
    np.testing.assert_allclose(rotating["straightness"], straight, rtol=1e-5)
    np.testing.assert_allclose(rotating["path_length"], rotating["step_length"].sum("t"), rtol=1e-6)
    assert np.isnan(rotating["step_length"].isel(t=0)).all()


def test_planted_parameters_are_read_back(rotating):
    t = np.arange(STEPS)
    apart = np.subtract.outer(t, t)
    # A rotation by phi in every plane is 2 sin(phi / 2) away from none, relative to its norm.
    np.testing.assert_allclose(rotating["prefix_distance"][0], np.abs(2 * np.sin(ANGLE * apart / 2)), atol=1e-6)
    np.testing.assert_allclose(rotating["suffix_distance"][0], np.abs(apart) / (1 + t)[:, None], atol=1e-6)


def test_a_straight_path_that_grows(tmp_path):
    run, model, inputs = planted(tmp_path / "r.zarr", [(1 + t / 2) * torch.eye(WIDTH) for t in range(STEPS)])
    found = drift(run, model=model, cuts=("body",)).isel(cut=0)
    t = np.arange(STEPS)
    expected = np.abs(np.subtract.outer(t, t)) / 2 / (1 + t / 2)[:, None]
    np.testing.assert_allclose(found["motion"].sel(set="test"), expected, rtol=1e-6)
    np.testing.assert_allclose(found["cosine"], 1, atol=1e-6)
    np.testing.assert_allclose(found["straightness"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["displacement"], (STEPS - 1) / 2 * inputs.norm(dim=1), rtol=1e-6)


def test_features_that_vanish_are_counted_and_left_out(tmp_path):
    project = torch.zeros(WIDTH, WIDTH)
    project[0, 0] = 1.0
    run, model, _ = planted(tmp_path / "r.zarr", [torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH), project])
    found = drift(run, model=model, cuts=("body",)).isel(cut=0)
    assert found["undefined"].sel(set="train").values.tolist() == [0, 12, 0]
    np.testing.assert_allclose(found["motion"][:, 0, 1], 1, rtol=1e-6)
    np.testing.assert_array_equal(found["motion"][:, 1], [[np.nan, 0, np.nan]] * 2)
    assert set(reasons(found, "motion").values[:, 1, [0, 2]].ravel()) == {"features are zero"}
    assert np.isnan(found["cosine"][:, 0, 1]).all()
    assert np.isfinite(found["cosine"][:, 0, 2]).all()
    assert np.isnan(found["cka"].isel(cut2=0, t1=1)).all()
    assert set(reasons(found, "cka").isel(cut2=0, t1=1).values) == {"features do not vary"}
    assert np.isnan(found["linear_accuracy"][:, 1]).all()
    assert np.isfinite(found["linear_accuracy"][:, [0, 2]]).all()
    assert set(reasons(found, "linear_accuracy").values[:, 1]) == {"features do not vary"}


def naive(run, cut):
    """Features by hooks, everything else in float64 by numpy, one pair at a time."""
    model = network(run)
    inputs, kept = torch.from_numpy(run.values("inputs/input")), []
    for state in States(run, model):
        model.load_state_dict(state)
        with torch.no_grad(), model.get_submodule(cut).register_forward_hook(lambda m, a, o: kept.append(o)):
            model(inputs)
    return np.stack([z.flatten(1).double().numpy() for z in kept])


def clustered_half_width(values, images):
    """Student's interval of a mean, from the sums of each image's deviations."""
    deviations = np.array([(values[images == image] - values.mean()).sum() for image in np.unique(images)])
    units = len(deviations)
    error = np.sqrt(units / (units - 1) * (deviations**2).sum()) / len(values)
    return stats.t.ppf(0.975, units - 1) * error


@pytest.fixture(scope="module")
def recorded(small_store):
    run = Run(small_store)
    return run, drift(run, cuts=("s1b3", "pooled"), features="recomputed")


def test_a_recorded_network_matches_naive_loops(recorded):
    run, result = recorded
    split = run.coords["split"].values
    for cut in ("s1b3", "pooled"):
        z = naive(run, cut)
        for name in result["set"].values:
            mine = z[:, split == name]
            norm = np.linalg.norm(mine, axis=-1)
            for t1, t2 in ((0, 4), (4, 0), (2, 3)):
                cell = result.sel(cut=cut, set=name).isel(t1=t1, t2=t2)
                values = np.linalg.norm(mine[t2] - mine[t1], axis=-1) / norm[t1]
                assert float(cell["motion"]) == pytest.approx(values.mean(), rel=1e-4)
                half = clustered_half_width(values, run.values("dataset_index")[split == name])
                assert float(cell["motion_high"] - cell["motion"]) == pytest.approx(half, rel=1e-3)
                assert float(cell["motion"] - cell["motion_low"]) == pytest.approx(half, rel=1e-3)
                cosine = (mine[t1] * mine[t2]).sum(-1) / norm[t1] / norm[t2]
                assert float(cell["cosine"]) == pytest.approx(cosine.mean(), rel=1e-5)
        steps = np.linalg.norm(np.diff(z, axis=0), axis=-1)
        np.testing.assert_allclose(result["step_length"].sel(cut=cut)[1:], steps, rtol=1e-3)
        displacement = np.linalg.norm(z[-1] - z[0], axis=-1)
        np.testing.assert_allclose(result["straightness"].sel(cut=cut), displacement / steps.sum(0), rtol=1e-3)


def test_similarity_of_a_recorded_network(recorded):
    run, result = recorded
    test = run.coords["split"].values == "test"
    z = {cut: naive(run, cut)[:, test] for cut in ("s1b3", "pooled")}
    for (a, t1), (b, t2) in ((("s1b3", 0), ("s1b3", 4)), (("pooled", 1), ("s1b3", 3))):
        x, y = (v - v.mean(0) for v in (z[a][t1], z[b][t2]))
        expected = (x.T @ y).ravel() @ (x.T @ y).ravel() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
        assert float(result["cka"].sel(cut=a, cut2=b)[t1, t2]) == pytest.approx(expected, abs=1e-4)
    swapped = result["cka_debiased"].rename(cut="cut2", cut2="cut", t1="t2", t2="t1").transpose(*result["cka"].dims)
    np.testing.assert_allclose(swapped, result["cka_debiased"], atol=1e-6)
    own = result["cka_debiased"].values[range(2), range(2)]
    np.testing.assert_allclose(np.einsum("ctt->ct", own), 1, atol=1e-6)


def test_a_probe_reads_what_the_network_has_learnt(recorded):
    _, result = recorded
    accuracy = result["linear_accuracy"]
    assert accuracy.dims == ("cut", "set", "t")
    assert float(accuracy.sel(cut="pooled", set="test")[-1]) > 0.5  # digits: chance is 0.1
    assert (result["linear_accuracy_low"] <= accuracy).all()
    assert (result["linear_accuracy_high"] >= accuracy).all()
    assert result["used"].values.tolist() == result["set_size"].values.tolist()


def test_parameters_of_a_recorded_network(recorded):
    run, result = recorded
    model = network(run)
    example = torch.from_numpy(run.values("inputs/input")[:1])
    cut = next(cut for cut in cuts(model, example) if cut.name == "s1b3")
    first, last = States(run, model)[0], States(run, model)[-1]
    for half, part in (("prefix_distance", cut.prefix), ("suffix_distance", cut.suffix)):
        names = [name for name, _ in part.named_parameters()]
        a, b = (torch.cat([state[n].flatten().double() for n in names]) for state in (first, last))
        expected = float((b - a).norm() / a.norm())
        assert float(result[half].sel(cut="s1b3")[0, -1]) == pytest.approx(expected, rel=1e-5)


def test_memory_limits_change_nothing(recorded, monkeypatch):
    run, result = recorded
    monkeypatch.setattr(motion, "HELD", 4 * 5 * 64 * 21)  # 21 probes at a time
    again, result = drift(run, cuts=("pooled",), features="recomputed"), result.sel(cut=["pooled"], cut2=["pooled"])
    for name in result.data_vars:
        np.testing.assert_allclose(again[name], result[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_stored_features_of_half_precision(recorded, tmp_path):
    run, model, _ = planted(tmp_path / "r.zarr", [turn(t) for t in range(3)], dtype="float16")
    assert drift(run, model=model, cuts=("body",))["source"].values.tolist() == ["recomputed"]
    found = drift(run, model=model, cuts=("body",), features="stored")
    assert found["source"].values.tolist() == ["stored"]
    expected = 2 * np.sin(ANGLE * np.abs(np.subtract.outer(range(3), range(3))) / 2)
    np.testing.assert_allclose(found["motion"].sel(cut="body", set="test"), expected, atol=2e-3)


def test_a_subset_takes_every_kind_of_probe(recorded):
    run, _ = recorded
    found = drift(run, cuts=("pooled",), samples=6)
    assert found["used"].values.tolist() == [6, 6, 6]


def test_a_run_of_one_kind_of_probes(tmp_path):
    inputs, labels = torch.randn(9, WIDTH), torch.arange(9) % 3
    model = Planted()
    with Recorder(model, Probes(inputs, labels), tmp_path / "r.zarr", layers=["*"], batch=4) as recorder:
        recorder.record(step=0)
    found = drift(Run(tmp_path / "r.zarr"), model=model, cuts=("body",))
    assert np.isnan(found["linear_accuracy"]).all()
    assert set(reasons(found, "linear_accuracy").values.ravel()) == {"no training probes"}
    assert set(reasons(found, "straightness").values.ravel()) == {"no later checkpoint"}
    assert found.attrs["cka_set"] == "probes"
    assert float(found["motion"].item()) == 0
    assert float(found["cka"].item()) == pytest.approx(1)


def test_it_is_an_analysis_like_the_others(small_store, tmp_path):
    import shutil

    copy = shutil.copytree(small_store, tmp_path / "r.zarr")
    seen = []
    found = analyze(copy, "drift", cuts=("pooled",), progress=lambda *at: seen.append(at))
    assert found.attrs["path"].startswith("results/drift/")
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    found = Run(copy).result("drift")
    assert found.attrs["options"]["cuts"] == ["pooled"]
    assert not {"checkpoint", "sample"} & set(found.dims)
    assert isinstance(found, xr.Dataset)
    with pytest.raises(NetworkError, match="s9"):
        drift(Run(copy), cuts=("s9",))
    with pytest.raises(RecipeError, match="samples"):
        drift(Run(copy), samples=1)


@pytest.mark.parametrize("source", ["stored", "recomputed"])
def test_workers_change_nothing(tmp_path, source, clusters):
    run, model = own_run(tmp_path / "r.zarr")
    alone = drift(run, model=model, features=source, samples=12)
    same_on(clusters, drift, alone, run, model=model, features=source, samples=12)


def test_what_it_needs_is_said_first(tmp_path, caplog):
    run, model = own_run(tmp_path / "r.zarr")
    plans(drift, run, caplog, model=model, features="stored")
