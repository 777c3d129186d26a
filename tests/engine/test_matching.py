"""How runs are set beside each other, and what their seeds tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from featdyn.across_runs.matching import before, first_fit, training_accuracy
from featdyn.errors import FeatdynError
from featdyn.statistics.repeats import mean_difference, mean_estimate
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.planted_pairs import planted
from tests.engine.synthetic_run import make_run


def test_estimates_are_scipy_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(5), 2 * rng.standard_normal(4) + 1
    interval = stats.ttest_1samp(a, 0).confidence_interval()
    found = mean_estimate(a)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    found = mean_difference(a, b)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert np.isnan(mean_difference([1.0], [2.0, 3.0]).low)
    assert found.pvalue == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert mean_estimate(a).minus(0.3).pvalue == pytest.approx(stats.ttest_1samp(a, 0.3).pvalue)
    assert np.isnan(mean_difference([1.0, 1.0], [0.5, 0.5]).low)  # two equal seeds are no certainty
    assert np.isnan(mean_estimate([0.7, 0.7]).high)
    assert np.isnan(mean_estimate([0.7, 0.7]).pvalue)


def test_intervals_of_shares_stay_among_shares() -> None:
    found = mean_estimate([0.02, 0.16, 0.09])
    assert found.low < 0  # Student's own
    assert found.within(0, 1).low == 0
    assert found.within(0, 1).high == found.high
    assert np.isnan(mean_estimate([0.5]).within(0, 1).low)


def test_checkpoints_are_matched_by_steps_and_by_what_fits(tmp_path: Path) -> None:
    run = planted(tmp_path / "run.zarr", agreement=0.95, fits=4)
    at = np.array([0, 3, 9, 28, 90])
    for step in (-1, 0, 2.9, 3, 50, 1000):
        assert before(at, step) == max([t for t in range(5) if at[t] <= step], default=0)
    accuracy = training_accuracy(run)
    np.testing.assert_array_equal(accuracy, [0.5] * 4 + [1.0] * 2)
    assert (first_fit(run, 0.5), first_fit(run, 0.99)) == (0, 4)


def recorded(path: Path, labels: list[float], *, integers: bool) -> Run:
    """Two checkpoints of three classes: the first has every probe in class 0, the second in class 1."""
    coords = {
        "split": ("sample", np.array(["train"] * 4 + ["test"], dtype=object)),
        "label": ("sample", np.array(labels, np.int64 if integers else np.float64)),
    }
    schema = Schema.build([ArraySpec("outputs/logits", ("sample", "class"), (5, 3), "float32")], 5)
    with RunWriter.create(path, schema, static={"": xr.Dataset(coords=coords)}, attributes={}) as writer:
        for t in range(2):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("outputs/logits", np.eye(3, dtype=np.float32)[[t] * 5], 0)
    return Run(path)


def test_probes_without_a_class_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    run = recorded(tmp_path / "a.zarr", [0, 1, 1, -100, 0], integers=True)
    np.testing.assert_allclose(training_accuracy(run), [1 / 3, 2 / 3])
    with pytest.raises(FeatdynError, match="float64, no classes"):
        training_accuracy(recorded(tmp_path / "b.zarr", [0.5, 1, 1, 2, 0], integers=False))


def test_runs_without_training_probes_are_not_matched_by_them(tmp_path: Path) -> None:
    for name, split, sets in (("none", False, {"train": 4}), ("others", True, {"test": 4})):
        run = make_run(tmp_path / f"{name}.zarr", checkpoints=1, sets=sets, split=split)
        with pytest.raises(FeatdynError, match=f"{name}.zarr: holds no training probes, by which runs are matched"):
            training_accuracy(run)


def test_a_result_counts_where_it_is_of_all_checkpoints(tmp_path: Path) -> None:
    """Its shares are not those of the outputs here, which tells them apart."""
    run = recorded(tmp_path / "run.zarr", [0, 0, 0, 1, 0], integers=True)
    shares = xr.Dataset(
        {"plain_accuracy": (("set", "t1"), np.array([[0.1, 0.2], [0.3, 0.4]]))},
        {"set": np.array(["test", "train"], dtype=object), "t1": np.arange(2)},
    )
    for name, result, expected in (
        ("early", shares.isel(t1=[0]), [0.75, 0.25]),
        ("others", shares.isel(set=[0]), [0.75, 0.25]),
        ("whole", shares, [0.3, 0.4]),
    ):
        with RunWriter.open(run.path) as writer:
            writer.result(name, result)
        np.testing.assert_allclose(training_accuracy(Run(run.path)), expected)
