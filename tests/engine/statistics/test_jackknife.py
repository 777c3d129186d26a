"""Folds and the jackknife's interval: what they promise, and that the interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from featdyn.statistics.jackknife import folds, jackknife_interval
from featdyn.statistics.resampling import mean_interval
from tests.strategies import sizes


@given(size=sizes(1, 60), count=sizes(2, 9), seed=st.integers(0, 99))
def test_folds_are_of_whole_groups_and_even(size, count, seed):
    rng = np.random.default_rng(seed)
    groups, kinds = rng.integers(0, 20, size), rng.integers(0, 3, size)
    found = folds(size, count, seed, groups, kinds)
    for group in np.unique(groups):
        assert len(set(found[groups == group])) == 1
    units = np.bincount([found[groups == g][0] for g in np.unique(groups)])
    assert units.max() - units.min() <= 1
    assert len(units) == min(count, len(np.unique(groups)))


def test_kinds_are_spread():
    kinds = np.repeat([0, 1, 2], [40, 8, 16])
    table = np.zeros((8, 3))
    np.add.at(table, (folds(64, 8, 0, None, kinds), kinds), 1)
    assert (table == [5, 1, 2]).all()


def test_the_interval_of_a_mean_is_students():
    """Folds of one sample each give the textbook interval."""
    x = np.random.default_rng(0).standard_normal(10)
    found = jackknife_interval(x.mean(), [np.delete(x, i).mean() for i in range(10)])
    assert found.high - found.estimate == pytest.approx(2.262157 * x.std(ddof=1) / np.sqrt(10), rel=1e-6)
    few = jackknife_interval(x[:2].mean(), x[1::-1].tolist(), level=0.8)
    expected = stats.t.interval(0.8, 1, x[:2].mean(), x[:2].std(ddof=1) / np.sqrt(2))
    assert (few.low, few.high) == pytest.approx(expected)


def test_it_covers_a_ratio_of_clustered_samples():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        x = np.repeat(rng.gamma(4, 1, 40), 2) + 0.1 * rng.random(80)
        y = np.repeat(rng.gamma(4, 1, 40), 2)
        fold = folds(80, 8, 0, np.arange(80) // 2)
        rest = [x[fold != g].sum() / y[fold != g].sum() for g in range(8)]
        found = jackknife_interval(x.sum() / y.sum(), rest)
        covered += found.low <= 4.05 / 4 <= found.high
    assert 180 <= covered <= 200


@pytest.mark.parametrize(("each", "least"), [([1] * 8, 0.93), ([20, *[1] * 6], 0.95), ([9, 9, 9, *[2] * 9], 0.91)])
def test_folds_of_unequal_sizes_give_the_interval_of_their_groups(each: list[int], least: float) -> None:
    """Of a mean, beside the formula over groups; as folds of one size the last two hold the truth in 0.88 and 0.92."""
    rng, groups, held = np.random.default_rng(3), np.repeat(np.arange(len(each)), each), 0
    for _ in range(300):
        x = rng.standard_normal(len(each))[groups] + 0.1 * rng.standard_normal(len(groups))
        rest = [x[groups != g].mean() for g in range(len(each))]
        found, expected = jackknife_interval(x.mean(), rest, sizes=each), mean_interval(x, groups=groups)
        assert (found.low, found.high) == pytest.approx((float(expected.low), float(expected.high)))
        held += found.low <= 0 <= found.high
    assert held / 300 >= least
    assert np.isnan(jackknife_interval(1.0, [1.0, 2.0], sizes=[30, 1]).low)


def test_limits_that_nothing_can_tell():
    assert np.isnan(jackknife_interval(1.0, [1.0]).low)
    assert np.isnan(jackknife_interval(1.0, [1.0, np.nan, 2.0]).low)
    assert np.isnan(jackknife_interval(1e-16, [0.0, 2e-16, 1e-16], bounds=(0, 1)).high)
    assert np.isnan(jackknife_interval(5.0, [5.0, 5.0, 5.0]).high)
    assert np.isnan(jackknife_interval(np.nan, [1.0, 2.0]).low)
    for size, bounds, rounding in ((-5.0, (-np.inf, np.inf), 5e-12), (0.3, (0.0, 2.0), 2e-12)):
        for share, told in ((0.9, False), (1.1, True)):
            near = jackknife_interval(size, [size, size + share * rounding], bounds=bounds)
            assert np.isfinite(near.low) == told
    assert jackknife_interval(0.9, [0.5, 1.0, 0.9], bounds=(0, 1)).high == 1
