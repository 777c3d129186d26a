"""Two-sample tests: the note's table, SciPy where it has the same quantity, exact nulls, pairs that stay pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from featdyn.statistics import two_sample
from featdyn.statistics.two_sample import TwoSampleResult
from featdyn.statistics.two_sample.kde_tv import total_variations
from featdyn.statistics.two_sample.permutation import halved, labellings, samples
from featdyn_kernels import kde
from tests.engine.statistics import peers, reference
from tests.strategies import sizes

TESTS: dict[str, Callable[..., TwoSampleResult]] = {
    "kde_total_variation": two_sample.kde_total_variation,
    "mmd": two_sample.mmd,
    "energy": two_sample.energy,
    "sliced_wasserstein": lambda x, y, **options: two_sample.sliced_wasserstein(x, y, directions=16, **options),
}
# Section 2.3 of the method note: dimensions, then TV of one law, and of two laws a unit mean apart (truth 0.383).
TABLE = {
    1: (0.031, 0.368),
    2: (0.070, 0.348),
    3: (0.114, 0.352),
    5: (0.202, 0.366),
    10: (0.363, 0.439),
    20: (0.518, 0.551),
}


def means(q: int, n: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the estimate over data sets, for one law and for a unit shift."""
    rng = np.random.default_rng(q)
    found = []
    for seed in range(repeats):
        x, y = rng.standard_normal((2, n, q)).astype(np.float32)
        shifted = y + np.eye(1, q, dtype=np.float32)
        found.append([total_variations(x, z, False, 1, seed)[0] for z in (y, shifted)])
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1)


def compare(q: int, repeats: int) -> None:
    mean, deviation = means(q, 2000, repeats)
    print(f"q={q}: {mean[0]:.3f} {mean[1]:.3f}, noted {TABLE[q]}, deviation of one data set {deviation.round(3)}")
    # The note's figure is a mean over a few data sets: 10 assumed.
    error = deviation * np.sqrt(1 / repeats + 1 / 10)
    assert (np.abs(mean - TABLE[q]) < 4 * error + 0.001).all(), (mean, TABLE[q])


@pytest.mark.parametrize("q", [1, 2, 3])
def test_table_of_total_variations_on_few_data_sets(q: int) -> None:
    compare(q, 3)


@pytest.mark.slow
@pytest.mark.parametrize("q", TABLE)
def test_table_of_total_variations(q: int) -> None:
    compare(q, 30)


