"""Sliced Wasserstein distances against the float64 reference, SciPy in one dimension, and known transports."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels.pairwise import sliced_wasserstein, sliced_wasserstein_many

RTOL = {np.float16: 1e-5, np.float32: 1e-5, np.float64: 1e-12}
quick = settings(deadline=None, max_examples=30)
orders = st.sampled_from((1, 1.0, 1.5, 2, 2.0, 3.0))


def draw(seed, n, m, d, dtype):
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((n, d)).astype(dtype), (rng.standard_normal((m, d)) * 1.5).astype(dtype)


@quick
@given(
    n=st.integers(1, 60), m=st.integers(1, 60), d=st.sampled_from((1, 2, 3, 67)), s=st.sampled_from((1, 5, 65, 130)),
    p=orders, dtype=st.sampled_from(tuple(RTOL)), seed=st.integers(0, 999),
)  # fmt: skip
def test_matches_the_reference(n, m, d, s, p, dtype, seed):
    _, x, y = draw(seed, n, m, d, dtype)
    options = {"p": p, "directions": s, "seed": seed}
    expected = sliced_wasserstein(x, y, backend="reference", **options)
    np.testing.assert_allclose(sliced_wasserstein(x, y, **options), expected, rtol=RTOL[dtype])


@quick
@given(n=st.integers(2, 120), d=st.sampled_from((1, 3, 67)), r=st.integers(1, 9), p=orders, seed=st.integers(0, 999))
def test_labellings_match_the_reference(n, d, r, p, seed):
    rng, x, _ = draw(seed, n, 1, d, np.float32)
    members = np.stack([rng.permutation(n) < rng.integers(1, n) for _ in range(r)])
    options = {"p": p, "directions": 7, "seed": seed}
    expected = sliced_wasserstein_many(x, members, backend="reference", **options)
    np.testing.assert_allclose(sliced_wasserstein_many(x, members, **options), expected, rtol=1e-5)


def test_one_dimension_is_that_of_scipy():
    _, x, y = draw(0, 31, 47, 1, np.float64)
    expected = scipy.stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert sliced_wasserstein(x, y, p=1) == pytest.approx(expected)


def test_a_shift_costs_its_projection():
    rng, x, _ = draw(0, 50, 1, 3, np.float64)
    u, shift = np.linalg.qr(rng.standard_normal((3, 3)))[0], np.array([1.0, -2.0, 3.0])
    expected = np.sqrt(np.mean((u @ shift) ** 2))
    assert sliced_wasserstein(x, x + shift, directions=u) == pytest.approx(expected)
    assert sliced_wasserstein(x, x + shift, directions=4 * u) == pytest.approx(expected)
    assert sliced_wasserstein(x, rng.permutation(x)) == pytest.approx(0.0, abs=1e-12)


def test_directions_are_uniform_and_repeatable():
    _, _, y = draw(0, 300, 300, 5, np.float64)
    x = y + np.eye(5)[0]
    assert sliced_wasserstein(x, y, directions=20_000) == pytest.approx(5**-0.5, rel=0.02)
    assert sliced_wasserstein(x, y, seed=1) == sliced_wasserstein(x, y, seed=1)
    assert sliced_wasserstein(x, y, seed=1) != sliced_wasserstein(x, y, seed=2)


def test_kinds_of_array():
    _, x, y = draw(0, 20, 30, 4, np.float32)
    expected = sliced_wasserstein(x[:, ::2].copy(), y[:, ::2].copy())
    got = sliced_wasserstein(torch.from_numpy(x)[:, ::2], torch.from_numpy(y)[:, ::2])
    assert isinstance(got, torch.Tensor)
    assert got.shape == ()
    assert float(got) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0.5}, "p must be at least 1"),
        ({"directions": 0}, "directions must be at least 1"),
        ({"directions": np.ones((2, 2))}, r"directions must have shape \(s, 3\), got \(2, 2\)"),
        ({"directions": np.zeros((2, 3))}, "not zero"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(np.ones((2, 3)), np.ones((2, 3)), **options)


def test_empty_samples_are_refused():
    with pytest.raises(ValueError, match="x must hold at least one point"):
        sliced_wasserstein(np.empty((0, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="mark at least 1 points"):
        sliced_wasserstein_many(np.ones((2, 3)), np.ones((1, 2), bool))
