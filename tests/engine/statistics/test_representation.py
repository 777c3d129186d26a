"""Measures of one representation, beside definitions written out, known answers and another package."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, norm

from featdyn.statistics import richness, similarity
from featdyn.statistics.neighbours import nearest
from featdyn.statistics.representation import (
    class_manifolds,
    condition_number,
    gini,
    hoyer,
    local_pca,
    power_law,
    proportional_effective_rank,
    singular_values,
    two_nn,
)
from tests.strategies import sizes


def test_spectra():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 7)) + 100
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    np.testing.assert_allclose(singular_values(x), s)
    q = s / s.sum()
    assert proportional_effective_rank(x) == pytest.approx(np.exp(-(q * np.log(q)).sum()) / 7)
    assert proportional_effective_rank(np.eye(5, 9), of="weights") == pytest.approx(1)
    assert proportional_effective_rank(np.ones((4, 3)), of="weights") == pytest.approx(1 / 4)
    assert np.isnan(proportional_effective_rank(np.ones((4, 3))))
    assert condition_number([4.0, 2.0, 1e-9]) == (2.0, 2)
    for none in (np.zeros(3), []):
        assert np.isnan(condition_number(none)[0])
        assert condition_number(none)[1] == 0
    assert condition_number([1e-6, 1.0, 2e-6]) == (5e5, 2)
    assert condition_number([0.5, 2.0, 0.1], tolerance=0.1) == (4.0, 2)
    wide = np.linalg.svd(x.T, compute_uv=False)
    q = wide / wide.sum()
    assert proportional_effective_rank(x.T, of="weights") == pytest.approx(np.exp(-(q * np.log(q)).sum()) / 7)
    assert proportional_effective_rank(x, of="weights") == pytest.approx(np.exp(-(q * np.log(q)).sum()) / 30)
    np.testing.assert_allclose(singular_values(x, centre=False), wide)
    np.testing.assert_allclose(singular_values([[3.0, 4.0]], centre=False), [5])
    np.testing.assert_allclose(singular_values([[3.0], [-4.0]], centre=False), [5])


@settings(deadline=None)
@given(exponent=st.floats(0.2, 3), scale=st.floats(1e-6, 1e6), n=sizes(4, 50))
def test_a_power_law_is_found(exponent, scale, n):
    found = power_law(scale * np.arange(1, n + 1) ** -exponent)
    assert found.exponent == pytest.approx(exponent)
    assert found.fit == pytest.approx(1)
    assert (found.first, found.last) == (1, n)


def test_a_power_law_needs_three_and_takes_a_range():
    assert np.isnan(power_law([1.0, 0.5]).exponent)
    assert np.isnan(power_law(np.zeros(4)).exponent)
    for none in ([], np.zeros(4)):
        assert np.isnan(power_law(none).exponent)
        assert power_law(none).last == 0
    assert power_law([4.0, 1.0, 4 / 9]).exponent == pytest.approx(2)
    assert np.isnan(power_law([2.0, 2.0, 2.0]).fit)
    rng, tail = np.random.default_rng(0), np.arange(1, 9) ** -1.0
    noisy = np.sort(tail * rng.uniform(0.8, 1.25, 8))[::-1]
    for first, last in ((1, 8), (2, 7), (3, 5), (3, 4), (1, 99)):
        found, end = power_law(noisy, first=first, last=last), min(last, 8)
        assert (found.first, found.last) == (first, end)
        if end - first < 2:
            assert np.isnan([found.exponent, found.fit]).all()
            continue
        line = linregress(np.log(np.arange(first, end + 1)), np.log(noisy[first - 1 : end]))
        assert (found.exponent, found.fit) == pytest.approx((-line.slope, line.rvalue**2))
    small = np.r_[tail, 2e-4, 5e-5]
    assert [power_law(small, tolerance=t).last for t in (1e-2, 1e-3)] == [9, 10]
    assert power_law(np.r_[tail, 2e-12, 5e-13]).last == 9
    values = np.r_[100.0, np.arange(2, 20) ** -1.5, np.zeros(4)]
    assert power_law(values, first=2).exponent == pytest.approx(1.5)
    assert power_law(values, first=2).last == 19


@settings(deadline=None)
@given(n=sizes(2, 30), seed=st.integers(0, 99), scale=st.floats(1e-200, 1e200))
def test_sparsity(n, seed, scale):
    x = np.random.default_rng(seed).standard_normal(n)
    # Half the mean absolute difference over the mean: the Gini index of economists.
    wanted = np.abs(np.abs(x)[:, None] - np.abs(x)).mean() / (2 * np.abs(x).mean())
    assert gini(scale * x) == pytest.approx(wanted)
    assert hoyer(scale * x) == pytest.approx((n**0.5 - abs(x).sum() / np.linalg.norm(x)) / (n**0.5 - 1))
    assert gini(np.ones(n)) == pytest.approx(0, abs=1e-12)
    assert hoyer(np.ones(n)) == pytest.approx(0, abs=1e-12)
    assert gini(np.eye(1, n)[0]) == pytest.approx(1 - 1 / n)
    assert hoyer(np.eye(1, n)[0]) == pytest.approx(1)


def test_sparsity_of_nothing():
    assert np.isnan(gini(np.zeros(3)))
    assert np.isnan(hoyer(np.zeros(3)))
    assert np.isnan(hoyer(np.ones(1)))
    assert np.isnan(hoyer([[2.0], [0.0], [-3.0]])).tolist() == [True] * 3
    assert gini(np.ones((2, 4))).shape == (2,)


@settings(deadline=None, max_examples=20)
@given(n=sizes(5, 300), seed=st.integers(0, 99), shift=st.sampled_from([0.0, 1e6]))
def test_neighbours_are_those_of_all_distances(n, seed, shift):
    x = np.random.default_rng(seed).standard_normal((n, 3)) + shift
    places, distances = nearest(x, 4)
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(distances, np.sort(apart, 1)[:, :4], rtol=1e-9)
    assert (places == np.argsort(apart, 1)[:, :4]).all()


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("fit", ["likelihood", "line"])
def test_the_dimension_of_a_plane(d, fit):
    rng = np.random.default_rng(d)
    x = rng.random((1500, d)) @ np.linalg.qr(rng.standard_normal((20, d)))[0].T
    assert two_nn(x, fit=fit).dimension == pytest.approx(d, rel=0.12)
    assert local_pca(x) == d


@pytest.mark.parametrize("dropped", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [3, 5, 6, 41])
def test_the_dimension_is_that_of_the_ratios_that_are_kept(n, dropped):
    x = np.random.default_rng(n).standard_normal((n, 3))
    apart = np.sort(np.linalg.norm(x[:, None] - x, axis=2), 1)
    ratios = np.sort(np.log(apart[:, 2] / apart[:, 1]))
    kept = int(n * (1 - dropped))
    likely, line = (two_nn(x, dropped=dropped, fit=fit) for fit in ("likelihood", "line"))
    assert (likely.samples, likely.duplicates) == (n, 0)
    if kept < 3:
        assert np.isnan([likely.dimension, line.dimension]).all()
        return
    censored = np.minimum(ratios, ratios[kept - 1])
    assert likely.dimension == pytest.approx(kept / censored.sum())
    several = min(kept, n - 1)  # the empirical law is 1 at the largest
    mu, level = ratios[:several, None], -np.log(1 - np.arange(1, several + 1) / n)
    assert line.dimension == pytest.approx(np.linalg.lstsq(mu, level)[0][0])


@pytest.mark.parametrize("p", [1, 3, 5, 6, 12])
@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_local_components_are_those_of_each_neighbourhood(p, share, monkeypatch):
    x, k, counts = np.random.default_rng(p).standard_normal((31, p)), 5, []
    for apart in np.linalg.norm(x[:, None] - x, axis=2):
        near = x[np.argsort(apart)[1 : k + 1]]
        held = np.cumsum(np.linalg.svd(near - near.mean(0), compute_uv=False) ** 2)
        counts.append(int((held < share * held[-1] * (1 - 1e-9)).sum()) + 1)
    assert local_pca(x, k=k, share=share) == np.median(counts)
    monkeypatch.setattr("featdyn.statistics.representation.dimension.PIECE", 7)
    assert local_pca(x, k=k, share=share) == np.median(counts)
    for few in (1, k):
        assert np.isnan(local_pca(x[:few], k=k))
    assert np.isfinite(local_pca(x[: k + 1], k=k))


def test_duplicates_are_left_out_and_counted():
    x = np.random.default_rng(0).random((50, 2))
    for copies in (7, 45):
        found = two_nn(np.r_[x, x[:copies]])
        assert (found.duplicates, found.samples) == (copies, 50)
        assert found.dimension == two_nn(x).dimension  # a copy is nobody's second neighbour
    assert np.isnan(two_nn(np.ones((9, 2))).dimension)
    assert np.isnan(local_pca(np.ones((40, 2))))
    assert np.isnan(local_pca(x[:30]))
    with pytest.raises(ValueError, match="at least 3 rows"):
        two_nn(x[:2])


def test_the_dimension_is_another_package_s():
    skdim = pytest.importorskip("skdim")
    rng = np.random.default_rng(1)
    for p in (3, 30):
        x = rng.standard_normal((400, p)) * np.linspace(0.2, 1, p)
        assert two_nn(x, fit="line").dimension == pytest.approx(skdim.id.TwoNN().fit(x).dimension_, rel=1e-5)
        theirs = skdim.id.TwoNN(method="mle").fit(x).dimension_  # times (k - 1) / k, without bias
        assert two_nn(x).dimension * 359 / 360 == pytest.approx(theirs, rel=1e-5)


def test_manifolds_are_those_of_the_covariances():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 3, 5, 7], [8, 9, 10, 1])
    x = rng.standard_normal((28, 6)) * np.arange(1, 7) + 9 * rng.standard_normal((8, 6))[labels]
    found = class_manifolds(x, labels)
    assert found.classes.tolist() == [0, 3, 5]
    means = np.stack([x[labels == c].mean(0) for c in (0, 3, 5)])
    m = means - means.mean(0)
    for i, c in enumerate((0, 3, 5)):
        s = np.cov(x[labels == c].T, bias=True)
        assert found.radius[i] == pytest.approx(np.sqrt(np.trace(s)) / np.linalg.norm(m[i]))
        assert found.dimension[i] == pytest.approx(dimension_by_tuples(x[labels == c]))
        size = found.radius[i] * np.sqrt(found.dimension[i])
        balls = (1 + size**2) * norm.cdf(size) + size * norm.pdf(size)
        assert found.capacity[i] == pytest.approx((1 + found.radius[i] ** 2) / balls)
    cosines = [m[i] @ m[j] / np.linalg.norm(m[i]) / np.linalg.norm(m[j]) for i in range(3) for j in range(i)]
    assert found.centre_correlation == pytest.approx(np.abs(cosines).mean())
    # Gardner: points are told apart up to two for each dimension, large balls hardly.
    point = class_manifolds(np.repeat(np.eye(3), 4, axis=0), np.repeat([0, 1, 2], 4))
    np.testing.assert_allclose(point.capacity, 2)
    assert (found.capacity < 2).all()
    with pytest.raises(ValueError, match="two classes with two samples"):
        class_manifolds(x, np.arange(28))


def dimension_by_tuples(x):
    """Means over all pairs, and all tuples of four different samples: E (x_i - x_j)^2 / 2 is the trace, and so on."""
    pairs = np.array(list(permutations(range(len(x)), 2)))
    fours = np.array(list(permutations(range(len(x)), 4)))
    trace = (np.square(x[pairs[:, 0]] - x[pairs[:, 1]]).sum(1) / 2).mean()
    steps = [x[fours[:, a]] - x[fours[:, a + 1]] for a in (0, 2)]
    return trace**2 / (np.square((steps[0] * steps[1]).sum(1)) / 4).mean()


def test_the_dimension_of_a_class_does_not_grow_with_its_samples_and_seven_tell_none():
    rng = np.random.default_rng(8)
    scale = np.linspace(0.5, 2, 60)
    true = np.square(scale).sum() ** 2 / (scale**4).sum()
    found = {}
    for n in (20, 40, 160):
        labels = np.repeat(np.arange(20), n)
        x = rng.standard_normal((len(labels), 60)) * scale + 5 * rng.standard_normal((20, 60))[labels]
        found[n] = class_manifolds(x, labels).dimension.mean()
    np.testing.assert_allclose(list(found.values()), true, rtol=0.12)  # covariances of 20 samples have at most 19
    few = class_manifolds(rng.standard_normal((27, 5)), np.repeat([0, 1], [20, 7]))
    assert np.isfinite(few.dimension).tolist() == np.isfinite(few.capacity).tolist() == [True, False]
    assert np.isfinite(few.radius).all()


@pytest.mark.parametrize("shots", [1, 3, 5])
def test_the_signal_to_noise_is_that_of_the_covariances(shots):
    """Sorscher et al., equation 1, in the unit of the first class's radius, with its axes."""
    rng, labels = np.random.default_rng(5), np.repeat([0, 1, 2], [4, 9, 6])
    x = rng.standard_normal((19, 5)) * np.linspace(1, 2, 5) * (1 + labels[:, None])
    x += rng.standard_normal((3, 5))[labels]
    found = class_manifolds(x, labels, **({} if shots == 5 else {"shots": shots})).signal_to_noise
    for a, b in permutations(range(3), 2):
        own, other = (x[labels == c] for c in (a, b))
        first, second = (np.cov(z.T, bias=True) for z in (own, other))
        unit = np.trace(first)
        step = (own.mean(0) - other.mean(0)) / np.sqrt(unit)
        dimension = unit**2 / np.trace(first @ first)
        signal = step @ step + (np.trace(second) / unit - 1) / shots
        noise = np.sqrt(1 / (dimension * shots) + step @ second @ step / unit / shots + step @ first @ step / unit)
        assert found[a, b] == pytest.approx(signal / 2 / noise)
    assert np.isnan(found.diagonal()).all()