def test_total_variation_is_that_of_the_estimated_densities() -> None:
    """Against the integral of |p - q| on a grid, of the densities from all points of each half."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3000, 1)), 0.7 + 1.5 * rng.standard_normal((3000, 1))
    pooled = np.concatenate([x, y])
    bandwidth = np.sqrt(np.var(pooled, ddof=1)) * 1500 ** (-1 / 5)
    grid = np.mean([reference.total_variation_grid(x[i::2, 0], y[i::2, 0], bandwidth) for i in (0, 1)])
    assert two_sample.kde_total_variation(x, y, permutations=1).statistic == pytest.approx(grid, abs=0.02)
    assert np.asarray(kde.scott(pooled))[0, 0] * 6000**0.2 * 1500**-0.2 == pytest.approx(bandwidth)


def test_one_dimensional_distances_are_scipys() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 1)), rng.exponential(size=(45, 1))
    sliced = two_sample.sliced_wasserstein(x, y, p=1, directions=3, permutations=1)
    assert sliced.statistic == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-9)
    biased = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    within = [np.abs(z - z.T).mean() / (len(z) - 1) for z in (x, y)]  # U- against V-statistic
    found = two_sample.energy(x, y, permutations=1)
    assert found.statistic == pytest.approx(biased - sum(within), rel=1e-9)


@pytest.mark.parametrize("name", TESTS)
def test_the_null_is_of_200_labellings_where_no_number_is_named(name: str) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 12, 2))
    assert TESTS[name](x, y).null.shape == (200,)


def test_pvalues_agree_with_scipys_permutation_test() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((20, 1)), rng.standard_normal((24, 1)) + 0.5

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(two_sample.energy(a[:, None], b[:, None], permutations=1).statistic)

    ours = two_sample.energy(x, y, permutations=999)
    theirs = stats.permutation_test((x[:, 0], y[:, 0]), distance, n_resamples=400, alternative="greater", rng=0)
    assert ours.pvalue == pytest.approx(theirs.pvalue, abs=4 * np.sqrt(ours.pvalue / 400) + 2e-3)
    assert ours.null_mean == pytest.approx(0.0, abs=4 * ours.null_deviation / np.sqrt(999))


@pytest.mark.parametrize("name", TESTS)
def test_pvalues_are_uniform_under_the_null(name: str) -> None:
    rng = np.random.default_rng(3)
    pvalues = [
        TESTS[name](*rng.standard_normal((2, 24, 2)), paired=i % 2 == 0, permutations=39, rng=i).pvalue
        for i in range(80)
    ]
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", TESTS)
def test_a_shift_is_found(name: str) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((150, 3)).astype(np.float32)
    y = (rng.standard_normal((120, 3)) + 0.8).astype(np.float32)
    result = TESTS[name](x, y, permutations=99)
    assert result.pvalue == 0.01
    assert result.excess > 3 * result.null_deviation
    assert (result.n, result.m, result.d, result.paired) == (150, 120, 3, False)
    again = TESTS[name](x, y, permutations=99)
    assert again == result


@pytest.mark.parametrize("name", [*TESTS, "classifier"])
def test_pairs_that_move_together_show_a_drift_that_free_permutation_hides(name: str) -> None:
    """Spread among items a hundred times the drift of each: only swapping within pairs can see it."""
    rng = np.random.default_rng(5)
    x = 10 * rng.standard_normal((200, 1))
    y = x + 1.0 + 0.05 * rng.standard_normal((200, 1))
    test = {**TESTS, "classifier": two_sample.classifier}[name]
    paired, free = test(x, y, paired=True), test(x, y)
    if name == "classifier":  # one held-out draw of pairs has the power of its size
        assert paired.statistic == pytest.approx(0.5, abs=0.1)
    else:
        assert paired.pvalue <= 0.05
    assert free.pvalue > 0.05


@pytest.mark.parametrize("paired", [False, True])
def test_classifier_level_and_power(paired: bool) -> None:
    rng = np.random.default_rng(6)
    null = [two_sample.classifier(*rng.standard_normal((2, 60, 3)), paired=paired, rng=i).pvalue for i in range(60)]
    assert np.mean(np.array(null) <= 0.05) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 60)
    x, y = rng.standard_normal((400, 1)), rng.standard_normal((400, 1)) + 1
    found = two_sample.classifier(x, y, paired=paired)
    assert found.pvalue == 1 / 201
    truth = 2 * stats.norm.cdf(0.5) - 1
    assert found.extras["total_variation_bound"] == pytest.approx(truth, abs=4 * 2 * found.null_deviation)


@settings(deadline=None, max_examples=30)
@given(sizes(2, 12), sizes(2, 12), sizes(1, 20), st.integers(0, 5))
def test_labellings(n: int, m: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    free = labellings(n, m, count, rng, paired=False)
    assert free.shape == (count + 1, n + m)
    assert free[0].tolist() == [True] * n + [False] * m
    assert (free.sum(1) == n).all()
    pairs = labellings(n, n, count, rng, paired=True)
    assert (pairs[:, :n] ^ pairs[:, n:]).all()
    halves = [np.r_[0, n], np.setdiff1d(np.arange(n + m), [0, n])]
    within = labellings(n, m, count, rng, paired=False, within=halves)
    assert (within[:, halves[0]].sum(1) == 1).all()


ALL = {**TESTS, "classifier": two_sample.classifier}


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (7, 7), (11, 4)])
def test_halves_are_of_whole_groups_and_of_either_sample(n: int, m: int, paired: bool) -> None:
    m = n if paired else m
    for groups in (None, np.r_[np.arange(n) // 2, [] if paired else 50 + np.arange(m) // 3]):
        split, labels = halved(n, m, 5, np.random.default_rng(0), paired, groups)
        assert sorted(np.concatenate(split).tolist()) == list(range(n + m))
        assert len(labels) == 6
        member = np.arange(n if paired else n + m) if groups is None else groups
        member = np.r_[member, member + 1000] if paired else member
        for sample in (np.arange(n), np.arange(n, n + m)):
            held = [set(member[np.intersect1d(half, sample)]) for half in split]
            assert not held[0] & held[1]
            assert len(held[0]) - len(held[1]) in (0, 1)
        for half in split:
            _, first, place = np.unique(member[half], return_index=True, return_inverse=True)
            told = labels[:, half[first]]
            assert (told.sum(1) == told[0].sum()).all()
            assert (labels[:, half] == told[:, place]).all()
            assert not paired or {*half} == {i % n + side for i in half for side in (0, n)}


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("paired", [False, True])
def test_the_classifier_is_fitted_on_one_half_and_asked_of_the_other(strength: float, paired: bool) -> None:
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((40, 3)) * [1, 9, 1], rng.standard_normal((40 if paired else 25, 3)) + np.eye(3)[0]
    x[:, 2] = y[:, 2] = 4  # does not vary
    (fitted, held), labels = halved(40, len(y), 9, np.random.default_rng(3), paired, None)
    z, first = np.r_[x, y], np.arange(40 + len(y)) < 40
    z = (z - z[fitted].mean(0)) / np.maximum(z[fitted].std(0), 1e-9)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000).fit(z[fitted], first[fitted])
    told = model.predict(z[held])
    expected = [balanced_accuracy_score(label[held], told) for label in labels]
    found = two_sample.classifier(x, y, paired=paired, permutations=9, regularization=strength, rng=3)
    assert found.statistic == pytest.approx(expected[0])
    np.testing.assert_allclose(found.null, expected[1:])
    assert found.extras["total_variation_bound"] == pytest.approx(max(0, 2 * expected[0] - 1))
    assert found.excess == pytest.approx(expected[0] - np.mean(expected[1:]))
    assert (found.null_mean, found.null_deviation) == pytest.approx(
        (np.mean(expected[1:]), np.std(expected[1:], ddof=1))
    )
    assert found.pvalue == (1 + sum(e >= expected[0] - 1e-12 for e in expected[1:])) / 10


def test_the_spread_of_one_labelling_is_not_known_and_equal_ones_count() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2))
    assert np.isnan(two_sample.energy(x, x + 1, permutations=1).null_deviation)
    same = two_sample.energy(x, x, paired=True, permutations=19)  # every swap gives the same
    assert same.pvalue == 1
    assert np.isfinite(two_sample.energy(x, x, permutations=2).null_deviation)


@pytest.mark.parametrize(
    ("kinds", "single"),
    [
        ((np.float32, np.float32), True), ((np.float16, np.float32), True), ((np.float32, np.float64), False),
        ((np.float64, np.float32), False), ((np.int16, np.float32), False), ((np.float32, np.int32), False),
    ],
)  # fmt: skip
def test_samples_are_in_float32_where_neither_needs_more(kinds: tuple[type, type], single: bool) -> None:
    big = 2**14 - 1
    a, b, unit = samples(np.array([[1, 2], [3, 4]], kinds[0]), np.array([[5, -big]] * 2, kinds[1]), False)
    assert {a.dtype, b.dtype} == {np.dtype(np.float32 if single else np.float64)}
    assert unit == 2.0**14
    np.testing.assert_array_equal(a * unit, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(b * unit, [[5, -float(kinds[1](big))]] * 2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("paired", [True, False])
def test_copies_of_one_image_are_swapped_together(name: str, paired: bool) -> None:
    """Size at 5 % of 30 images x 3 copies, correlation 0.8; swapped one by one the same worlds reject far more."""
    rng, images = np.random.default_rng(8), np.repeat(np.arange(30), 3)
    groups = images if paired else np.concatenate([images, images + 30])
    hits = {True: 0, False: 0}
    for i in range(50):
        own = 2 * rng.standard_normal((2, 30, 1, 1)) + rng.standard_normal((2, 30, 3, 1))
        x, y = own.reshape(2, 90, 1)
        for grouped in hits:
            options = {"groups": groups} if grouped else {}
            hits[grouped] += ALL[name](x, y, paired=paired, permutations=39, rng=i, **options).pvalue <= 0.05
    assert hits[True] <= stats.binom.isf(1e-4, 50, 0.05)
    if name in ("mmd", "energy", "sliced_wasserstein"):
        assert hits[False] >= 8  # 3 are expected at 5 %


@pytest.mark.parametrize("name", ALL)
def test_units_change_no_pvalue(name: str) -> None:
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal((40, 2)) + 0.4
    one = ALL[name](x, y, permutations=39)
    for power in (-660, 660):
        other = ALL[name](np.ldexp(x, power), np.ldexp(y, power), permutations=39)
        assert other.pvalue == one.pvalue
        unit = 2.0**power if name in ("energy", "sliced_wasserstein") else 1.0
        assert other.statistic / unit == pytest.approx(one.statistic, rel=1e-6)
    single = ALL[name](*(np.ldexp(z.astype(np.float32), 90) for z in (x, y)), permutations=39)
    assert single.pvalue == pytest.approx(one.pvalue, abs=0.051)


def test_a_family_shares_its_labellings() -> None:
    rng = np.random.default_rng(10)
    labels = two_sample.labellings(30, 30, 199, 3, paired=True, groups=np.repeat(np.arange(10), 3))
    assert (labels[:, 0] == labels[:, 1]).all()
    x = rng.standard_normal((30, 2))
    found = [test(x, x + 0.2 * rng.standard_normal((30, 2)), paired=True, permutations=labels) for test in ALL.values()]
    assert all(result.null.shape == (199,) for result in found)
    np.testing.assert_allclose(two_sample.energy(x, x + 1, paired=True, permutations=labels).null[0],
                               reference_energy(x, x + 1, labels[1]), rtol=1e-9)  # fmt: skip
    with pytest.raises(ValueError, match="the true one first"):
        two_sample.mmd(x, x, paired=True, permutations=labels[1:])
    for wrong in (labels[:1], labels[0], labels[:, 1:], labels.astype(float), ~labels):
        with pytest.raises(ValueError, match=r"a number or labellings \(R \+ 1, 60\), the true one first"):
            two_sample.mmd(x, x, paired=True, permutations=wrong)
    assert two_sample.mmd(x, x, paired=True, permutations=labels[:2]).null.shape == (1,)
    for halves in (two_sample.kde_total_variation, two_sample.classifier):
        with pytest.raises(ValueError, match="must be a number where rows are no pairs"):
            halves(x, x, permutations=labels)
    with pytest.raises(ValueError, match="both samples"):
        two_sample.mmd(x, x, groups=np.zeros(60))


def reference_energy(x: np.ndarray, y: np.ndarray, label: np.ndarray) -> float:
    z = np.concatenate([x, y])
    distance = np.linalg.norm(z[:, None] - z, axis=2)
    a, b = label, ~label
    n, m = a.sum(), b.sum()
    within = distance[np.ix_(a, a)].sum() / (n * (n - 1)) + distance[np.ix_(b, b)].sum() / (m * (m - 1))
    return float(2 * distance[np.ix_(a, b)].mean() - within)


@pytest.mark.parametrize("factor", [3.0, 1 / 3, 0.1, 0.7, 1e-9])
def test_points_on_a_line_have_no_area(factor: float) -> None:
    x = np.random.default_rng(11).standard_normal(60)
    for dtype in (np.float64, np.float32):
        flat, moved = (np.stack([z, factor * z], axis=1).astype(dtype) for z in (x, x + 1))
        with pytest.raises(ValueError, match="lower-dimensional"):
            two_sample.kde_total_variation(flat, moved)


@pytest.mark.parametrize("name", [*TESTS, "classifier"])
def test_refusals(name: str) -> None:
    test = ALL[name]
    x = np.random.default_rng(0).standard_normal((20, 2))
    for a, b, options, message in (
        (x, x[:, :1], {}, "share their columns"),
        (x, x[:9], {"paired": True}, "equally many rows"),
        (x, np.where(np.eye(20, 2) > 0, np.nan, x), {}, "finite"),
        (x[0], x, {}, r"x must have shape .* got \(2,\)"),
        (x[:1], x, {}, "at least"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            test(a, b, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="permutations"):
        test(x, x + 1, permutations=0)


def test_total_variation_refuses_many_dimensions_and_few_points() -> None:
    x = np.random.default_rng(0).standard_normal((30, 4))
    with pytest.raises(ValueError, match="more than 3 columns"):
        two_sample.kde_total_variation(x, x)
    with pytest.raises(ValueError, match="at least 8 rows"):
        two_sample.kde_total_variation(x[:5, :3], x[:, :3])
    with pytest.raises(ValueError, match="lower-dimensional"):
        two_sample.kde_total_variation(x[:, [0, 0]], x[:, [0, 0]])


def test_peers_of_the_benchmark_agree() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((60, 2)), rng.standard_normal((50, 2)) + 0.5
    ours = total_variations(x, y, False, 3, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featdyn.statistics.two_sample.kde_tv._BLOCK", 2 * 110)  # two labellings at once
        np.testing.assert_allclose(total_variations(x, y, False, 3, 0), ours, rtol=1e-12)
    np.testing.assert_allclose(peers.total_variations(x, y, 3, 0), ours, rtol=1e-8)
    np.testing.assert_allclose(peers.scipy_total_variations(x, y, 3, 0), ours, rtol=1e-8)
