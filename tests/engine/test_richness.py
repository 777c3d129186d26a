"""Richness and collapse of recorded layers, against features and outputs written out in float64."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.compute import Limits, Plan
from featdyn.compute.serial import Serial
from featdyn.errors import ComputeError, FeatdynError
from featdyn.statistics.richness import feature_metrics, kernel_deviation, low_rank_measure, neural_collapse
from featdyn.store import Run, schema
from tests.engine.on_workers import own_run, plans, same_on

richness, collapse = analyses()["richness"], analyses()["collapse"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return own_run(tmp_path_factory.mktemp("own") / "run.zarr", n=84)[0]


def features(run: Run, layer: str, t: int, name: str) -> np.ndarray[Any, Any]:
    x = np.asarray(run.array(f"layers/{layer}/activation")[t].values, np.float64)[run.values("split") == name]
    return x.reshape(*x.shape[:2], -1).mean(2)


def logits(run: Run, t: int, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(run.array("outputs/logits")[t].values, np.float64)[run.values("split") == name]


def test_cells_are_those_of_the_features(run: Run) -> None:
    assert run.schema.blocks > 3
    found = richness(run, leading=4)
    for layer in run.layers:
        for name in ("train", "test"):
            y = np.eye(3)[run.values("label")[run.values("split") == name]]
            for t in range(run.checkpoints):
                cell = found.sel(layer=layer, set=name, t=t)
                x, f = features(run, layer, t, name), logits(run, t, name)
                wanted, metrics = low_rank_measure(x, f), feature_metrics(x, f, y)
                assert float(cell["low_rank"]) == pytest.approx(wanted.value, abs=1e-9)
                assert float(cell["output_rank"]) == wanted.rank
                np.testing.assert_allclose(cell["low_rank_isotropic"], wanted.reference)
                for variable in ("quality", "cumulative_quality", "utilisation", "cumulative_utilisation", "intensity"):
                    values = getattr(metrics, variable)[:4]
                    np.testing.assert_allclose(cell[variable][: len(values)], values, atol=1e-6)
                assert float(cell["effective_dimension"]) == pytest.approx(metrics.effective_dimension)
                kernel = kernel_deviation(features(run, layer, 0, name), x)
                assert float(cell["kernel_deviation"]) == pytest.approx(kernel.deviation, abs=1e-9)
                assert float(cell["kernel_cosine"]) == pytest.approx(kernel.cosine, abs=1e-9)


class Tight(Serial):
    """This process, held to so many bytes beside what it has."""

    plan: Plan

    def limits(self) -> Limits:
        return Limits(self.limit, 0, 1, True)

    def admit(self, plan: Plan) -> None:
        self.plan = plan
        super().admit(plan)


def test_a_block_is_read_once_for_all_sets_or_for_as_many_as_fit(tmp_path: Path, monkeypatch: Any) -> None:
    """Numbers are the same, bit by bit, as where each set is read for itself."""
    rng, n, names = np.random.default_rng(3), 60, ("a", "b", "c")
    monkeypatch.setattr(schema, "SHARD_SAMPLES", 16)
    coords = {"split": np.resize(np.array(names, dtype=object), n)}
    x, head = rng.standard_normal((n, 5)), rng.standard_normal((2, 5))
    run = planted(tmp_path / "r.zarr", x, rng.integers(0, 2, n), head, coords=coords)
    block, read = Run.block, Counter[tuple[str, int]]()

    def counted(self: Run, path: str, t: int, number: int, **options: Any) -> Any:
        read[path, number] += 1
        return block(self, path, t, number, **options)

    monkeypatch.setattr(Run, "block", counted)
    twice = {("layers/held/activation", b): 2 for b in range(4)}  # also as what the first checkpoint is compared with
    once = Counter(twice | {("outputs/logits", b): 1 for b in range(4)})
    workers, results = Tight(), list[xr.Dataset]()
    for passes in (1, 2, 3):  # three sets together, two and one, one by one
        results.append(richness(run, workers=workers))
        groups = read.copy()
        assert groups == Counter({key: passes * count for key, count in once.items()})
        read.clear()
        workers.limit = workers.plan.peak() - 1
    for found in results:
        xr.testing.assert_identical(found.drop_attrs(), results[-1].drop_attrs())
    with pytest.raises(ComputeError, match="raise --memory-limit"):
        richness(run, workers=workers)


def test_the_first_checkpoint_is_read_once_where_it_fits(run: Run, monkeypatch: Any) -> None:
    block, read = Run.block, Counter[tuple[str, int]]()

    def counted(self: Run, path: str, t: int, number: int, **options: Any) -> Any:
        read[path, t] += 1
        return block(self, path, t, number, **options)

    monkeypatch.setattr(Run, "block", counted)
    layers = [f"layers/{name}/activation" for name in run.layers]
    workers, results = Tight(), list[xr.Dataset]()
    for more in (1, run.checkpoints):
        read.clear()
        results.append(richness(run, workers=workers))
        assert {read[path, 0] for path in layers} == {run.schema.blocks * (1 + more)}
        assert {read[path, t] for path in layers for t in range(1, run.checkpoints)} == {run.schema.blocks}
        workers.limit = workers.plan.peak() - 1
    xr.testing.assert_identical(results[0].drop_attrs(), results[1].drop_attrs())


def test_intervals_hold_the_value_and_say_why_they_are_missing(run: Run) -> None:
    found = richness(run)
    for name in ("low_rank", "effective_dimension", "kernel_deviation"):
        low, value, high = (found[name + end].values for end in ("_low", "", "_high"))
        kept = np.isfinite(high)
        assert kept[:, :, 1:].any()
        assert ((low <= value) & (value <= high))[kept].all()
    words = reasons(found, "kernel_deviation_low")
    assert words is not None
    assert set(words.values[:, :, 0].ravel()) == {"all probes are alike"}  # the first is its own reference


def test_the_interval_covers_what_other_probes_would_give(tmp_path: Path) -> None:
    """Features are isotropic, so that the mean of the measure over other probes is known from simulation."""
    rng, values, covered = np.random.default_rng(0), [], 0
    weight = rng.standard_normal((2, 6))
    for _ in range(200):
        x = rng.standard_normal((64, 6)) * [3, 1, 1, 1, 1, 1]
        values.append(low_rank_measure(x, x @ weight.T).value)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor([3.0, 1, 1, 1, 1, 1])))
        model[1].weight.copy_(torch.from_numpy(weight))
    split = np.repeat(np.array([f"s{i}" for i in range(40)], dtype=object), 64)
    probes = Probes(torch.from_numpy(rng.standard_normal((40 * 64, 6))).float(), None, {"split": split})
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["0"], dtype="float32", gradients=False) as recorder:
        recorder.record(step=0)
    found = richness(Run(tmp_path / "r.zarr"), layers=("0",)).isel(layer=0, t=0)
    covered = int(((found["low_rank_low"] <= np.mean(values)) & (np.mean(values) <= found["low_rank_high"])).sum())
    assert 33 <= covered <= 40
    words = reasons(found, "quality")
    assert words is not None
    assert set(words.values.ravel()) == {"no targets that can be used"}


def test_the_interval_covers_where_classes_are_drawn_too(tmp_path: Path) -> None:
    """Most of what varies is how many probes each class happens to have."""
    rng, n, sets = np.random.default_rng(5), 64, 60
    means, head = 3 * np.abs(rng.standard_normal((4, 6))), rng.standard_normal((3, 6))
    labels = rng.integers(0, 4, n * sets) % 3
    x = means[labels] + 0.2 * rng.standard_normal((n * sets, 6))
    split = np.repeat(np.array([f"s{i}" for i in range(sets)], dtype=object), n)
    run = planted(tmp_path / "r.zarr", x, labels, head, coords={"split": split})
    found = richness(run).squeeze()
    for name in ("low_rank", "effective_dimension"):
        mean = float(found[name].mean())
        covered = int(((found[f"{name}_low"] <= mean) & (mean <= found[f"{name}_high"])).sum())
        assert covered >= 51, name


def test_collapse_is_that_of_the_features(run: Run) -> None:
    found = collapse(run)
    for layer in run.layers:
        y = run.values("label")[run.values("split") == "test"]
        for t in range(run.checkpoints):
            cell = found.sel(layer=layer, set="test", t=t)
            wanted = neural_collapse(features(run, layer, t, "test"), y, outputs=logits(run, t, "test"))
            for name, key in {
                "nc1": "within", "nc2_norms": "norms", "nc2_angles": "angles", "nc2": "simplex", "nc3": "read_out",
                "nc4": "nearest",
            }.items():  # fmt: skip
                assert float(cell[name]) == pytest.approx(getattr(wanted, key), rel=1e-6, abs=1e-9), name
                assert float(cell[f"{name}_low"]) <= float(cell[name]) <= float(cell[f"{name}_high"])
    assert (found["nc1"] < found["nc1_shuffled"]).mean() > 0.7  # the inputs differ by class


class Planted(nn.Module):
    """Features are the inputs; the head is fixed."""

    def __init__(self, head: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.held, self.head = nn.Identity(), nn.Linear(head.shape[1], head.shape[0], bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.held(x))


def planted(path: Path, x: Any, labels: Any, head: Any, *, coords: Any = None, **more: Any) -> Run:
    probes = Probes(torch.as_tensor(x).float(), labels if labels is None else torch.as_tensor(labels), coords or {})
    with Recorder(
        Planted(np.asarray(head, float)), probes, path, layers=["held"],
        **{"dtype": "float32", "gradients": False, **more},
    ) as recorder:  # fmt: skip
        recorder.record(step=0)
    return Run(path)


def test_the_null_of_collapse_deals_labels_to_images(tmp_path: Path) -> None:
    """Labels say nothing of the features, which copies of an image share."""
    rng, images = np.random.default_rng(0), np.repeat(np.arange(24), 8)[np.random.default_rng(1).permutation(192)]
    x = rng.standard_normal((24, 4))[images] + 0.3 * rng.standard_normal((192, 4))
    x, of_image = x.astype(np.float32), np.arange(24) % 3
    run = planted(
        tmp_path / "r.zarr", x, of_image[images], rng.standard_normal((3, 4)), coords={"origin": images.astype(str)}
    )
    found = float(collapse(run, folds=2)["nc1_shuffled"].squeeze())
    by_image = [neural_collapse(x, rng.permutation(of_image)[images]).within for _ in range(99)]
    by_probe = [neural_collapse(x, rng.permutation(of_image[images])).within for _ in range(99)]
    assert min(by_image) <= found <= max(by_image)
    assert found < min(by_probe)


def test_a_collapsed_network_and_one_of_two_classes(tmp_path: Path) -> None:
    simplex, labels = np.eye(4) - 1 / 4, np.arange(32) % 4
    run = planted(tmp_path / "four.zarr", simplex[labels], labels, simplex)
    found = collapse(run).squeeze()
    for name in ("nc1", "nc2_norms", "nc2_angles", "nc2", "nc3", "nc4"):
        assert float(found[name]) == pytest.approx(0, abs=1e-6)
    assert float(found["nc1_shuffled"]) > 0.5
    assert float(richness(run)["low_rank"].squeeze()) == pytest.approx(0, abs=1e-9)
    x = np.random.default_rng(0).standard_normal((20, 3)) + (np.arange(20) % 2)[:, None]
    two = collapse(planted(tmp_path / "two.zarr", x, np.arange(20) % 2, np.eye(1, 3))).squeeze()
    assert np.isfinite(two["nc1"])
    assert np.isfinite(two["nc4"])
    for name, reason in (("nc2", "two classes always form a simplex"), ("nc3", "one output has no simplex")):
        words = reasons(two.expand_dims("t"), name)
        assert words is not None
        assert words.values.item() == reason


def test_a_class_of_one_probe_takes_nc1_away_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels = np.r_[np.repeat([0, 1, 2], 10), 3]
    x = rng.standard_normal((4, 6))[labels] * 3 + rng.standard_normal((31, 6))
    run = planted(tmp_path / "r.zarr", x, labels, rng.standard_normal((4, 6)))
    whole, wanted = collapse(run), neural_collapse(x, labels)
    found = whole.squeeze()
    assert np.isnan(found["nc1"])
    assert set(np.ravel(_words(whole, "nc1"))) == {"a class has one probe"}
    assert float(found["nc2_norms"]) == pytest.approx(wanted.norms, rel=1e-5)
    assert np.isfinite(found["nc4"])


def test_a_large_constant_feature_hides_no_other(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(4), np.arange(60) % 3
    x = (rng.standard_normal((60, 4)) + np.eye(4)[labels]).astype(np.float32)
    x[:, 0] = 1e7
    run = planted(tmp_path / "r.zarr", x, labels, np.eye(3, 4, 1) + np.eye(3, 4))
    wanted = neural_collapse(x[:, 1:], labels).within
    assert float(collapse(run)["nc1"].squeeze()) == pytest.approx(wanted)
    assert np.isfinite(richness(run)["low_rank"].squeeze())


def test_a_regression_and_several_labels_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, head = rng.standard_normal((40, 5)), rng.standard_normal((2, 5))
    for name, y in {
        "regression": torch.from_numpy(rng.standard_normal((40, 2))).float(),
        "several": torch.from_numpy(rng.random((40, 2)) < 0.5),
    }.items():
        loss = lambda f, y: (f - y.float()).square().sum(1)  # noqa: E731
        run = planted(tmp_path / f"{name}.zarr", x, y, head, loss=loss)
        cell = richness(run).squeeze()
        wanted = feature_metrics(x.astype(np.float32), x @ head.T, y.double().numpy())
        np.testing.assert_allclose(cell["cumulative_quality"], wanted.cumulative_quality, atol=1e-6)
        with pytest.raises(FeatdynError, match="collapse needs labels: its probes have none"):
            collapse(run)


def test_counts_are_no_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, head, y = rng.standard_normal((40, 5)), rng.standard_normal((1, 5)), rng.poisson(2.0, 40)
    run = planted(tmp_path / "r.zarr", x, y, head, loss=lambda f, y: (f[:, 0] - y).square())
    wanted = feature_metrics(x.astype(np.float32), x @ head.T, y[:, None].astype(float))
    found = richness(run).squeeze()
    np.testing.assert_allclose(found["cumulative_quality"], wanted.cumulative_quality, atol=1e-6)
    with pytest.raises(FeatdynError, match=r"its loss counts labels such as .*, which is none of 2 classes"):
        collapse(run)


def test_unlabelled_probes_and_outputs_that_span_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    labels = np.where(np.arange(12) < 3, -100, np.arange(12) % 3)
    run = planted(
        tmp_path / "r.zarr", rng.standard_normal((12, 4)), labels, rng.standard_normal((3, 4)),
        loss=lambda f, y: f.square().sum(1),
    )  # fmt: skip
    found = richness(run)
    assert "some probes have no target" in set(np.ravel(_words(found, "quality")))
    assert collapse(run)["set_size"].values.tolist() == [9]
    few = planted(tmp_path / "few.zarr", rng.standard_normal((4, 4)), labels[3:7], rng.standard_normal((3, 4)))
    assert set(np.ravel(_words(richness(few), "low_rank"))) == {"too few samples"}
    assert set(np.ravel(_words(collapse(few), "nc1"))) == {"too few samples"}


def _words(found: xr.Dataset, name: str) -> Any:
    words = reasons(found, name)
    assert words is not None
    return words.values


@pytest.mark.parametrize("analysis", [richness, collapse], ids=["richness", "collapse"])
def test_the_same_on_workers(analysis: Any, run: Run, clusters: Any, caplog: pytest.LogCaptureFixture) -> None:
    same_on(clusters, analysis, analysis(run, layers=("two",)), run, layers=("two",))
    plans(analysis, run, caplog)


def test_bad_input_is_one_line(run: Run) -> None:
    for analysis in (richness, collapse):
        with pytest.raises(FeatdynError, match=r"no activation of s9 was recorded"):
            analysis(run, layers=("s9",))
        with pytest.raises(FeatdynError, match="folds"):
            analysis(run, folds=1)
    assert issubclass(ComputeError, FeatdynError)