@pytest.mark.parametrize("shots", [5, 20])
def test_the_signal_to_noise_foretells_errors(shots):
    rng = np.random.default_rng(3)
    scale = np.r_[np.linspace(0.5, 1.5, 40), np.zeros(40)]  # they vary along other directions
    draw = lambda c, n: rng.standard_normal((n, 80)) * (scale, 0.8 * scale[::-1])[c] + c * 0.25  # noqa: E731
    x = np.r_[draw(0, 4000), draw(1, 4000)]
    found = class_manifolds(x, np.repeat([0, 1], 4000), shots=shots)
    wrong = []
    for _ in range(300):
        a, b, test = draw(0, shots).mean(0), draw(1, shots).mean(0), draw(0, 40)
        wrong.append((((test - a) ** 2).sum(1) > ((test - b) ** 2).sum(1)).mean())
    assert np.mean(wrong) == pytest.approx(norm.cdf(-found.signal_to_noise[0, 1]), abs=0.02)


def test_a_class_in_one_point_has_no_dimension():
    rng = np.random.default_rng(6)
    means, labels = rng.standard_normal((3, 9)) * 1e3, np.repeat([0, 1, 2], 7)
    found = class_manifolds(means[labels], labels)  # but for the rounding of their means
    np.testing.assert_array_equal(found.radius, 0)
    assert np.isnan(found.dimension).all()
    assert np.isnan(found.signal_to_noise).all()
    with pytest.raises(ValueError, match=r"labels must have shape \(21,\), got \(20,\)"):
        class_manifolds(means[labels], labels[1:])


