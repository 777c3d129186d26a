"""Drift, density and spectra at their edges: copies, small sets, other scales, another network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist, pdist
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.context import Context
from featdyn.analysis.features.density.compute import MEASURES
from featdyn.analysis.features.drift.cka import Similarity
from featdyn.analysis.features.drift.linear_probe import fit
from featdyn.analysis.inputs.one_input import Inputs
from featdyn.analysis.inputs.stitchable import cut_network
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import NetworkError
from featdyn.statistics import two_sample
from featdyn.statistics.cka import Grams
from featdyn.store import Run
from tests.engine.on_workers import own_run
from tests.engine.test_drift_cka import draw, naive_unbiased

drift, density, spectra = (analyses()[name] for name in ("drift", "density", "spectra"))


def linear(path, inputs, coords, matrices, **options):
    """Record a network whose features at ``0`` are the inputs times each matrix in turn."""
    width, labels = inputs.shape[1], torch.arange(len(inputs)) % 2
    model = nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, 2, bias=False))
    with Recorder(model, Probes(inputs, labels, coords), path, layers=["0"], batch=16, **options) as recorder:
        for t, matrix in enumerate(matrices):
            with torch.no_grad():
                model[0].weight.copy_(torch.as_tensor(matrix))
            recorder.record(step=t)
    return Run(path), model


@pytest.mark.parametrize(
    "order", [[3, 1, 2, 40, 17, 39, 0], [0], [41], [5, 5, 6, 6, 41], [7, 6, 5], [2, 3, 5], list(range(41, -1, -1))]
)
def test_probes_in_any_order_and_more_than_once(tmp_path, order):
    run, model = own_run(tmp_path / "r.zarr", checkpoints=1)
    parts, places = cut_network(run, model, ("all",), "recomputed"), np.array(order)
    every = parts.features.whole(0, np.arange(42))
    for some, z in zip(parts.features.whole(0, places), every, strict=True):
        assert torch.equal(some, z[order])
    assert torch.equal(Inputs(run).at(places), torch.from_numpy(run.values("inputs/input")[order]))
    for beyond in (-1, 42):
        with pytest.raises(ValueError, match=rf"kept must lie in 0 to 41, got {min(beyond, 3)} to {max(beyond, 3)}"):
            parts.features.whole(0, np.array([3, beyond]))


def test_copies_of_an_image_are_one_in_the_intervals_of_motion(tmp_path):
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(np.repeat(rng.standard_normal((9, 4)), 4, 0)).float() + 0.01 * torch.randn(36, 4)
    order = rng.permutation(36)  # copies lie in different batches
    run, model = linear(
        tmp_path / "r.zarr",
        inputs[order],
        {"origin": np.repeat(np.arange(9), 4)[order]},
        [np.eye(4), np.diag([1, 2, 3, 4.0])],
    )
    found = drift(run, model=model, cuts=("0",)).isel(cut=0, set=0, t1=0, t2=1)
    x = inputs[order].double().numpy()
    y = x * [1, 2, 3, 4]
    moved = np.linalg.norm(y - x, axis=1) / np.linalg.norm(x, axis=1)
    of_image = np.array([(moved - moved.mean())[run.values("origin") == g].sum() for g in range(9)])
    half = stats.t.ppf(0.975, 8) * np.sqrt(9 / 8 * (of_image**2).sum()) / 36
    assert float(found["motion"]) == pytest.approx(moved.mean(), rel=1e-5)
    assert float(found["motion_high"] - found["motion"]) == pytest.approx(half, rel=1e-4)
    assert half > 1.5 * stats.t.ppf(0.975, 35) * moved.std(ddof=1) / 6  # as independent probes would have it


def test_copies_of_a_training_image_are_left_out_together():
    rng = np.random.default_rng(0)
    images, labels = np.repeat(np.arange(20), 3), np.repeat(rng.integers(0, 2, 20), 3)
    x = np.repeat(rng.standard_normal((20, 40)), 3, 0) + 0.01 * rng.standard_normal((60, 40))
    x = x - x.mean(0)
    found = fit(x @ x.T, labels, images)
    wanted, unit = np.eye(2)[labels], found.penalty * (x**2).sum(1).mean()
    for g in range(20):
        kept = images != g
        z, y = x[kept] - x[kept].mean(0), wanted[kept]
        weights = z.T @ np.linalg.solve(z @ z.T + unit * np.eye(len(z)), y - y.mean(0))
        scores = (x[~kept] - x[kept].mean(0)) @ weights + wanted.mean(0)  # classes keep their shares
        assert (found.left_out[~kept] == scores.argmax(1)).all()
        np.testing.assert_allclose(found.scores(x[~kept] @ x.T, images[~kept]), scores, atol=1e-8)
    # Labels are noise: what is read with the other copies at hand is not there.
    assert (found.left_out == labels).mean() < 0.8 < (fit(x @ x.T, labels).left_out == labels).mean()


def test_the_null_of_density_swaps_images(tmp_path):
    """Copies of few images, swapped one by one, reject far too often."""
    small = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((12, 4))
        inputs = torch.from_numpy(np.repeat(images, 4, 0) + 0.05 * rng.standard_normal((48, 4))).float()
        matrix = np.linalg.qr(rng.standard_normal((4, 4)))[0]  # of a rotation-invariant law: the same distribution
        run, model = linear(
            tmp_path / f"{seed}.zarr", inputs, {"origin": np.repeat(np.arange(12), 4)}, [np.eye(4), matrix]
        )
        found = density(run, model=model, cuts=("0",), permutations=39).isel(cut=0, set=0, pair=0)
        small += int(found["pvalue"].sel(measure="energy") <= 0.05)
    assert small <= 4  # 0.6 are expected; 12 swapped one by one


def test_a_family_can_reject_however_large_it_is(tmp_path):
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((40, 4))).float()
    run, model = linear(tmp_path / "r.zarr", inputs, {}, [np.eye(4) * 1.5**t + 2 * t for t in range(6)])
    found = density(run, model=model, cuts=("0",), pairs="all", permutations=39)
    energy = found.sel(measure="energy")
    assert energy["pvalue"].size == 15
    assert float(energy["adjusted"].min()) == pytest.approx(1 / 40)
    assert (energy["adjusted"] >= energy["pvalue"] - 1e-12).all()
    assert "Westfall" in found.attrs["multiplicity"]


@pytest.mark.parametrize("other", [nn.LeakyReLU(0.2), nn.Tanh(), nn.Identity(), nn.GELU()])
@pytest.mark.parametrize("analysis", [drift, density])
def test_another_network_is_refused(tmp_path, analysis, other):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    probes = Probes(torch.randn(20, 4), torch.arange(20) % 2)
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["*"]) as recorder:
        recorder.record(step=0)
    with pytest.raises(NetworkError, match="the model is not the one recorded"):
        analysis(Run(tmp_path / "r.zarr"), model=nn.Sequential(model[0], other, model[2]))


def test_a_zero_feature_is_left_out_and_counted(tmp_path):
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    inputs[3, 1:] = 0
    first, second = np.diag([0.0, 1, 1]), np.diag([2.0, 1, 3])
    run, model = linear(tmp_path / "r.zarr", inputs, {}, [first, second])
    found = drift(run, model=model, cuts=("0",)).isel(cut=0, set=0)
    x, y = (inputs.double().numpy() @ m for m in (first, second))
    size, kept = np.linalg.norm(x, axis=1), np.arange(8) != 3
    assert found["undefined"].values.tolist() == [1, 0]
    forth = (np.linalg.norm(y - x, axis=1)[kept] / size[kept]).mean()
    back = (np.linalg.norm(y - x, axis=1) / np.linalg.norm(y, axis=1)).mean()
    np.testing.assert_allclose(found["motion"], [[0, forth], [back, 0]], rtol=1e-5)
    cosine = ((x * y).sum(1)[kept] / size[kept] / np.linalg.norm(y, axis=1)[kept]).mean()
    np.testing.assert_allclose(found["cosine"], [[1, cosine], [cosine, 1]], rtol=1e-5)


def test_a_label_that_is_none_has_no_part_in_linear_probes(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 5)), rng.integers(0, 2, 60)
    x[:, 0] += 2 * labels
    given, split = labels.copy(), np.array(["train", "test"], dtype=object)[np.arange(60) % 2]
    given[::7] = -100
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 2))
    nn.init.eye_(model[0].weight)
    probes = Probes(torch.from_numpy(x).float(), torch.from_numpy(labels), {"split": split, "true_label": given})
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["0"]) as recorder:
        recorder.record(step=0)
    found = drift(Run(tmp_path / "r.zarr"), model=model, cuts=("0",)).isel(cut=0, t=0)
    train, test = ((split == name) & (given >= 0) for name in ("train", "test"))
    centred = x - x[train].mean(0)
    probe = fit(centred[train] @ centred[train].T, labels[train])
    right = (probe.predict(centred[test] @ centred[train].T) == labels[test]).mean()
    assert float(found["linear_accuracy"].sel(set="test")) == pytest.approx(right)
    assert float(found["linear_penalty"]) == probe.penalty


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_features_of_any_scale(tmp_path, scale):
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy(rng.standard_normal((30, 4))).float()
    coords = {"split": np.array(["train", "test"], dtype=object)[np.arange(30) % 2]}
    matrices = [np.eye(4), np.diag([1, 2, 3, 4.0]) + 0.1]
    found, options = [], {"cuts": ("0",), "permutations": 19}
    for name, factor in (("one", 1.0), ("other", scale)):
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
        path = tmp_path / name
        with Recorder(
            model, Probes(inputs, torch.arange(30) % 2, coords), path, layers=["0"], dtype="float32", gradients=False
        ) as recorder:
            for t, matrix in enumerate(matrices):
                with torch.no_grad():
                    model[0].weight.copy_(torch.from_numpy(matrix * factor))
                    model[1].weight.copy_(torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]]) / factor)
                recorder.record(step=t)
        run = Run(path)
        found.append((drift(run, model=model, cuts=("0",)), density(run, model=model, **options), spectra(run)))
    for name in (
        "motion",
        "motion_low",
        "cosine",
        "cka",
        "cka_debiased",
        "linear_accuracy",
        "straightness",
        "prefix_distance",
    ):
        np.testing.assert_allclose(found[1][0][name], found[0][0][name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found[1][0]["path_length"] / scale, found[0][0]["path_length"], rtol=1e-5)
    for measure, unit in (("mmd", 1), ("energy", scale), ("sliced_wasserstein", scale), ("total_variation", 1)):
        one, other = (of[1].sel(measure=measure) for of in found)
        np.testing.assert_allclose(other["statistic"] / unit, one["statistic"], rtol=1e-3, atol=1e-4, err_msg=measure)
    np.testing.assert_allclose(found[1][2]["effective_rank"], found[0][2]["effective_rank"], rtol=1e-5)
    np.testing.assert_allclose(found[1][2]["variance"] / scale / scale, found[0][2]["variance"], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e4, 1e7, 1e8, 1e15])
def test_a_checkpoint_of_another_scale_costs_the_others_nothing(tmp_path, scale):
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy(rng.standard_normal((40, 6))).float()
    coords = {"split": np.array(["train", "test"], dtype=object)[np.arange(40) % 2]}
    matrices = [np.eye(6), 2 * np.eye(6) + 0.3 * rng.standard_normal((6, 6)), scale * (1 + np.eye(6))]
    run, model = linear(tmp_path / "r.zarr", inputs, coords, matrices, dtype="float32")
    found = density(run, model=model, cuts=("0",), pairs="all", permutations=19, features="recomputed").sel(set="test")
    x = inputs[1::2].double().numpy()
    y = x @ np.float32(matrices[1]).astype(np.float64).T
    within = sum(pdist(z).mean() for z in (x, y))
    cell = found["statistic"].isel(cut=0, pair=0)
    assert float(cell.sel(measure="energy")) == pytest.approx(2 * cdist(x, y).mean() - within, rel=1e-4)
    alone = two_sample.mmd(x, y, paired=True, permutations=19).statistic
    assert float(cell.sel(measure="mmd")) == pytest.approx(alone, rel=1e-3)
    assert (found["status"].isel(cut=0, pair=0) == 0).all()


def test_a_cell_that_a_measure_refuses_says_why(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise ValueError("samples (40, 2) are odd")

    monkeypatch.setitem(MEASURES, "mmd", (refuses, 2))
    inputs = torch.from_numpy(np.random.default_rng(1).standard_normal((20, 4))).float()
    run, model = linear(tmp_path / "r.zarr", inputs, {}, [np.eye(4), 2 * np.eye(4)], gradients=False)
    found = density(run, model=model, cuts=("0",), permutations=19)
    why = reasons(found, "statistic").sel(measure="mmd").item()
    assert why == "samples 40 2 are odd"
    assert (found["status"].drop_sel(measure="mmd") == 0).all()


def test_features_that_only_vary_outside_the_basis_are_not_called_still(tmp_path):
    inputs = torch.from_numpy(np.random.default_rng(1).standard_normal((20, 4))).float()
    inputs[:, 0] = inputs[:, 1]
    small, large = np.zeros((2, 4, 4))
    small[0, 0], large[1, 1] = 1e-10, 1e10
    run, model = linear(tmp_path / "r.zarr", inputs, {}, [small, -small, large], dtype="float32")
    found = density(run, model=model, cuts=("0",), pairs="all", permutations=19, features="recomputed")
    why = reasons(found, "statistic").isel(cut=0, set=0, pair=0).values
    assert (why == "features vary outside the common basis").all()


def primal_ridge(x, labels, penalty):
    """Return the weights and the offset of a ridge regression of one-hot labels, in float64."""
    mean, wanted = x.mean(0), np.eye(labels.max() + 1)[labels]
    centred = x - mean
    unit = np.trace(centred @ centred.T) / len(x)
    weights = np.linalg.solve(
        centred.T @ centred + penalty * unit * np.eye(x.shape[1]), centred.T @ (wanted - wanted.mean(0))
    )
    return weights, wanted.mean(0) - mean @ weights


@pytest.mark.parametrize(("spread", "apart"), [(1e-4, 1.0), (3e-4, 1e4), (1e-2, 1e25)])
def test_a_set_far_from_the_training_set(tmp_path, spread, apart):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 6))
    x[20:40] = apart * (1 + spread * x[20:40])  # the test set
    x[40:] *= 0.01  # another one, close to the training set
    inputs = torch.from_numpy(x).float()
    splits = np.repeat(np.array(["train", "test", "near"], dtype=object), 20)
    turned = np.eye(6) + 0.5 * rng.standard_normal((6, 6))
    run, model = linear(tmp_path / "r.zarr", inputs, {"split": splits}, [np.eye(6), turned], dtype="float32")
    found = drift(run, model=model, cuts=("0",), features="stored").isel(cut=0, cut2=0)
    blocks = range(run.schema.blocks)
    z = [np.concatenate([run.block("layers/0/activation", t, b) for b in blocks]).astype(np.float64) for t in (0, 1)]
    one, other = (of[20:40] - of[20:40].mean(0) for of in z)
    cka = np.linalg.norm(one.T @ other) ** 2 / np.linalg.norm(one.T @ one) / np.linalg.norm(other.T @ other)
    assert float(found["cka"][0, 1]) == pytest.approx(cka, abs=1e-5)
    assert float(found["cka_debiased"][0, 1]) == pytest.approx(naive_unbiased(one, other), abs=1e-4)
    labels = np.arange(60) % 2
    for t in (0, 1):
        weights, offset = primal_ridge(z[t][:20], labels[:20], float(found["linear_penalty"][t]))
        right = (z[t] @ weights + offset).argmax(1) == labels
        for name in ("test", "near"):
            share = right[splits == name].mean()
            assert float(found["linear_accuracy"].sel(set=name)[t]) == pytest.approx(share)


def test_cosines_of_features_of_very_different_length(tmp_path):
    inputs = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    turn = np.eye(4)[[1, 0, 2, 3]]
    run, model = linear(tmp_path / "r.zarr", inputs, {}, [np.eye(4), 1e-3 * turn], dtype="float32")
    found = drift(run, model=model, cuts=("0",)).isel(cut=0, set=0)
    x = inputs.double().numpy()
    expected = ((x * (x @ turn)).sum(1) / (x**2).sum(1)).mean()
    assert float(found["cosine"][0, 1]) == pytest.approx(expected, abs=1e-6)


def test_a_set_too_small_for_some_measures_has_the_others(tmp_path):
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    split = np.array(["train"] * 35 + ["test"] * 5, dtype=object)
    run, model = linear(tmp_path / "r.zarr", inputs, {"split": split}, [np.eye(4), 2 * np.eye(4) + 1])
    found = density(run, model=model, cuts=("0",), permutations=19).isel(cut=0, pair=0)
    assert np.isfinite(found["statistic"].sel(set="train")).all()
    missing = np.isnan(found["statistic"].sel(set="test"))
    assert found["measure"].values[missing.values].tolist() == ["total_variation"]
    assert reasons(found, "statistic").sel(set="test", measure="total_variation") == "too few samples"


def test_one_checkpoint_has_no_pairs(tmp_path):
    run, model = linear(tmp_path / "r.zarr", torch.randn(9, 3), {}, [np.eye(3)])
    found = density(run, model=model, permutations=19)
    assert found.sizes["pair"] == 0
    assert "no_later_checkpoint" in found.attrs["empty"]


def test_the_kept_probes_hold_every_class(tmp_path):
    """Probes in the order of their classes, as folders of images give them."""
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) // 10
    split = np.array(["train", "test"], dtype=object)[np.arange(40) % 2]
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    with torch.no_grad(), Recorder(model, Probes(inputs, labels, {"split": split}), tmp_path / "r.zarr") as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "r.zarr")
    contexts = Context(run, drift.options(cuts=("0",), samples=8), None)  # type: ignore[arg-type]
    for mine in contexts.sets.choose(run, 8, 0):
        assert np.bincount(labels.numpy()[mine]).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("origins", "labels", "why"),
    [
        ([0, 0, 0, 0], [0, 1, 0, 1], "too few samples"),
        ([0, 0, 0, 1], [0, 1, 0, 1], ""),
        ([0, 1, 2, 3], [1, 1, 1, 1], "one class"),
        ([0, 1, 2, 3], [1, 1, 1, 0], ""),
        ([0, 1, 2, 3], [0, -100, -100, -100], "too few samples"),
        ([0, 1, 2, 3], [0, 1, -100, -100], ""),
        ([0, 1, 2, 3], [0.5, 1.5, 0.5, 1.5], "probes have no labels"),
    ],
)
def test_a_linear_probe_needs_two_images_and_two_classes_of_training_probes(tmp_path, origins, labels, why):
    inputs = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    coords = {
        "split": np.array(["train"] * 4 + ["test"] * 6, dtype=object),
        "origin": np.array([*origins, *range(10, 16)]),
        "true_label": np.array([*labels, *[0, 1] * 3]),
    }
    run, model = linear(tmp_path / "r.zarr", inputs, coords, [np.eye(3), 2 * np.eye(3)])
    found = drift(run, model=model, cuts=("0",))
    for name in ("linear_penalty", "linear_accuracy"):
        assert np.isnan(found[name]).all() == bool(why)
        assert set(reasons(found, name).values.ravel()) == {why}
    assert found.attrs["linear_labels"] == "true_label"


def test_limits_of_motion_need_two_images_and_stay_within_its_range(tmp_path):
    turn = np.array([[0.0, 1], [-1, 0]])
    inputs = torch.tensor([[1.0, 0], [0, 1], [3, 0], [1, 0.02], [-0.02, 1], [2, 0]])
    split = np.array(["wide"] * 2 + ["one"] * 2 + ["two"] * 2, dtype=object)
    coords = {"split": split, "origin": np.array([0, 1, 2, 2, 3, 4])}
    first, second = np.diag([1.0, 1.0]), np.diag([-0.9, 1.01])  # one axis is turned round, one stays
    run, model = linear(tmp_path / "r.zarr", inputs, coords, [first, second, turn], dtype="float32")
    found = drift(run, model=model, cuts=("0",)).isel(cut=0)
    wide = found.sel(set="wide").isel(t1=0, t2=1)
    assert float(wide["motion"]) == pytest.approx((1.9 + 0.01) / 2, rel=1e-5)
    assert float(wide["cosine"]) == pytest.approx(0, abs=1e-6)
    assert [float(wide[f"{name}_low"]) for name in ("motion", "cosine")] == [0, -1]
    half = stats.t.ppf(0.975, 1) * np.std([1.9, 0.01], ddof=1) / np.sqrt(2)
    assert float(wide["motion_high"]) == pytest.approx((1.9 + 0.01) / 2 + half, rel=1e-5)
    assert float(wide["cosine_high"]) == 1
    for name in ("motion", "cosine"):
        why = reasons(found, f"{name}_low")
        assert why.sel(set="one").values.tolist() == [
            ["" if i == j else "too few samples" for j in range(3)] for i in range(3)
        ]
        assert why.sel(set="wide").isel(t1=0, t2=1).item() == ""
        assert why.sel(set="two").isel(t1=0, t2=2).item() == "all probes are alike"  # all are turned by a quarter
    np.testing.assert_allclose(found["straightness"], np.minimum(found["displacement"] / found["path_length"], 1))
    assert found["path_status"].values.tolist() == [0] * 6


@pytest.mark.parametrize(("n", "few"), [(1, (1, 1, 1)), (2, (0, 1, 1)), (3, (0, 1, 1)), (4, (0, 0, 1)), (5, (0, 0, 0))])
def test_cka_needs_two_images_its_estimate_four_and_limits_five(n, few):
    similarity, grams = Similarity.__new__(Similarity), Grams(4, n)
    similarity._single = torch.arange(n)
    for i, x in enumerate(draw(3, n, (6, 5, 7, 4))):
        z = x - x.mean(0)
        grams.put(i, z @ z.T)
    flaws = np.array([["", "features_do_not_vary"], ["not_finite", ""]], object)
    found = similarity._alignment(grams, flaws)
    for name, short in zip(("cka_status", "cka_debiased_status", "cka_interval_status"), few, strict=True):
        words = np.array(["", *found[name].attrs["flag_meanings"].split()[1:]])[found[name].values]
        flawed = flaws != ""
        both = flawed[:, None, :, None] | flawed[None, :, None, :]
        if short:
            assert (words == "too_few_samples").all()
            continue
        assert (words[~both] == "").all() or name != "cka_status"
        lost = flaws == "not_finite"
        assert (words[lost[:, None, :, None] | lost[None, :, None, :]] == "not_finite").all()
        assert (words[both & (words != "not_finite")] == "features_do_not_vary").all()
