"""Distances and densities at scales whose squares no float64 holds, and the same bits on any number of threads."""

import numpy as np
import pytest

from featdyn_kernels import kde, moments, pairwise, paths, set_threads

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 3)), RNG.standard_normal((25, 3)) + 0.5
MEMBERS = np.arange(30) < np.array([[12], [17]])
SCALES = (1e200, 1e-200, 1e300, 2.0**-1000)

LENGTHS = {
    "energy": lambda c, **how: pairwise.energy_distance(c * X, c * Y, **how),
    "energy many": lambda c, **how: pairwise.energy_distance_many(c * X, MEMBERS, **how),
    "sliced": lambda c, **how: pairwise.sliced_wasserstein(c * X, c * Y, directions=9, **how),
    "sliced many": lambda c, **how: pairwise.sliced_wasserstein_many(c * X, MEMBERS, p=3.0, directions=9, **how),
}
PURE = {
    "mmd": lambda c, **how: pairwise.mmd2(c * X, c * Y, **how),
    "mmd, given bandwidths": lambda c, **how: pairwise.mmd2(c * X, c * Y, [0.5 * c, c], **how),
    "mmd many": lambda c, **how: pairwise.mmd2_many(c * X, MEMBERS, **how),
    "kde": lambda c, **how: kde.log_density(c * Y, c * X, kde.scott(c * X), **how) + 3 * np.log(c),
    "kde many": lambda c, **how: (
        kde.log_density_many(c * Y, c * X, c * np.array([1.0, 2, 3]), MEMBERS * 1.0, **how) + 3 * np.log(c)
    ),
}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", sorted(LENGTHS) + sorted(PURE))
def test_statistics_go_with_the_scale(name, scale, backend):
    call = LENGTHS.get(name) or PURE[name]
    expected = call(1.0, backend="reference")
    found = np.asarray(call(scale, backend=backend)) / (scale if name in LENGTHS else 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_float32_at_its_own_ends(scale):
    x, y = (scale * X).astype(np.float32), (scale * Y).astype(np.float32)
    wide = x.astype(np.float64), y.astype(np.float64)
    for call in (pairwise.energy_distance, pairwise.sliced_wasserstein, pairwise.mmd2):
        np.testing.assert_allclose(call(x, y), call(*wide, backend="reference"), rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_rules_of_thumb_go_with_the_scale(scale):
    for rule in (kde.scott, kde.silverman, pairwise.median_bandwidth):
        np.testing.assert_allclose(rule(scale * X) / scale, rule(X), rtol=1e-12)
    covariance = np.cov(X, rowvar=False) * 30 ** (-2 / 7)
    factor = kde.scott(X)
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-12)
    assert np.array_equal(factor, np.tril(factor))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("factor", [3, 1 / 3, 0.1, 0.7, 1.1, -1e3])
def test_points_on_a_line_are_refused(factor, dtype):
    x = RNG.standard_normal((400, 1)).astype(dtype)
    third = (factor * x.astype(np.float64)).astype(dtype)  # rounded, as what is stored is
    line = np.concatenate([x + x.dtype.type(1), RNG.standard_normal((400, 1)).astype(dtype), third], axis=1)
    with pytest.raises(ValueError, match=r"samples \(400, 3\) lie in a lower-dimensional space"):
        kde.scott(line)


def test_strong_correlation_is_no_line():
    x = RNG.standard_normal((400, 1))
    near = np.concatenate([x, x + 1e-5 * RNG.standard_normal((400, 1))], axis=1)
    factor = kde.scott(near)
    np.testing.assert_allclose(factor @ factor.T, np.cov(near, rowvar=False) * 400 ** (-2 / 6), rtol=1e-9)
    kde.scott((1e3 * near).astype(np.float32) * np.float32([1, 1e-12]))  # scales of columns are no matter


def test_a_constant_column_is_refused():
    with pytest.raises(ValueError, match="lower-dimensional"):
        kde.scott(np.c_[X, np.full(30, 0.1)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(dtype):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((700, 5)).astype(dtype), rng.standard_normal((650, 5)).astype(dtype)
    members = rng.permuted(np.tile(np.arange(700) < 300, (40, 1)), axis=1)
    calls = [
        lambda: pairwise.energy_distance(x, y),
        lambda: pairwise.energy_distance_many(x, members),
        lambda: pairwise.mmd2(x, y),
        lambda: pairwise.mmd2_many(x, members),
        lambda: pairwise.sliced_wasserstein(x, y, directions=70),
        lambda: pairwise.sliced_wasserstein_many(x, members, directions=20),
        lambda: kde.log_density(x, y, 0.4),
        lambda: kde.log_density_many(x, x, 0.4, members * 1.0),
        lambda: kde.leave_one_out(x, 0.4),
        lambda: moments.accumulate(x).scatter,
        lambda: paths.squared_distances(x.reshape(70, 10, 5)),
    ]
    try:
        set_threads(1)
        expected = [call() for call in calls]
        for threads in (2, 3, 5):
            set_threads(threads)
            for call, wanted in zip(calls, expected, strict=True):
                assert np.array_equal(call(), wanted)
    finally:
        set_threads(None)