@pytest.mark.parametrize(("step", "seen"), [(1e-9, True), (1e-11, True), (1e-14, False)])
def test_a_class_that_varies_by_rounding_alone_is_one_point(step, seen):
    rng, labels = np.random.default_rng(9), np.repeat([0, 1], 8)
    x = np.eye(2, 5)[labels] + 1 + step * rng.standard_normal((16, 5))
    found = class_manifolds(x, labels)
    assert np.isfinite(found.dimension).tolist() == [seen] * 2
    assert (found.radius > 0).tolist() == [seen] * 2


def test_eight_samples_have_a_dimension_and_a_class_at_the_centre_no_radius():
    x = np.random.default_rng(11).standard_normal((16, 4))
    for count, seen in ((8, True), (7, False)):
        at = np.r_[:count, 8 : 8 + count]
        found = class_manifolds(x[at], np.repeat([0, 1], count))
        assert np.isfinite(found.dimension).tolist() == [seen] * 2
    spread = np.array([[1.0, 0], [-1, 0]])
    middle = class_manifolds(
        np.concatenate([spread, spread + np.array([0, 3]), spread - np.array([0, 3])]), np.repeat([0, 1, 2], 2)
    )
    np.testing.assert_allclose(middle.radius, [np.nan, 1 / 3, 1 / 3])


