"""Intervals beside SciPy's, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featdyn.statistics import resampling


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]), st.sampled_from(["wilson", "exact"]))
def test_binomial_intervals_are_scipys(n: int, data: st.DataObject, level: float, method: str) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(level, method)
    found = resampling.binomial_interval([[k]], n, level=level, method=method)  # type: ignore[arg-type]
    assert found.estimate.shape == (1, 1)
    np.testing.assert_allclose([found.low[0, 0], found.high[0, 0]], [expected.low, expected.high], rtol=1e-6, atol=1e-9)
    assert found.low <= k / n <= found.high


def test_bootstrap_is_scipys_and_covers() -> None:
    rng = np.random.default_rng(0)
    x = rng.exponential(size=200)
    ours = resampling.bootstrap_mean(x, resamples=4000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=4000, method="percentile", rng=rng).confidence_interval
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=0.02)
    assert ours.estimate == x.mean()
    truths = resampling.bootstrap_mean(rng.standard_normal((60, 400)), resamples=500)  # 400 data sets of 60
    assert np.mean((truths.low <= 0) & (truths.high >= 0)) == pytest.approx(0.94, abs=0.04)


def test_pairs_and_groups() -> None:
    rng = np.random.default_rng(1)
    common = rng.standard_normal((300, 1))
    a, b = common + 0.1 * rng.standard_normal((300, 2)), common - 0.05
    paired = resampling.paired_difference(a, np.broadcast_to(b, a.shape))
    assert (paired.low > 0).all()
    wide = resampling.bootstrap_mean(a)
    assert (paired.high - paired.low < (wide.high - wide.low) / 5).all()
    # Each value repeated 9 times says no more than once.
    x = rng.standard_normal(80)
    once = resampling.bootstrap_mean(x)
    grouped = resampling.bootstrap_mean(np.repeat(x, 9), groups=np.repeat(np.arange(80), 9))
    assert grouped.estimate == pytest.approx(once.estimate)
    np.testing.assert_allclose([grouped.low, grouped.high], [once.low, once.high])


def test_refusals() -> None:
    for call, message in (
        (lambda: resampling.binomial_interval(3, 2), "between 0 and trials"),
        (lambda: resampling.binomial_interval(1, 2, method="wald"), "wilson"),
        (lambda: resampling.binomial_interval(1, 2, level=1.0), "level"),
        (lambda: resampling.bootstrap_mean([1.0]), "N >= 2"),
        (lambda: resampling.bootstrap_mean([1.0, np.nan]), "finite"),
        (lambda: resampling.bootstrap_mean([1.0, 2.0], resamples=0), "resamples"),
        (lambda: resampling.bootstrap_mean([1.0, 2.0], groups=[0]), "groups"),
        (lambda: resampling.bootstrap_mean([1.0, 2.0], groups=[0, 0]), "two groups"),
        (lambda: resampling.paired_difference([1.0, 2.0], [1.0]), "one shape"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
