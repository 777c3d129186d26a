"""Representation, similarity and pattern shift of recorded layers, against arrays written out in float64."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.features.pattern_shift.correlations import over_checkpoints, over_classes, with_loss
from featdyn.analysis.features.representation.capacity import capacity
from featdyn.analysis.inputs.layer_vectors import chosen_vectors
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.statistics import representation as single
from featdyn.statistics import similarity as alike
from featdyn.store import Run
from tests.engine.on_workers import own_run, plans, same_on
from tests.engine.test_richness import Planted, planted

representation, similarity, pattern_shift = (
    analyses()[name] for name in ("representation", "similarity", "pattern_shift")
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return own_run(tmp_path_factory.mktemp("own") / "run.zarr", n=84, checkpoints=6)[0]


def vectors(run: Run, layer: str, t: int, name: str, of: str = "activation") -> np.ndarray[Any, Any]:
    x = np.asarray(run.array(f"layers/{layer}/{of}")[t].values, np.float64)[run.values("split") == name]
    return x.reshape(*x.shape[:2], -1).mean(2)


def words(found: xr.Dataset, name: str) -> Any:
    said = reasons(found, name)
    assert said is not None
    return said.values


def test_a_representation_is_that_of_its_statistics(run: Run) -> None:
    found = representation(run)
    labels = run.values("label")[run.values("split") == "test"]
    for layer, t in product(run.layers, (0, 5)):
        x, cell = vectors(run, layer, t, "test"), found.sel(layer=layer, set="test", t=t)
        s = single.singular_values(x)
        assert float(cell["condition_number"]) == pytest.approx(single.condition_number(s)[0], rel=1e-6)
        assert float(cell["power_law_exponent"]) == pytest.approx(single.power_law(s**2).exponent, rel=1e-6)
        assert float(cell["gini"]) == pytest.approx(single.gini(x).mean())
        assert float(cell["two_nn"]) == pytest.approx(single.two_nn(x).dimension, rel=1e-6)
        assert float(cell["local_dimension"]) == single.local_pca(x)
        manifolds = single.class_manifolds(x, labels)
        assert float(cell["manifold_radius"]) == pytest.approx(manifolds.radius.mean(), rel=1e-6)
        assert float(cell["signal_to_noise"]) == pytest.approx(np.nanmean(manifolds.signal_to_noise), rel=1e-6)


def test_a_class_of_few_probes_has_a_radius_and_no_dimension(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [12, 12, 3])
    x = rng.standard_normal((3, 6))[labels] * 3 + rng.standard_normal((27, 6))
    whole = representation(planted(tmp_path / "r.zarr", x, labels, np.eye(3, 6)))
    found = whole.squeeze()
    wanted = single.class_manifolds(x, labels)
    assert float(found["manifold_radius"]) == pytest.approx(wanted.radius.mean(), rel=1e-5)
    for name in ("manifold_dimension", "manifold_capacity"):
        assert np.isnan(found[name])
        assert set(np.ravel(words(whole, name))) == {"a class has too few probes"}
    full = representation(planted(tmp_path / "full.zarr", x[:24], labels[:24], np.eye(3, 6))).squeeze()
    wanted = single.class_manifolds(x[:24], labels[:24])
    assert float(full["manifold_dimension"]) == pytest.approx(wanted.dimension.mean(), rel=1e-4)


def test_the_mean_field_capacity_is_there_when_it_is_asked_for(tmp_path: Path, run: Run) -> None:
    assert "mean_field_capacity" not in representation(run, layers=("pool",))
    found = representation(run, layers=("pool",), capacity_draws=20)
    x, mine = vectors(run, "pool", 5, "test"), run.values("split") == "test"
    wanted = single.mean_field(x, run.values("label")[mine], draws=20)
    cell = found.sel(layer="pool", set="test", t=5)
    assert float(cell["mean_field_capacity"]) == pytest.approx(wanted.whole, rel=1e-5)
    low, value, high = (float(cell[f"mean_field_capacity{end}"]) for end in ("_low", "", "_high"))
    assert 0 < low < value < high
    inverse = np.sqrt(np.square(wanted.error).sum()) / 3  # 1 / capacity is the mean over three classes
    assert float(cell["mean_field_error"]) == pytest.approx(inverse * wanted.whole**2, rel=1e-4)
    labels = np.repeat([0, 1, 2], [12, 12, 1])
    x = np.random.default_rng(0).standard_normal((25, 6)) + 3 * np.eye(3, 6)[labels]
    few = representation(planted(tmp_path / "r.zarr", x, labels, np.eye(3, 6)), capacity_draws=2)
    assert set(words(few, "mean_field_capacity").ravel()) == {"too few samples"}
    with pytest.raises(FeatdynError, match="one draw says nothing of its error"):
        representation(run, capacity_draws=1)


@pytest.mark.parametrize(("probes", "known"), [(3, True), (2, False)])
def test_a_class_keeps_two_probes_in_each_fold_or_there_is_no_interval(probes: int, known: bool) -> None:
    """Folds take one of each class at most; without it a class of two is one point."""
    labels = np.repeat([0, 1, 2, 3], probes)
    x = np.random.default_rng(0).standard_normal((4 * probes, 6)) + 3 * np.eye(4, 6)[labels]
    found, reasons = capacity(x, labels, np.arange(4 * probes), 10, 0)
    assert np.isfinite(found["mean_field_capacity"])
    assert np.isfinite(found["mean_field_capacity_low"]) == np.isfinite(found["mean_field_capacity_high"]) == known
    assert (reasons["mean_field_interval_status"] == "") == known


def test_margins_are_those_of_ridge_regression(run: Run) -> None:
    """Solved in the primal, with the penalty that drift reports for the same probes."""
    found, drift = representation(run, layers=("pool",)), analyses()["drift"](run, cuts=("pool",), samples=512)
    labels = {name: run.values("label")[run.values("split") == name] for name in ("train", "test")}
    for t in (0, 5):
        x, new = vectors(run, "pool", t, "train"), vectors(run, "pool", t, "test")
        z, y = x - x.mean(0), np.eye(3)[labels["train"]]
        penalty = float(drift["linear_penalty"].sel(cut="pool")[t]) * (z**2).sum(1).mean()
        w = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
        scores = (new - x.mean(0)) @ w + y.mean(0)
        margins = []
        for score, label in zip(scores, labels["test"], strict=True):
            rival = max((j for j in range(3) if j != label), key=lambda j: score[j])
            margins.append((score[label] - score[rival]) / np.linalg.norm(w[:, label] - w[:, rival]))
        cell = found.sel(layer="pool", set="test", t=t)
        assert float(cell["margin"]) == pytest.approx(np.mean(margins), rel=1e-3)
        assert float(cell["margin_low"]) < float(cell["margin"]) < float(cell["margin_high"])
        assert float(cell["margin_positive"]) == pytest.approx(np.mean(np.array(margins) > 0))
    assert set(words(found, "margin").ravel()) == {"", "training probes are not held out"}


def test_pairs_are_those_of_the_measures(run: Run) -> None:
    found = similarity(run, block=5, layers=("two", "pool", "head"))
    assert found.attrs["similarity_set"] == "test"
    assert found.attrs["jaccard_chance"] == pytest.approx(alike.jaccard_chance(42, 10))
    for one, other in product(("two", "head"), repeat=2):
        x, y = vectors(run, one, 0, "test"), vectors(run, other, 5, "test")
        cell = found.sel(layer=one, layer2=other, t1=0, t2=5)
        for name, measure in {
            "cca": alike.mean_cca, "svcca": alike.svcca, "pwcca": alike.pwcca, "procrustes": alike.procrustes,
            "angular": alike.angular, "jaccard": alike.jaccard, "imbalance": alike.information_imbalance,
            "rsa": lambda x, y: alike.rsa(alike.dissimilarities(x), alike.dissimilarities(y)),
        }.items():  # fmt: skip
            assert float(cell[name]) == pytest.approx(measure(x, y), abs=1e-9), name
    same = found.isel(layer=0, layer2=0, t1=2, t2=2)
    assert float(same["cca"]) == pytest.approx(1)
    assert float(same["procrustes"]) == pytest.approx(0, abs=1e-9)
    assert float(same["cca_shuffled"]) < 0.7
    one, other = (similarity(run, block=b, layers=("two", "pool"), samples=30) for b in (1, 100))
    xr.testing.assert_equal(one, other)  # blocks change nothing


def test_a_pattern_that_shifts(tmp_path: Path) -> None:
    """Class 0 uses channel 0 in training; half of the test probes use channel 1 instead, and have the larger loss."""
    n = 40
    labels, split = np.zeros(n, np.int64), np.repeat(np.array(["train", "test"], dtype=object), n // 2)
    x = np.zeros((n, 2))
    x[:, 0] = 1
    x[30:] = [0, 1]
    x *= np.random.default_rng(0).uniform(1, 2, (n, 1))
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, -0.5]]))
    with Recorder(
        model, Probes(torch.from_numpy(x).float(), torch.from_numpy(labels), {"split": split}), tmp_path / "r.zarr",
        layers=["0"], dtype="float32",
    ) as recorder:  # fmt: skip
        for t in range(6):
            recorder.record(step=t)
    found = pattern_shift(Run(tmp_path / "r.zarr"))
    cell = found.sel(set="test").isel(layer=0, t=0)
    assert float(found["shift"].sel(set="train").isel(layer=0, t=0)) == pytest.approx(0, abs=1e-9)
    assert float(cell["shift"]) == pytest.approx(0.5)
    assert float(cell["loss_correlation_low"]) > 0.3
    assert set(words(found, "gap_correlation").ravel()) == {"training probes have no gap", "all probes are alike"}


def test_shift_and_gap_over_classes() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 5)
    shift = labels / 10 + 0.01 * rng.standard_normal(30)
    of_training = dict.fromkeys(range(6), 0.5)
    values, reasons = over_classes(shift, 2 * shift + 0.03 * rng.standard_normal(30), labels, of_training, 0)
    assert values["class_correlation"] == pytest.approx(1, abs=1e-2)
    assert 0.9 < values["class_correlation_low"] < values["class_correlation"] < values["class_correlation_high"] < 1
    assert not any(reasons.values())
    noise = rng.standard_normal(30)
    mean = lambda v: [v[labels == label].mean() for label in range(6)]  # noqa: E731
    found = over_classes(shift, noise, labels, of_training, 0)[0]["class_correlation"]
    assert found == pytest.approx(np.corrcoef(mean(shift), mean(noise))[0, 1])
    for case, reason in (
        ((shift, noise, labels, None), "training_probes_have_no_gap"),
        ((shift, noise, labels % 4, of_training), "too_few_classes"),
        ((shift, noise * np.nan, labels, of_training), "loss_is_not_recorded_or_not_finite"),
        ((shift * 0, noise, labels, of_training), "all_probes_are_alike"),
    ):
        assert set(over_classes(*case, 0)[1].values()) == {reason}


def test_each_set_but_that_of_training_has_a_gap_over_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels, split = np.arange(120) % 6, np.repeat(np.array(["train", "test", "odd"], dtype=object), 40)
    model = Planted(rng.standard_normal((6, 8)))
    probes = Probes(torch.from_numpy(rng.standard_normal((120, 8))).float(), torch.from_numpy(labels), {"split": split})
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["held"], dtype="float32") as recorder:
        recorder.record(step=0)
    found = pattern_shift(Run(tmp_path / "r.zarr")).squeeze()
    for name, said in (("train", "training probes have no gap"), ("test", ""), ("odd", "")):
        cell, why = found["class_correlation"].sel(set=name), words(found, "class_correlation")
        assert np.isfinite(cell) == (not said)
        assert why[found["set"].values.tolist().index(name)] == said


def test_shift_and_gap_over_checkpoints(run: Run) -> None:
    found = pattern_shift(run)
    loss = np.stack([run.array("outputs/loss")[t].values for t in range(6)]).astype(np.float64)
    test, train = (run.values("split") == name for name in ("test", "train"))
    for layer in found["layer"].values:
        cell = found.sel(layer=layer, set="test")
        if int(cell["undefined"].sum()) == 0:
            gap = loss[:, test].mean(1) - loss[:, train].mean(1)
            wanted = np.corrcoef(cell["shift"].values, gap)[0, 1]
            assert float(cell["gap_correlation"]) == pytest.approx(wanted, abs=1e-6)
            assert float(cell["gap_correlation_low"]) <= float(cell["gap_correlation_high"])
    assert np.isfinite(found["gap_correlation"].sel(set="test")).any()


@pytest.mark.parametrize(("n", "true"), [(10, 0.0), (10, 0.8), (100, 0.5)])
def test_the_limits_of_a_correlation_cover_it(n: int, true: float) -> None:
    rng, inside, draws = np.random.default_rng(n), 0, 400
    for seed in range(draws):
        shift = rng.standard_normal(n)
        loss = true * shift + (1 - true**2) ** 0.5 * rng.standard_normal(n)
        found = with_loss(shift, loss, np.arange(n), seed)[0]
        inside += found["loss_correlation_low"] <= true <= found["loss_correlation_high"]
    assert 0.93 <= inside / draws <= 0.98


def test_a_checkpoint_without_a_loss_is_left_out() -> None:
    rng = np.random.default_rng(1)
    shift, loss, mine = rng.random((7, 40)), rng.random((7, 40)), np.arange(40) < 20
    loss[3, 2] = np.nan
    kept = np.arange(7) != 3
    found, why = over_checkpoints(shift, loss, mine, ~mine, np.arange(40), 0, same=False)
    wanted, _ = over_checkpoints(shift[kept], loss[kept], mine, ~mine, np.arange(40), 0, same=False)
    assert found == wanted
    assert not any(why.values())


def test_probes_without_label_or_features_take_no_others_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    x, labels, split = rng.standard_normal((60, 4)), np.arange(60) % 3, np.repeat(["train", "test", "odd"], 20)
    labels[20:30] = -100
    loss = lambda f, y: nn.functional.cross_entropy(f, y, reduction="none", ignore_index=-100)  # noqa: E731
    model, probes = Planted(np.eye(3, 4)), Probes(
        torch.from_numpy(x).float(), torch.from_numpy(labels), {"split": split.astype(object)}
    )  # fmt: skip
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["held"], dtype="float32", loss=loss) as recorder:
        for t in range(6):
            with torch.no_grad():
                model.head.weight.copy_(torch.from_numpy(rng.standard_normal((3, 4))))
            recorder.record(step=t)
    run = Run(tmp_path / "r.zarr")
    cell = pattern_shift(run).squeeze("layer").sel(set="test")
    losses = np.stack([run.array("outputs/loss")[t].values for t in range(6)])
    gap = losses[:, 30:40].mean(1) - losses[:, :20].mean(1)  # not of those that have no label, whose loss is 0
    assert float(cell["gap_correlation"]) == pytest.approx(np.corrcoef(cell["shift"], gap)[0, 1], abs=1e-6)

    def spoiled(run: Run, path: str, t: int, places: Any) -> Any:  # as another writer may store it
        found = chosen_vectors(run, path, t, places)
        found[50:51] = np.nan if path == "layers/held/activation" else found[50:51]
        return found

    monkeypatch.setattr("featdyn.analysis.features.pattern_shift.compute.chosen_vectors", spoiled)
    found = pattern_shift(run).squeeze("layer")
    assert words(found, "shift").tolist() == [[""] * 6, [""] * 6, ["not finite"] * 6]
    xr.testing.assert_allclose(found["shift"].sel(set="test"), cell["shift"], rtol=1e-12)


def test_what_float16_rounds_is_no_direction(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 20)) + 4
    found = {}
    for dtype in ("float32", "float16"):
        run = planted(tmp_path / f"{dtype}.zarr", x, np.arange(90) % 3, rng.standard_normal((3, 20)), dtype=dtype)
        found[dtype] = {name: analyses()[name](run).squeeze() for name in ("representation", "similarity", "richness")}
    for name, variables in {
        "representation": ("rank", "condition_number", "power_law_exponent", "stable_rank"),
        "similarity": ("cca_shuffled", "pwcca_shuffled", "cca"),
        "richness": ("cumulative_quality", "effective_dimension"),
    }.items():
        for variable in variables:
            ours, exact = (found[dtype][name][variable] for dtype in ("float16", "float32"))
            np.testing.assert_allclose(ours, exact, rtol=2e-3)
    assert float(found["float16"]["representation"]["rank"]) == 3


NAMES = ["representation", "similarity", "pattern_shift"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_on_workers(name: str, run: Run, clusters: Any, caplog: pytest.LogCaptureFixture) -> None:
    analysis = analyses()[name]
    same_on(clusters, analysis, analysis(run, layers=("two",)), run, layers=("two",))
    plans(analysis, run, caplog)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line(name: str, run: Run) -> None:
    with pytest.raises(FeatdynError, match=r"of s9 was recorded"):
        analyses()[name](run, layers=("s9",))
    with pytest.raises(FeatdynError, match="samples"):
        analyses()[name](run, samples=0)