def test_classes_of_two_samples_have_a_radius():
    x = np.random.default_rng(10).standard_normal((7, 3)) * 2
    found = class_manifolds(x, np.array([4, 4, 1, 1, 1, 2, 4]) // np.array([1, 1, 1, 1, 1, 1, 4]))
    assert found.classes.tolist() == [1, 4]
    half = np.linalg.norm(x[0] - x[1]) / 2
    apart = np.linalg.norm(x[:2].mean(0) - x[[2, 3, 4, 6]].mean(0)) / 2
    assert found.radius[1] == pytest.approx(half / apart)


def test_words_and_labels_that_mean_nothing_are_refused():
    x, labels = np.random.default_rng(7).standard_normal((30, 4)), np.arange(30) % 3
    for work, said in (
        (lambda: two_nn(x, fit="lines"), "fit must be 'likelihood' or 'line', got 'lines'"),
        (lambda: power_law([3.0, 2.0, 1.0], first=0), "first must be at least 1, got 0"),
        (lambda: class_manifolds(x, labels - 1), "labels must be integers from 0"),
        (lambda: similarity.dissimilarities(x, of="cosine"), "of must be 'correlation' or 'euclidean', got 'cosine'"),
        (lambda: similarity.rsa(x[:, 0], x[:, 1], compare="kendall"), "compare must be 'spearman' or 'cosine'"),
        (lambda: similarity.svcca(x, x, share=2), "share must be above 0 and at most 1, got 2"),
        (lambda: richness.low_rank_measure(x, x[:, :2], centring="output"), "centring must be 'outputs' or"),
        (lambda: richness.low_rank_measure(x, x[:, :2], tolerance=5), "tolerance must lie between 0 and 1, got 5"),
        (
            lambda: richness.neural_collapse(x, labels, outputs=x[:, :2]),
            "a column for each class, got 2 and the label 2",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            work()


def test_a_single_feature_has_one_dimension():
    assert 0.5 < two_nn(np.random.default_rng(1).random((200, 1))).dimension < 1.5
    x, labels = np.random.default_rng(0).standard_normal((20, 1)), np.arange(20) % 2
    assert class_manifolds(x + 5 * labels[:, None], labels).dimension.tolist() == [1.0, 1.0]
