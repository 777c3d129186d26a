"""Sums over pairs against the float64 reference, their statistics against theory and SciPy."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import pairwise, set_threads
from tests.kernels.peers import pairwise as peers

# Absolute, in units of the largest term: float32 sums of terms right to 3e-7, whose errors average out.
ATOL = {np.float16: 1e-6, np.float32: 1e-6, np.float64: 1e-13}
dtypes = st.sampled_from(tuple(ATOL))
sizes = st.integers(2, 140)
depths = st.sampled_from((1, 2, 3, 16, 67))
seeds = st.integers(0, 999)
quick = settings(deadline=None, max_examples=30)
OCTAVES = 2.0 ** np.arange(-2, 3)


def draw(seed, n, m, d, dtype):
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((n, d)).astype(dtype), (rng.standard_normal((m, d)) + 0.2).astype(dtype)


@quick
@given(n=sizes, m=sizes, d=depths, dtype=dtypes, many=st.booleans(), seed=seeds)
def test_mmd2_matches_the_reference(n, m, d, dtype, many, seed):
    _, x, y = draw(seed, n, m, d, dtype)
    h = OCTAVES if many else 0.9
    got, expected = pairwise.mmd2(x, y, h), pairwise.mmd2(x, y, h, backend="reference")
    assert got.shape == ()
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=ATOL[dtype] * np.size(h))


@quick
@given(n=sizes, m=sizes, d=depths, dtype=dtypes, scale=st.sampled_from((1e-30, 1.0, 1e15)), seed=seeds)
def test_energy_distance_matches_the_reference(n, m, d, dtype, scale, seed):
    _, x, y = draw(seed, n, m, d, dtype)
    if dtype != np.float16:  # whose range is shorter than the scales
        x, y = x * dtype(scale), y * dtype(scale)
    expected = pairwise.energy_distance(x, y, backend="reference")
    atol = ATOL[dtype] * float(np.abs(x).max()) * d**0.5
    np.testing.assert_allclose(pairwise.energy_distance(x, y), expected, rtol=1e-6, atol=atol)


@quick
@given(n=sizes, m=sizes, d=depths, r=st.integers(1, 70), dtype=dtypes, seed=seeds)
def test_labellings_match_the_reference(n, m, d, r, dtype, seed):
    rng, x, y = draw(seed, n, m, d, dtype)
    points = np.concatenate([x, y])
    members = np.stack([rng.permutation(n + m) < rng.integers(2, n + m - 1) for _ in range(r)])
    for function, options in ((pairwise.mmd2_many, {"bandwidth": OCTAVES}), (pairwise.energy_distance_many, {})):
        expected = function(points, members, backend="reference", **options)
        atol = 5 * ATOL[dtype] * (len(OCTAVES) if options else float(np.abs(points).max()) * d**0.5)
        np.testing.assert_allclose(function(points, members, **options), expected, rtol=1e-6, atol=atol)


@pytest.mark.parametrize(("n", "m", "d"), [(1100, 5, 1), (130, 1300, 3), (150, 141, 513), (40, 150, 1100)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_than_one_tile(n, m, d, dtype):
    _, x, y = draw(3, n, m, d, dtype)
    members = np.arange(n + m)[None] < n
    points, h = np.concatenate([x, y]), d**0.5
    expected = pairwise.mmd2(x, y, h, backend="reference")
    np.testing.assert_allclose(pairwise.mmd2(x, y, h), expected, atol=ATOL[dtype])
    np.testing.assert_allclose(pairwise.mmd2_many(points, members, h)[0], expected, atol=3 * ATOL[dtype])
    expected = pairwise.energy_distance(x, y, backend="reference")
    np.testing.assert_allclose(pairwise.energy_distance(x, y), expected, atol=ATOL[dtype] * h)


def test_the_reference_is_the_definition():
    _, x, y = draw(0, 4, 3, 2, np.float64)

    def kernel(a, b):
        return sum(np.exp(-((a - b) @ (a - b)) / (2 * h * h)) for h in (0.5, 2.0))

    def length(a, b):
        return np.linalg.norm(a - b)

    def means(g):
        xx = np.mean([g(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        yy = np.mean([g(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        return xx + yy - 2 * np.mean([g(a, b) for a in x for b in y])

    assert pairwise.mmd2(x, y, (0.5, 2.0), backend="reference") == pytest.approx(means(kernel), rel=1e-12)
    assert pairwise.energy_distance(x, y, backend="reference") == pytest.approx(-means(length), rel=1e-12)


def test_energy_distance_is_that_of_scipy_without_its_bias():
    _, x, y = draw(0, 50, 70, 1, np.float64)
    biased = scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    within = [np.abs(z - z.T).mean() / (len(z) - 1) for z in (x, y)]  # what the zero diagonal takes from a mean
    assert pairwise.energy_distance(x, y) == pytest.approx(biased - sum(within), rel=1e-10)


@pytest.mark.parametrize("function", [pairwise.mmd2, pairwise.energy_distance])
def test_unbiased_when_the_laws_agree(function):
    rng = np.random.default_rng(0)
    values = [
        function(*rng.standard_normal((2, 12, 3)), *([1.0] if function is pairwise.mmd2 else [])) for _ in range(800)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5
    assert min(values) < 0


def test_a_true_shift_is_found_and_shuffled_labels_are_not():
    rng, x, y = draw(0, 120, 90, 4, np.float32)
    points, truth = np.concatenate([x, y + 0.3]), np.arange(210) < 120
    members = np.stack([truth, *(rng.permutation(truth) for _ in range(200))])
    for values in (pairwise.mmd2_many(points, members), pairwise.energy_distance_many(points, members)):
        assert (values[1:] >= values[0]).mean() < 0.02
        assert abs(values[1:].mean()) < 0.1 * values[0]


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_far_from_the_origin(offset):
    _, x, y = draw(0, 60, 50, 20, np.float64)
    x, y = ((z + offset).astype(np.float32) for z in (x, y))
    for function in (pairwise.mmd2, pairwise.energy_distance, pairwise.sliced_wasserstein):
        np.testing.assert_allclose(function(x, y), function(x, y, backend="reference"), rtol=1e-5, atol=2e-6)


def test_collapsed_clusters_far_apart():
    # Differences inside a cluster are 1e-4 of its distance from the centre: lost to a matrix-product form in float32.
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((5, 64))
    x, y = (
        (centres[rng.integers(5, size=200)] + 1e-4 * rng.standard_normal((200, 64))).astype(np.float32) for _ in "xy"
    )
    near = pairwise.mmd2(x, y, 1e-3)
    np.testing.assert_allclose(near, pairwise.mmd2(x, y, 1e-3, backend="reference"), rtol=1e-3)


def test_bandwidths_add_up():
    _, x, y = draw(0, 30, 40, 3, np.float64)
    assert pairwise.mmd2(x, y, [0.5, 2.0]) == pytest.approx(pairwise.mmd2(x, y, 0.5) + pairwise.mmd2(x, y, 2.0))


def test_median_bandwidth():
    x = np.array([[0.0], [1.0], [3.0]])
    assert pairwise.median_bandwidth(x) == 2.0
    assert pairwise.median_bandwidth(x[:1], x[1:]) == 2.0
    rng = np.random.default_rng(0)
    big = rng.standard_normal((5000, 3))
    full = pairwise.median_bandwidth(big[:2500])
    assert pairwise.median_bandwidth(big, max_points=500) == pytest.approx(full, rel=0.05)
    assert pairwise.median_bandwidth(torch.from_numpy(big)) == pairwise.median_bandwidth(big)
    assert pairwise.mmd2(big[:99], big[99:]) == pairwise.mmd2(big[:99], big[99:], pairwise.median_bandwidth(big))


def test_any_layout_and_any_kind_of_array():
    _, x, y = draw(0, 20, 30, 6, np.float32)
    expected = pairwise.mmd2(x[::2, ::2].copy(), y[:, ::2].copy(), 1.0)
    assert pairwise.mmd2(x[::2, ::2], np.asfortranarray(y)[:, ::2], 1.0) == expected
    tensor = pairwise.mmd2(torch.from_numpy(x)[::2, ::2], torch.from_numpy(y)[:, ::2], 1.0)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == ()
    assert float(tensor) == expected
    whole = np.arange(12).reshape(6, 2)
    assert pairwise.energy_distance(whole, whole[:3]) == pairwise.energy_distance(whole * 1.0, whole[:3] * 1.0)


PAIR = np.arange(6.0).reshape(2, 3)
LABELS = np.arange(4)[None] < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise.mmd2(PAIR[0], PAIR), r"x must have shape \(M, d\), got \(3,\)"),
        (lambda: pairwise.mmd2(PAIR, PAIR[:, :2], 1.0), r"share their last axis.*\(2, 3\) and \(2, 2\)"),
        (lambda: pairwise.mmd2(PAIR, PAIR[:1], 1.0), r"at least two points each, got \(2, 3\) and \(1, 3\)"),
        (lambda: pairwise.mmd2(PAIR, PAIR * np.nan, 1.0), r"y \(2, 3\) must be finite"),
        (lambda: pairwise.mmd2(PAIR, PAIR, -1.0), "bandwidth must be positive"),
        (lambda: pairwise.mmd2(PAIR, PAIR, np.ones((2, 2))), "bandwidth must be a number or a sequence"),
        (lambda: pairwise.mmd2(PAIR, PAIR, []), "bandwidth must be a number or a sequence"),
        (lambda: pairwise.mmd2(np.ones((3, 2)), np.ones((3, 2))), "median distance is zero"),
        (lambda: pairwise.energy_distance(PAIR, PAIR, backend="x"), "backend must be one of"),
        (lambda: pairwise.energy_distance_many(np.ones((4, 2)), LABELS[:, :3]), r"members must have shape \(R, 4\)"),
        (lambda: pairwise.energy_distance_many(np.ones((4, 2)), LABELS[0]), r"members must have shape \(R, 4\)"),
        (lambda: pairwise.energy_distance_many(np.ones((4, 2)), ~LABELS & LABELS), "mark at least 2 points"),
        (lambda: pairwise.median_bandwidth(PAIR[:1]), "at least two points"),
        (lambda: pairwise.median_bandwidth(PAIR * np.nan), "finite"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_are_boolean():
    with pytest.raises(TypeError, match="members must be boolean, got int64"):
        pairwise.mmd2_many(np.ones((4, 2)), LABELS.astype(np.int64), 1.0)


@pytest.fixture
def restore_threads():
    yield
    set_threads(None)


def test_safe_under_many_calling_threads(restore_threads):
    rng, x, y = draw(0, 1500, 1200, 3, np.float32)
    points = np.concatenate([x, y])
    members = np.stack([rng.permutation(2700) < 1500 for _ in range(3)])

    def call(_):
        return pairwise.mmd2(x, y, 1.0), pairwise.mmd2_many(points, members, 1.0)

    expected = call(None)
    with ThreadPoolExecutor(5) as pool:
        for got in pool.map(call, range(10)):
            assert got[0] == expected[0]
            np.testing.assert_array_equal(got[1], expected[1])
    set_threads(1)
    np.testing.assert_allclose(call(None)[1], expected[1], rtol=1e-9)


def test_memory_is_linear():
    _, x, y = draw(0, 9000, 9000, 2, np.float32)
    pairwise.mmd2(x[:9], y[:9], 1.0)
    members = np.arange(9000)[None] < [[4000], [5000]]
    pairwise.mmd2_many(x[:9], np.arange(9)[None] < [[3], [5]], 1.0)
    for call in (lambda: pairwise.mmd2(x, y, 1.0), lambda: pairwise.mmd2_many(x, members, 1.0)):
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 12e6  # a matrix of these pairs would be 324 MB


def test_peers_agree_with_the_reference():
    rng, x, y = draw(0, 40, 40, 5, np.float64)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    assert peers.torch_mmd2(*tensors, 1.2) == pytest.approx(pairwise.mmd2(x, y, 1.2, backend="reference"))
    assert peers.torch_energy(*tensors) == pytest.approx(pairwise.energy_distance(x, y, backend="reference"))
    members = np.stack([rng.permutation(80) < 30 for _ in range(4)])
    got = peers.torch_mmd2_many(torch.cat(tensors), torch.from_numpy(members), 1.2)
    expected = pairwise.mmd2_many(np.concatenate([x, y]), members, 1.2, backend="reference")
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    directions = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    expected = pairwise.sliced_wasserstein(x, y, directions=directions, backend="reference")
    assert peers.torch_sliced(*tensors, torch.from_numpy(directions)) == pytest.approx(expected)
