"""Shift of decision patterns and its correlations, against loops over probes."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featdyn.analysis import analyses
from featdyn.analysis.features.pattern_shift import correlations
from featdyn.analysis.features.pattern_shift.compute import shift_of
from featdyn.analysis.status import ALIKE, FEW
from featdyn.statistics.jackknife import folds, jackknife_interval
from tests.engine.test_richness import planted
from tests.strategies import sizes

Values = np.ndarray[Any, Any]
pattern_shift = analyses()["pattern_shift"]


def shifts_by_loop(pattern: Values, dealt: Values, labels: Values, trained: Values, origins: Values) -> Values:
    found = np.full(len(pattern), np.nan)
    for i, own in enumerate(pattern):
        others = np.flatnonzero(trained & (dealt == labels[i]) & (origins != origins[i]))
        mean = pattern[others].sum(0)
        if labels[i] >= 0 and own.any() and mean.any():
            found[i] = 1 - own @ mean / np.linalg.norm(own) / np.linalg.norm(mean)
    return found


@settings(max_examples=80, deadline=None)
@given(
    n=sizes(1, 20), width=st.integers(1, 3), seed=st.integers(0, 999), kind=st.sampled_from(["whole", "real", "one"])
)
def test_a_shift_is_from_the_mean_of_other_images_of_the_class(n: int, width: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    pattern = rng.integers(-2, 3, (n, width)).astype(float)  # many are zero, many means vanish
    if kind != "whole":
        pattern = rng.standard_normal((n, width)) if kind == "real" else np.outer(rng.random(n), rng.random(width))
    labels, origins, trained = rng.integers(-1, 3, n), rng.integers(0, 1 + n // 2, n), rng.random(n) < 0.6
    dealt = rng.permutation(labels)
    found = shift_of(pattern, dealt, labels, trained, origins)
    np.testing.assert_allclose(found, shifts_by_loop(pattern, dealt, labels, trained, origins), atol=1e-12)
    assert not ((found < 0) | (found > 2)).any()


def test_a_pattern_is_what_each_channel_contributes_to_the_loss(tmp_path: Path) -> None:
    """Of sets whose probes alternate; one probe has no features, a class has no training probe."""
    rng, n = np.random.default_rng(8), 33
    labels, split = rng.integers(0, 3, n), np.array(["train", "test", "odd"], dtype=object)[np.arange(n) % 3]
    labels[split == "train"] %= 2
    x = rng.standard_normal((n, 5))
    x[4] = 0
    run = planted(tmp_path / "r.zarr", x, labels, rng.standard_normal((3, 5)), coords={"split": split}, gradients=True)
    gradient, activation = (run.block(f"layers/held/{of}", 0, 0).astype(float) for of in ("gradient", "activation"))
    wanted = shifts_by_loop(gradient * activation, labels, labels, split == "train", np.arange(n))
    found = pattern_shift(run).squeeze()
    for name in ("train", "test", "odd"):
        mine, cell = wanted[split == name], found.sel(set=name)
        assert float(cell["shift"]) == pytest.approx(np.nanmean(mine))
        assert int(cell["undefined"]) == np.isnan(mine).sum() > 0 or name == "train"
        assert float(cell["shift_shuffled"]) != pytest.approx(np.nanmean(mine))


def test_a_shift_does_not_depend_on_how_small_features_and_gradients_are(tmp_path: Path) -> None:
    """Outputs vanish at both scales, so that gradients go with the weights."""
    rng, n = np.random.default_rng(3), 24
    x, head, labels = rng.standard_normal((n, 4)), rng.standard_normal((3, 4)), np.arange(n) % 3
    split = np.array(["train", "test"], dtype=object)[np.arange(n) // 3 % 2]
    plain, small = (
        pattern_shift(
            planted(
                tmp_path / f"{scale}.zarr", x * scale, labels, head * scale, coords={"split": split}, gradients=True
            )
        )
        for scale in (1e-8, 1e-22)
    )
    assert plain["shift"].notnull().all()
    np.testing.assert_allclose(small["shift"], plain["shift"], rtol=1e-5)


def test_the_null_deals_labels_to_images(tmp_path: Path) -> None:
    """Of four training images with copies, two of each class, there are six deals."""
    rng, images = np.random.default_rng(0), np.repeat(np.arange(8), 10)
    x, of_image = rng.standard_normal((8, 9))[images] + 0.05 * rng.standard_normal((80, 9)), np.arange(8) // 2 % 2
    split, labels, trained = np.array(["train", "test"], dtype=object)[images % 2], of_image[images], images % 2 == 0
    run = planted(
        tmp_path / "r.zarr", x, labels, rng.standard_normal((2, 9)), coords={"split": split, "origin": images},
        gradients=True,
    )  # fmt: skip
    found = float(pattern_shift(run)["shift_shuffled"].sel(set="test").squeeze())
    gradient, activation = (run.block(f"layers/held/{of}", 0, 0).astype(float) for of in ("gradient", "activation"))
    nulls = []
    for deal in set(permutations([0, 0, 1, 1])):
        dealt = labels.copy()
        dealt[trained] = np.repeat(deal, 10)
        nulls.append(np.nanmean(shifts_by_loop(gradient * activation, dealt, labels, trained, images)[~trained]))
    assert np.abs(np.array(nulls) - found).min() < 1e-9


@pytest.mark.parametrize(("dtype", "turned"), [("float32", 3e-4), ("float16", 0.02)])
def test_a_shift_is_more_than_rounding_of_the_stored_type(tmp_path: Path, dtype: str, turned: float) -> None:
    """Features and gradients have one direction each, but for every other test probe, whose features are turned."""
    rng, n = np.random.default_rng(0), 42
    angle = np.where(np.arange(n) % 2, 0.0, turned) * (np.arange(n) >= 2) + np.pi / 4
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(1, 2, (n, 1))
    split = np.array(["train"] * 2 + ["turned", "test"] * (n // 2 - 1), dtype=object)
    run = planted(
        tmp_path / "r.zarr", x, np.ones(n, int), [[3, 1], [-1, 2]], coords={"split": split}, dtype=dtype, gradients=True
    )
    result = pattern_shift(run).squeeze()
    found = result["shift"]
    np.testing.assert_array_equal(result["shift_shuffled"], found)  # of one class
    assert float(found.sel(set="test")) <= (1e-12 if dtype == "float32" else 0)
    assert turned**2 / 10 < float(found.sel(set="turned")) < turned**2
    assert float(found.sel(set="train")) <= float(found.sel(set="test"))


def fishers(x: Values, y: Values) -> float:
    return float(np.arctanh(np.corrcoef(x, y)[0, 1]))


@pytest.mark.parametrize("images", [7, 50])
def test_limits_of_a_correlation_are_the_jackknife_s_of_whole_images(images: int) -> None:
    rng, n = np.random.default_rng(images), 60
    shift, origins = rng.integers(0, 9, n) / 4, rng.integers(0, images, n)  # with ties
    loss = shift + rng.standard_normal(n)
    values, why = correlations.with_loss(shift, loss, origins, 3)
    fold = folds(n, 32, 3, origins)
    others = [fishers(shift[fold != g], loss[fold != g]) for g in np.unique(fold)]
    wanted = jackknife_interval(fishers(shift, loss), others, sizes=np.bincount(fold))
    assert values["loss_correlation"] == pytest.approx(np.corrcoef(shift, loss)[0, 1])
    assert values["loss_spearman"] == pytest.approx(stats.spearmanr(shift, loss).statistic)
    assert values["loss_correlation_low"] == pytest.approx(np.tanh(wanted.low))
    assert values["loss_correlation_high"] == pytest.approx(np.tanh(wanted.high))
    assert why == {"loss_interval_status": ""}


def test_limits_over_classes_leave_classes_out() -> None:
    """Of classes that training probes have, the loss beyond theirs."""
    rng, n = np.random.default_rng(7), 80
    labels, of_training = rng.integers(-1, 8, n), {c: float(rng.random()) for c in range(7)}
    shift, loss = rng.random(n), rng.random(n)
    mean, gap = (
        np.array([of[labels == c].mean() - less * of_training[c] for c in range(7)])
        for of, less in ((shift, 0), (loss, 1))
    )
    fold = folds(7, 32, 2)
    wanted = jackknife_interval(fishers(mean, gap), [fishers(mean[fold != g], gap[fold != g]) for g in range(7)])
    values, why = correlations.over_classes(shift, loss, labels, of_training, 2)
    found = [values[f"class_correlation{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(np.tanh([wanted.estimate, wanted.low, wanted.high]).tolist())
    assert why == {"class_interval_status": ""}
    for lost in (np.where(labels == 2, np.nan, loss), loss * np.nan):
        assert correlations.over_classes(shift, lost, labels, of_training, 2)[1]["class_status"] == correlations.NO_LOSS
    unknown = correlations.over_classes(shift, loss, labels, of_training | {3: np.nan}, 2)
    assert unknown[1]["class_status"] == correlations.NO_LOSS


def test_limits_over_checkpoints_leave_images_out_of_both_sets() -> None:
    rng, n = np.random.default_rng(4), 24
    shift, loss = rng.random((6, n)), rng.random((6, n))
    shift[:, 3], shift[2, 5] = np.nan, np.nan  # one never has a shift, one has none at one checkpoint
    mine, origins = np.arange(n) < 10, np.arange(n) // 2
    trained = np.arange(n) >= 14  # those between are in neither
    values, why = correlations.over_checkpoints(shift, loss, mine, trained, origins, 0, same=False)

    def curves(kept: Values) -> tuple[Values, Values]:
        gap = loss[:, mine & kept].mean(1) - loss[:, trained & kept].mean(1)
        return np.nanmean(shift[:, mine & kept], 1), gap

    fold = folds(n, 32, 0, origins)
    wanted = jackknife_interval(
        fishers(*curves(np.ones(n, bool))),
        [fishers(*curves(fold != g)) for g in np.unique(fold)],
        sizes=[mine[fold == g].sum() / 10 + trained[fold == g].sum() / 10 for g in np.unique(fold)],
    )
    found = [values[f"gap_correlation{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(np.tanh([wanted.estimate, wanted.low, wanted.high]).tolist())
    assert why == {"gap_interval_status": ""}


def test_over_checkpoints_at_its_limits() -> None:
    rng, n = np.random.default_rng(5), 20
    shift, loss, mine = rng.random((6, n)), rng.random((6, n)), np.arange(n) < 10

    def why(shift: Values, loss: Values, trained: Values = ~mine, *, same: bool = False) -> str:
        return correlations.over_checkpoints(shift, loss, mine, trained, np.arange(n), 0, same=same)[1].get(
            "gap_status", ""
        )

    def lost(values: Values, *where: Any) -> Values:
        found = values.copy()
        for at in where:
            found[at] = np.nan
        return found

    assert why(shift, loss) == ""
    assert why(shift, loss, same=True) == correlations.NO_GAP
    assert why(shift, loss, mine & False) == correlations.FEW_CHECKPOINTS
    own, others, between = (0, 0), (0, 15), (slice(None), 15)
    assert why(shift, lost(loss, own)) == ""  # five are left
    assert why(shift, lost(loss, own, (1, 15))) == correlations.FEW_CHECKPOINTS
    assert why(shift, lost(loss, others, others)) == ""
    assert why(shift, lost(loss, between)) == correlations.NO_LOSS
    assert why(shift, lost(loss, between), np.arange(n) > 15) == ""  # a probe of neither set
    assert why(lost(shift, (0, mine)), loss) == ""
    assert why(lost(shift, (slice(2), mine)), loss) == correlations.FEW_CHECKPOINTS
    assert why(lost(shift, (slice(None), ~mine)), loss) == ""
    assert why(0 * shift, loss) == ALIKE
    assert why(shift, 0 * loss) == ALIKE


def test_what_varies_by_rounding_alone_has_no_correlation() -> None:
    rng = np.random.default_rng(6)
    shift, own = rng.random(30), np.arange(30)
    still, least = 1 + 1e-13 * rng.random(30), 1 + 1e-11 * rng.random(30)
    assert correlations.with_loss(shift, still, own, 0) == correlations.with_loss(still, shift, own, 0)
    assert correlations.with_loss(shift, still, own, 0)[1]["loss_status"] == ALIKE
    assert np.isfinite(correlations.with_loss(shift, least, own, 0)[0]["loss_correlation"])
    for factor in (3, -3):
        values, why = correlations.with_loss(shift, factor * shift, own, 0)
        assert values["loss_correlation"] == values["loss_spearman"] == pytest.approx(factor / 3)
        assert why == {"loss_interval_status": ALIKE}
    alone = np.r_[np.ones(9), 2.0]  # without the last one nothing varies
    for pair in ((alone, shift[:10]), (shift[:10], alone)):
        assert correlations.with_loss(*pair, own[:10], 0)[1] == {"loss_interval_status": FEW}
    for one in rng.standard_normal((99, 5)):
        for other in (one / 3, -one / 7):
            assert abs(correlations.with_loss(one, other, own[:5], 0)[0]["loss_correlation"]) <= 1
