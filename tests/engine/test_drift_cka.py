"""CKA against the textbook formulas, and what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.statistics import cka
from featdyn.statistics.cka import Grams
from tests.strategies import sizes


def aligned(features):
    grams = Grams(len(features), len(features[0]))
    for index, x in enumerate(features):
        grams.put(index, x @ x.T)
    return grams.alignment()


def naive_biased(x, y):
    n = len(x)
    h = np.eye(n) - 1 / n
    hsic = lambda a, b: np.trace(a @ a.T @ h @ b @ b.T @ h) / (n - 1) ** 2  # noqa: E731
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def naive_unbiased(x, y):
    """Song et al., equation 5, with matrices written out."""
    n = len(x)

    def hsic(a, b):
        k, g = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(g, 0)
        one = np.ones(n)
        first = np.trace(k @ g) + (one @ k @ one) * (one @ g @ one) / ((n - 1) * (n - 2))
        return (first - 2 / (n - 2) * (one @ k @ g @ one)) / (n * (n - 3))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def draw(seed, n, widths):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 3))
    return [shared @ rng.standard_normal((3, w)) + rng.standard_normal((n, w)) + 5 for w in widths]


@settings(deadline=None, max_examples=25)
@given(n=sizes(5, 23), seed=st.integers(0, 999))
def test_both_estimators_match_their_formulas(n, seed):
    features = draw(seed, n, (4, 1, 7, 40))
    found = aligned(features)
    for i, x in enumerate(features):
        for j, y in enumerate(features):
            assert found.biased[i, j] == pytest.approx(naive_biased(x, y), abs=2e-5)
            assert np.isnan(found.debiased[i, j]) or found.debiased[i, j] == pytest.approx(
                naive_unbiased(x, y), rel=1e-3, abs=1e-4
            )


def test_the_bounds_are_those_of_the_jackknife():
    features = draw(3, 17, (6, 9, 2))
    found = aligned(features)
    for i, x in enumerate(features):
        for j, y in enumerate(features):
            left_out = [naive_unbiased(np.delete(x, k, 0), np.delete(y, k, 0)) for k in range(17)]
            error = np.sqrt(16 / 17 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
            assert found.high[i, j] - found.debiased[i, j] == pytest.approx(1.96 * error, rel=1e-3, abs=1e-6)
            assert found.debiased[i, j] - found.low[i, j] == pytest.approx(1.96 * error, rel=1e-3, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(n=sizes(6, 30), seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_rotation_scale_and_shift_change_nothing(n, seed, scale):
    rng = np.random.default_rng(seed)
    (x,) = draw(seed, n, (8,))
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    found = aligned([x, scale * x @ rotation + rng.standard_normal(8)])
    np.testing.assert_allclose(found.biased, 1, atol=1e-5)
    np.testing.assert_allclose(found.debiased, 1, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(n=sizes(2, 23), seed=st.integers(0, 999))
def test_it_lies_within_its_range(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 1)).astype(np.float32)
    found = aligned([x, 3 * x, -x, x @ rng.standard_normal((1, 7)).astype(np.float32)])
    assert found.biased.max() <= 1
    assert found.biased == pytest.approx(1, abs=1e-5)


def test_of_independent_features_the_debiased_cka_has_mean_zero():
    rng = np.random.default_rng(0)
    found = [aligned(rng.standard_normal((2, 20, 50))) for _ in range(300)]
    debiased = np.array([f.debiased[0, 1] for f in found])
    assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(300)
    assert np.mean([f.biased[0, 1] for f in found]) > 0.5  # which is why there is another one


def test_the_interval_covers_the_truth():
    """Half the features shared: the CKA of the populations is known, because covariances are."""
    rng = np.random.default_rng(1)
    truth, covered = 0.5, 0  # |Sigma_xy|^2 / (|Sigma_xx| |Sigma_yy|) = 5 / 10
    for _ in range(100):
        shared, x, y = rng.standard_normal((3, 80, 5))
        found = aligned([np.hstack([shared, x]), np.hstack([shared, y])])
        covered += found.low[0, 1] <= truth <= found.high[0, 1]
    assert 85 <= covered <= 100


def test_without_bounds_the_rest_is_the_same_and_another_package_s():
    features = draw(8, 21, (3, 7, 2))
    grams = Grams(3, 21)
    for index, x in enumerate(features):
        grams.put(index, x @ x.T)
    with_bounds, without = grams.alignment(), grams.alignment(bounds=False)
    np.testing.assert_array_equal(with_bounds.biased, without.biased)
    np.testing.assert_array_equal(with_bounds.debiased, without.debiased)
    assert np.isnan(without.low).all()
    other = pytest.importorskip("cka")
    tensors = [torch.from_numpy(x) for x in features]
    theirs = other.cka_from_features(tensors, tensors).numpy()
    np.testing.assert_allclose(np.maximum(without.debiased, 0), theirs, atol=1e-5)


def test_a_scratch_file_changes_nothing(monkeypatch):
    features = draw(5, 14, (3, 6))
    inside = aligned(features)
    monkeypatch.setattr(cka, "HELD", 0)
    outside = aligned(features)
    assert np.array_equal(inside.debiased, outside.debiased)
    assert np.array_equal(inside.low, outside.low)


def test_what_is_constant_or_not_finite_has_none():
    good, flat = draw(6, 9, (4,))[0], np.ones((9, 2))
    found = aligned([good, flat, np.where(np.eye(9, 4) > 0, np.nan, good), good])
    for values in (found.biased, found.debiased, found.low):
        assert np.isnan(values[[1, 2]]).all()
        assert np.isfinite(values[np.ix_([0, 3], [0, 3])]).all()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_too_few_samples(n):
    found = aligned(draw(7, n, (5, 6)))
    assert np.isfinite(found.biased).all()
    assert np.isnan(found.low).all()
    assert np.isnan(found.debiased).all() == (n < 4)
