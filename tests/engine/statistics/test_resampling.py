"""Intervals beside SciPy's and statsmodels' formulas, and their coverage, of clustered samples too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from featdyn.statistics import dealing, resampling
from featdyn.statistics.repeats import mean_difference, mean_estimate
from tests.engine.statistics.stretched import units_of
from tests.strategies import sizes


def clusters(rng: np.random.Generator, sets: int, images: int, copies: int, p: float, correlation: float) -> np.ndarray:
    """Return hits (sets, images * copies) of beta-binomial images: their correlation within one is as given."""
    size = (1 - correlation) / correlation
    own = rng.beta(p * size, (1 - p) * size, (sets, images, 1))
    return (rng.random((sets, images, copies)) < own).reshape(sets, -1)


@settings(deadline=None, max_examples=60)
@given(sizes(1, 300), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_of_independent_shares_are_scipys(n: int, data: st.DataObject, level: float) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(level, "wilson")
    found = resampling.share_interval([np.arange(n) < k], level=level)
    assert found.estimate.shape == (1,)
    np.testing.assert_allclose([found.low[0], found.high[0]], [expected.low, expected.high], rtol=1e-6, atol=1e-9)
    assert 0 <= found.low <= k / n <= found.high <= 1
    assert found.high > found.low


def tango(plus: int, minus: int, n: int) -> tuple[float, float]:
    """Return Tango's limits from the likelihood: the score's variance at the constrained maximum, by search."""

    def excess(difference: float, side: int) -> float:
        def likelihood(q: float) -> float:  # q: share of -1; the share of 1 is q + difference
            parts = [(plus, q + difference), (minus, q), (n - plus - minus, 1 - 2 * q - difference)]
            return -sum(k * np.log(max(v, 1e-300)) for k, v in parts if k)

        low, high = max(0.0, -difference), (1 - difference) / 2
        q = optimize.minimize_scalar(likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        variance = (2 * q + difference - difference**2) * n
        return float((plus - minus - n * difference) / np.sqrt(variance) - side * stats.norm.isf(0.025))

    middle = (plus - minus) / n
    return (
        optimize.brentq(excess, -1 + 1e-9, middle - 1e-9, args=(1,)),
        optimize.brentq(excess, middle + 1e-9, 1 - 1e-9, args=(-1,)),
    )


@pytest.mark.parametrize(("plus", "minus", "n"), [(3, 1, 30), (0, 0, 40), (9, 0, 50), (0, 20, 60), (12, 12, 100)])
def test_paired_differences_have_tangos_limits(plus: int, minus: int, n: int) -> None:
    d = np.r_[np.ones(plus), -np.ones(minus), np.zeros(n - plus - minus)]
    found = resampling.difference_interval(d)
    np.testing.assert_allclose([found.low, found.high], tango(plus, minus, n), atol=2e-4)
    assert found.estimate == pytest.approx((plus - minus) / n)
    turned = resampling.difference_interval(-d)
    np.testing.assert_allclose([turned.low, turned.high], [-found.high, -found.low], atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(sizes(2, 12), sizes(1, 4), st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_limits_stay_in_range_and_have_a_width(images: int, copies: int, seed: int, p: float) -> None:
    rng, groups = np.random.default_rng(seed), np.repeat(np.arange(images), copies)
    a, b = rng.random((2, 3, images * copies)) < p
    for found, least in (
        (resampling.share_interval(a, groups=groups), 0),
        (resampling.difference_interval(a * 1.0 - b, groups=groups), -1),
    ):
        assert (found.low >= least).all()
        assert (found.high <= 1).all()
        assert (found.low <= found.estimate + 1e-12).all()
        assert (found.high >= found.estimate - 1e-12).all()
        assert (found.high - found.low > 1e-3).all()


@pytest.mark.parametrize(
    ("images", "copies", "correlation"), [(200, 3, 0.16), (200, 3, 0.5), (200, 15, 0.3), (100, 15, 0.3)]
)
@pytest.mark.parametrize("p", [0.5, 0.97, 0.01])
def test_coverage_of_clustered_shares(images: int, copies: int, correlation: float, p: float) -> None:
    """Of 2,000 data sets; taken as independent, 0.82 to 0.92 for three copies and 0.6 for fifteen."""
    hits = clusters(np.random.default_rng(0), 2000, images, copies, p, correlation)
    found = resampling.share_interval(hits, groups=np.repeat(np.arange(images), copies))
    assert 0.932 <= np.mean((found.low <= p) & (p <= found.high)) <= (0.968 if p == 0.5 else 0.99)
    low, high = resampling.wilson(hits.mean(1), images * copies)
    assert np.mean((low <= p) & (p <= high)) < 0.935


@pytest.mark.parametrize(("plus", "minus", "copies"), [(0.01, 0.0, 1), (0.1, 0.05, 1), (0.1, 0.05, 3), (0.01, 0.02, 3)])
def test_coverage_of_paired_differences(plus: float, minus: float, copies: int) -> None:
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.array([plus + 1e-9, minus + 1e-9, 1 - plus - minus]), (1500, 200, 1))  # correlation 0.5
    if copies == 1:
        shares = np.broadcast_to([plus, minus, 1 - plus - minus], (1500, 200, 1, 3))
    u = rng.random((1500, 200, copies))
    d = (u < shares[..., 0]) * 1.0 - ((u >= shares[..., 0]) & (u < shares[..., 0] + shares[..., 1]))
    found = resampling.difference_interval(d.reshape(1500, -1), groups=np.repeat(np.arange(200), copies))
    assert np.mean((found.low <= plus - minus) & (plus - minus <= found.high)) >= 0.93
    assert (found.high - found.low).min() > 0.01


def effective_size(x: np.ndarray, groups: np.ndarray, level: float) -> float:
    """Return of how many independent samples a mean varies as much, one group after the other."""
    n, names, mean = len(x), sorted(set(groups.tolist())), x.mean()
    least = n**2 / sum((groups == g).sum() ** 2 for g in names)
    if least == n or len(names) < 2:
        return least
    each = [x[groups == g] for g in names]
    worth = n**2 / sum(len(own) ** 2 for own in each)
    if worth < 1.5:
        return 1.0
    squares = [sum(v - mean for v in own) ** 2 for own in each]
    within = sum(((own - own.mean()) ** 2).sum() for own in each) / (n - len(names))
    between = sum(len(own) * (own.mean() - mean) ** 2 for own in each) / (len(names) - 1)
    usual = (n - sum(len(own) ** 2 for own in each) / n) / (len(names) - 1)
    variance = max(
        sum(squares) * worth / (worth - 1) / n**2,
        (between - within) / usual / worth + within / n,  # ANOVA's
    )
    alone = np.abs(x).mean() - mean**2  # of one sample
    size = least if alone <= 0 else n if variance == 0 else min(max(alone / variance, least), n)
    freedom = worth - 1
    if sum(squares) > 0:
        kurtosis = len(names) * sum(s**2 for s in squares) / sum(squares) ** 2
        freedom = min(2 * len(names) / max(kurtosis - 1, 1e-9), worth - 1)
    tail = (1 - level) / 2
    return size * (stats.norm.isf(tail) / stats.t.isf(tail, freedom)) ** 2


@settings(max_examples=40)
@given(
    st.lists(sizes(1, 5), min_size=1, max_size=9), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.sampled_from([0.8, 0.95]),
)  # fmt: skip
def test_intervals_of_clustered_samples_are_those_of_fewer(sizes: list[int], seed: int, p: float, level: float) -> None:
    rng, groups = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    hits = (rng.random(len(sizes)) < p)[groups] ^ (rng.random(len(groups)) < 0.2 * (0 < p < 1))
    share = resampling.share_interval(hits, groups=groups, level=level)
    size = effective_size(hits.astype(float), groups, level)
    expected = resampling.wilson(hits.mean(), size, level)
    np.testing.assert_allclose([share.low, share.high], expected, rtol=1e-9, atol=1e-12)
    d = hits - 1.0 * (rng.random(len(groups)) < 0.3)
    found, size = resampling.difference_interval(d, groups=groups, level=level), effective_size(d, groups, level)
    # The score at each limit is that of so many independent samples, unless the range ends there.
    for limit, (plus, minus) in ((found.high, (1, -1)), (-found.low, (-1, 1))):
        share, less = (d == plus).mean(), (d == minus).mean()
        if limit > 1 - 1e-9:
            continue
        linear = (2 - share + less) * limit - share - less
        q = (np.sqrt(linear**2 + 8 * less * limit * (1 - limit)) - linear) / 4  # of -1, at this difference
        score = (limit - share + less) * np.sqrt(size / (2 * q + limit * (1 - limit)))
        assert score == pytest.approx(stats.norm.isf((1 - level) / 2), rel=1e-6)


@settings(max_examples=40)
@given(st.lists(sizes(1, 4), min_size=1, max_size=9), st.integers(0, 99))
def test_students_limits_follow_from_sums(sizes: list[int], seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    x = np.random.default_rng(seed).exponential(size=(2, len(groups)))
    found = resampling.mean_interval(x, groups=groups)
    sums = np.stack([x[:, groups == g].sum(1) for g in range(len(sizes))], 1)
    each = np.array(sizes, float)
    one = np.ones(2)
    limits = resampling.student(
        len(sizes) * one, len(groups) * one, x.sum(1), (sums**2).sum(1), sums @ each, (each**2).sum() * one
    )
    np.testing.assert_allclose(limits, [found.low, found.high], rtol=1e-9)
    worth = units_of(groups.tolist())
    assert np.isnan(found.low).all() == (worth == 1)
    if worth > 1:
        apart = sums - found.estimate[:, None] * each
        error = np.sqrt((apart**2).sum(1) * worth / (worth - 1)) / len(groups)
        half = stats.t.ppf(0.975, worth - 1) * error
        np.testing.assert_allclose(found.high - found.estimate, half, rtol=1e-9)
    equal = resampling.student(3 * one, 6 * one, 6 * one, 12 * one, 12 * one, 12 * one)  # two ones in each group
    assert np.isnan(equal).all()


@pytest.mark.parametrize(
    ("each", "mean", "least"),
    [
        ([1] * 30 + [15] * 3, 0.89, 0.95), ([1] * 40 + [15] * 10, 0.92, 0.95), ([1] * 6 + [20], 0.95, 0.95),
        ([1] * 100 + [50], 0.93, 0.95), ([1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 9, 11, 15], 0.92, 0.95),
    ],
)  # fmt: skip
@pytest.mark.parametrize("p", [0.7, 0.93])
def test_coverage_of_groups_of_unequal_sizes(each: list[int], mean: float, least: float, p: float) -> None:
    """Of 1,000 data sets that do not vary within groups; by the number of groups alone 0.85, 0.92, 0.42 of means and
    down to 0.67 of shares."""
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(len(each)), each)
    own = rng.standard_normal((1000, len(each)))[:, groups]
    held = resampling.mean_interval(own + 0.3 * rng.standard_normal(own.shape), groups=groups)
    assert np.mean((held.low <= 0) & (held.high >= 0)) >= mean
    found = resampling.share_interval(own < stats.norm.ppf(p), groups=groups)
    assert np.mean((found.low <= p) & (found.high >= p)) >= least
    change = (own < -0.7) * 1.0 - (own > 0.7)
    moved = resampling.difference_interval(change, groups=groups)
    assert np.mean((moved.low <= 0) & (moved.high >= 0)) >= 0.95


def test_a_group_that_carries_nearly_all_leaves_a_mean_without_limits() -> None:
    groups = np.r_[np.zeros(20, int), 1]
    assert np.isnan(resampling.mean_interval(np.arange(21.0), groups=groups).low)
    assert resampling.effective_groups(groups, 21) == 1
    share = resampling.share_interval(groups == 0, groups=groups)
    low, high = resampling.wilson(20 / 21, 1)
    np.testing.assert_allclose([share.low, share.high], [low, high])


def test_repeats_are_welchs_and_students() -> None:
    rng = np.random.default_rng(4)
    for a, b in ((rng.normal(1, 2, 5), rng.normal(size=9)), (rng.normal(size=2), rng.normal(size=3))):
        found, expected = mean_difference(a, b), stats.ttest_ind(a, b, equal_var=False)
        limits = expected.confidence_interval()
        assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
        assert (found.pvalue, found.freedom) == pytest.approx((expected.pvalue, expected.df))
        assert (found.value, found.repeats) == (pytest.approx(a.mean() - b.mean()), len(a) + len(b))
        own = mean_estimate(a)
        assert own.pvalue == pytest.approx(stats.ttest_1samp(a, 0).pvalue)
        assert own.freedom == len(a) - 1
        moved = own.minus(0.25)
        assert (moved.value, moved.low, moved.high) == pytest.approx(
            (own.value - 0.25, own.low - 0.25, own.high - 0.25)
        )
        cut = own.within(own.low + 0.1, own.value + 0.1)
        assert (cut.low, cut.high) == pytest.approx((own.low + 0.1, own.value + 0.1))


@pytest.mark.parametrize("values", [[0.9, 0.7], [1.0, 3.0, 2.0], list(np.arange(20.0) ** 2)])
@pytest.mark.parametrize(("level", "power"), [(0.05, 0.8), (0.01, 0.5), (0.2, 0.99)])
def test_the_least_distance_that_is_seen_has_the_power_of_students_test(
    values: list[float], level: float, power: float
) -> None:
    found, n = mean_estimate(values), len(values)
    error = np.std(values, ddof=1) / np.sqrt(n)
    assert found.error == pytest.approx(error)
    shift = found.least_seen(level, power) / error
    assert stats.nct.sf(stats.t.isf(level / 2, n - 1), n - 1, shift) == pytest.approx(power)
    assert found.least_seen() == found.least_seen(0.05, 0.8)
    assert np.isnan(mean_estimate([1.0]).least_seen())


def test_means_are_students_of_the_groups() -> None:
    rng = np.random.default_rng(2)
    x = rng.exponential(size=80)
    found = resampling.mean_interval(x)
    expected = stats.ttest_1samp(x, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    repeated = resampling.mean_interval(np.repeat(x, 9), groups=np.repeat(np.arange(80), 9))
    assert (repeated.estimate, repeated.low, repeated.high) == pytest.approx((found.estimate, found.low, found.high))
    values = rng.standard_normal((1000, 50, 1)) + 0.5 * rng.standard_normal((1000, 50, 4))
    many = resampling.mean_interval(values.reshape(1000, -1), groups=np.repeat(np.arange(50), 4))
    assert 0.93 <= np.mean((many.low <= 0) & (many.high >= 0)) <= 0.97
    assert np.isnan(resampling.mean_interval([2.0, 2.0, 2.0]).low)
    assert np.isnan(resampling.mean_interval([1.0, 2.0], groups=[0, 0]).low)


def test_resampling_draws_groups_whole() -> None:
    groups = np.repeat([5, 1, 9], [2, 1, 3])
    counts = resampling.bootstrap_counts(6, 4000, 0, groups)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 3] == counts[:, 5]).all()
    assert (counts[:, [0, 2, 3]].sum(1) == 3).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=4 * np.sqrt(2 / 3 / 4000))
    assert (resampling.bootstrap_counts(6, 10, 0).sum(1) == 6).all()


@pytest.mark.parametrize("groups", [None, [5, 5, 2, 2, 9, 9], ["a", "b", "a", "a", "c", "b"], [1] * 6])
def test_what_is_dealt_is_of_whole_groups(groups):
    member = np.unique(np.arange(6) if groups is None else groups, return_inverse=True)[1]
    sizes, often = np.bincount(member), np.zeros((6, 6))
    for seed in range(300):
        dealt = dealing.dealt(6, seed, groups)
        for g in range(len(sizes)):
            mine, (source,) = dealt[member == g], set(member[dealt[member == g]].tolist())
            assert mine.tolist() == np.resize(np.flatnonzero(member == source), sizes[g]).tolist()
            often[g, source] += 1
        if len(set(sizes)) == 1:
            assert sorted(dealt) == list(range(6))
    np.testing.assert_allclose(often[: len(sizes), : len(sizes)], 300 / len(sizes), atol=40)


def test_repeats_without_a_spread_have_no_interval_but_a_reason() -> None:
    for found in (mean_estimate([0.5]), mean_estimate([0.9, 0.9]), mean_difference([1.0, 1.0], [0.5, 0.5])):
        assert np.isnan([found.low, found.high]).all()
        assert found.reason
    assert mean_estimate([0.5, 0.6]).reason == ""
    one = mean_difference([1.0, 1.0], [0.5, 0.6])
    assert one.low < one.value < one.high
    assert mean_estimate([0.5]).minus(0.1).reason


def test_intervals_of_no_rows_and_of_one_number() -> None:
    for measure in (resampling.share_interval, resampling.difference_interval, resampling.mean_interval):
        assert measure(np.zeros((0, 5))).low.shape == (0,)
        for wrong in (0.5, np.zeros((3, 0))):
            with pytest.raises(ValueError, match=r"must have shape \(\.\.\., N\) with N >= 1"):
                measure(wrong)
        one = measure([1.0], groups=["a"])
        assert one.estimate == 1
        assert np.isnan(one.low) == (measure is resampling.mean_interval)


def test_refusals() -> None:
    for call, message in (
        (lambda: resampling.share_interval([0.5, 1.5]), "between 0 and 1"),
        (lambda: resampling.share_interval([0, 1], level=1.0), "level"),
        (lambda: resampling.share_interval([]), "N >= 1"),
        (lambda: resampling.difference_interval([0, -2]), "between -1 and 1"),
        (lambda: resampling.wilson(0.5, 0), "at least one"),
        (lambda: resampling.mean_interval([1.0, np.nan]), "finite"),
        (lambda: resampling.mean_interval([1.0, 2.0], groups=[0]), "groups"),
        (lambda: resampling.bootstrap_counts(3, 2, 0, [0, 1]), "groups"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
