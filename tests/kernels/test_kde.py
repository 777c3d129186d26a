"""Log-densities against the float64 reference, which is itself held against SciPy."""

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde, multivariate_normal

from featdyn_kernels import get_threads, kde, set_threads
from tests.kernels.peers import kde as peers

# Of a log in float32: coordinates are rounded once, d squares are summed one by one, exp2 is right to 2e-7.
TOLERANCE = {np.float16: (2e-6, 2e-5), np.float32: (2e-6, 2e-5), np.float64: (2e-14, 1e-13)}

dtypes = st.sampled_from(tuple(TOLERANCE))
sizes = st.integers(1, 140)
depths = st.sampled_from((1, 2, 3, 5, 16, 31, 67))
seeds = st.integers(0, 999)
quick = settings(deadline=None, max_examples=30)


def close(got, expected, dtype):
    rtol, atol = TOLERANCE[dtype]
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def draw(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return rng, *(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def bandwidths(rng, d):
    """One of every kind, none of them triangular by accident."""
    factor = np.linalg.qr(rng.standard_normal((d, d)))[0] * rng.uniform(0.3, 1.5, d)
    return [float(rng.uniform(0.2, 2.0)), rng.uniform(0.2, 2.0, d), factor]


@quick
@given(m=sizes, n=sizes, d=depths, dtype=dtypes, kind=st.integers(0, 2), weighted=st.booleans(), seed=seeds)
def test_log_density_matches_the_reference(m, n, d, dtype, kind, weighted, seed):
    rng, x, y = draw(seed, dtype, (m, d), (n, d))
    h = bandwidths(rng, d)[kind]
    w = rng.random(n) * (rng.random(n) < 0.7) + (np.arange(n) == n - 1) if weighted else None
    got = kde.log_density(x, y, h, w)
    assert got.dtype == np.result_type(dtype, np.float32)
    close(got, kde.log_density(x, y, h, w, backend="reference"), dtype)


@quick
@given(m=sizes, n=sizes, d=depths, r=st.integers(1, 70), dtype=dtypes, kind=st.integers(0, 2), seed=seeds)
def test_many_weight_vectors_match_the_reference(m, n, d, r, dtype, kind, seed):
    rng, x, y = draw(seed, dtype, (m, d), (n, d))
    h = bandwidths(rng, d)[kind]
    w = rng.random((r, n)) * (rng.random((r, n)) < 0.5)
    w[:, rng.integers(n)] += 0.1
    got = kde.log_density_many(x, y, h, w)
    assert got.shape == (r, m)
    close(got, kde.log_density_many(x, y, h, w, backend="reference"), dtype)


@pytest.mark.parametrize(("m", "n", "d"), [(9, 1500, 1), (70, 1100, 3), (67, 150, 513), (5, 140, 1100)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_than_one_tile(m, n, d, dtype):
    rng, x, y = draw(1, dtype, (m, d), (n, d))
    w = rng.random((3, n))
    close(kde.log_density(x, y, 0.7), kde.log_density(x, y, 0.7, backend="reference"), dtype)
    close(kde.log_density_many(x, y, 0.7, w), kde.log_density_many(x, y, 0.7, w, backend="reference"), dtype)


def test_the_reference_is_a_mixture_of_normals():
    rng, x, y = draw(0, np.float64, (5, 3), (4, 3))
    h, w = bandwidths(rng, 3)[2], rng.random(4)
    mixture = sum(wj * multivariate_normal(yj, h @ h.T).pdf(x) for wj, yj in zip(w / w.sum(), y, strict=True))
    np.testing.assert_allclose(kde.log_density(x, y, h, w, backend="reference"), np.log(mixture), rtol=1e-12)


@pytest.mark.parametrize(("rule", "name"), [(kde.scott, "scott"), (kde.silverman, "silverman")])
@pytest.mark.parametrize("d", [1, 3])
def test_rules_of_thumb_are_those_of_scipy(rule, name, d):
    _, x, y = draw(0, np.float64, (20, d), (50, d))
    y = y @ np.diag(np.arange(1, d + 1))
    np.testing.assert_allclose(kde.log_density(x, y, rule(y)), gaussian_kde(y.T, name).logpdf(x.T), rtol=1e-10)


@pytest.mark.parametrize(("d", "edge", "points"), [(1, 9.0, 2001), (2, 8.0, 161)])
def test_the_density_integrates_to_one(d, edge, points):
    _, y = draw(0, np.float32, (40, d))
    axis = np.linspace(-edge, edge, points)
    grid = np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    total = np.exp(kde.log_density(grid, y, 0.5)).sum() * (axis[1] - axis[0]) ** d
    assert total == pytest.approx(1.0, abs=1e-6)


@quick
@given(distance=st.floats(1.0, 1e12), d=depths, dtype=st.sampled_from((np.float32, np.float64)), seed=seeds)
def test_far_queries_have_finite_and_correct_logs(distance, d, dtype, seed):
    _, x, y = draw(seed, dtype, (7, d), (90, d))
    x = (x * dtype(distance)).astype(dtype)
    got = kde.log_density(x, y, 0.5)
    assert np.isfinite(got).all()
    close(got, kde.log_density(x, y, 0.5, backend="reference"), dtype)
    close(kde.log_density_many(x, y, 0.5, np.eye(90)[:3])[2], kde.log_density(x, y[2:3], 0.5), dtype)


def test_a_log_beyond_float32_is_minus_infinity():
    samples = np.zeros((3, 2), np.float32)
    assert kde.log_density(np.full((1, 2), 3e38, np.float32), samples, 1.0) == -np.inf
    assert kde.log_density(np.full((1, 2), 1e200), samples, 1.0) == -np.inf
    assert np.isfinite(kde.log_density(np.full((1, 2), 1e18, np.float32), samples, 1.0)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_vectors_that_are_zero_near_a_query(dtype):
    # The nearest samples of each query have weight zero, and those that count are hundreds of bandwidths away.
    _, y = draw(0, dtype, (60, 2))
    y[:30] += 60
    x = np.concatenate([y[:4], y[-4:]])
    w = np.stack([np.arange(60) < 30, np.arange(60) >= 30, np.arange(60) == 5, np.ones(60)]).astype(np.float64)
    got = kde.log_density_many(x, y, 0.5, w)
    close(got, kde.log_density_many(x, y, 0.5, w, backend="reference"), dtype)
    assert got.min() < -1e4


@pytest.mark.parametrize("ratio", [1e-30, 1e-300])
def test_weights_of_any_ratio(ratio):
    _, x, y = draw(0, np.float32, (9, 2), (20, 2))
    w = np.where(np.arange(20) % 2, 1.0, ratio)
    x[0] = y[0] + 100  # only light samples are near enough to count for the first queries
    y[1::2] += 200
    expected = kde.log_density(x, y, 0.5, w, backend="reference")
    close(kde.log_density(x, y, 0.5, w), expected, np.float32)
    close(kde.log_density_many(x, y, 0.5, w[None])[0], expected, np.float32)


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_far_from_the_origin(offset):
    _, x, y = draw(0, np.float64, (20, 40), (50, 40))
    x, y = ((z + offset).astype(np.float32) for z in (x, y))  # rounded to float32 first: that loss is the user's
    close(kde.log_density(x, y, 0.8), kde.log_density(x, y, 0.8, backend="reference"), np.float32)


def test_a_spread_of_many_bandwidths():
    _, y = draw(0, np.float32, (200, 2))
    close(kde.log_density(y[1:], y[:-1], 1e-4), kde.log_density(y[1:], y[:-1], 1e-4, backend="reference"), np.float32)
    close(kde.log_density(y[1:], y[:-1], 5e-3), kde.log_density(y[1:], y[:-1], 5e-3, backend="reference"), np.float32)


def test_an_ill_conditioned_factor():
    rng, z = draw(0, np.float64, (80, 6))
    mix = np.linalg.qr(rng.standard_normal((6, 6)))[0] * np.geomspace(1e-5, 1.0, 6)
    y = (z @ mix.T).astype(np.float32)
    h = kde.scott(y)
    close(kde.log_density(y[1:], y[:-1], h), kde.log_density(y[1:], y[:-1], h, backend="reference"), np.float32)


@quick
@given(n=st.integers(1, 40), seed=seeds)
def test_weights_mean_repetition(n, seed):
    rng, x, y = draw(seed, np.float64, (5, 3), (n, 3))
    counts = rng.integers(0, 4, n)
    counts[0] += 1
    expected = kde.log_density(x, np.repeat(y, counts, axis=0), 0.6)
    np.testing.assert_allclose(kde.log_density(x, y, 0.6, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(kde.log_density(x, y, 0.6, counts * 1e-40), expected, rtol=1e-12)
    np.testing.assert_allclose(kde.log_density_many(x, y, 0.6, counts[None])[0], expected, rtol=1e-12)


def test_kinds_of_bandwidth_agree():
    rng, x, y = draw(0, np.float64, (6, 4), (30, 4))
    expected = kde.log_density(x, y, 0.7)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    for h in (np.full(4, 0.7), 0.7 * np.eye(4), 0.7 * rotation, torch.tensor(0.7, dtype=torch.float64)):
        np.testing.assert_allclose(kde.log_density(x, y, h), expected, rtol=1e-12)


def test_any_layout_and_any_kind_of_array():
    _, x, y = draw(0, np.float32, (11, 6), (24, 6))
    expected = kde.log_density(x[:, ::2].copy(), y[::2, ::2].copy(), 0.5)
    np.testing.assert_array_equal(kde.log_density(x[:, ::2], y[::2, ::2], 0.5), expected)
    np.testing.assert_array_equal(kde.log_density(np.asfortranarray(x)[:, ::2], y[::2, ::2], 0.5), expected)
    tensor = kde.log_density(torch.from_numpy(x)[:, ::2].requires_grad_(), torch.from_numpy(y)[::2, ::2], 0.5)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor, expected)
    half = torch.from_numpy(x).bfloat16()
    np.testing.assert_array_equal(kde.log_density(half, half, 0.5), kde.log_density(half.float(), half.float(), 0.5))
    whole = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(kde.log_density(whole, whole, 1), kde.log_density(whole * 1.0, whole * 1.0, 1.0))


def test_no_queries():
    assert kde.log_density(np.empty((0, 3)), np.ones((2, 3)), 1.0).shape == (0,)
    assert kde.log_density_many(np.empty((0, 3)), np.ones((2, 3)), 1.0, np.ones((4, 2))).shape == (4, 0)


ONE = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kde.log_density(np.ones(3), ONE, 1.0), r"queries must have shape \(M, d\), got \(3,\)"),
        (lambda: kde.log_density(ONE, np.ones((2, 4)), 1.0), r"share their last axis.*\(2, 3\) and \(2, 4\)"),
        (lambda: kde.log_density(ONE, np.empty((0, 3)), 1.0), r"samples must hold at least one point"),
        (lambda: kde.log_density(np.empty((2, 0)), np.empty((2, 0)), 1.0), "d >= 1"),
        (lambda: kde.log_density(ONE * np.nan, ONE, 1.0), r"queries \(2, 3\) must be finite"),
        (lambda: kde.log_density(ONE, ONE * np.inf, 1.0), r"samples \(2, 3\) must be finite"),
        (lambda: kde.log_density(torch.full((1, 3), np.nan), ONE, 1.0), r"queries \(1, 3\) must be finite"),
        (lambda: kde.log_density(ONE, ONE, np.ones(2)), r"bandwidth must be a scalar or have shape \(3,\)"),
        (lambda: kde.log_density(ONE, ONE, 0.0), "bandwidth must be positive"),
        (lambda: kde.log_density(ONE, ONE, np.nan), "bandwidth must be finite"),
        (lambda: kde.log_density(ONE, ONE, np.ones((3, 3))), "singular"),
        (lambda: kde.log_density(ONE, ONE, 1.0, np.ones(3)), r"weights must have shape \(2,\), got \(3,\)"),
        (lambda: kde.log_density(ONE, ONE, 1.0, np.array([1.0, -1.0])), "must not be negative"),
        (lambda: kde.log_density(ONE, ONE, 1.0, np.zeros(2)), "positive entry"),
        (lambda: kde.log_density_many(ONE, ONE, 1.0, np.ones(2)), r"weights must have shape \(R, 2\), got \(2,\)"),
        (lambda: kde.log_density_many(ONE, ONE, 1.0, np.eye(3, 2)), "in every vector"),
        (lambda: kde.log_density(ONE, ONE, 1.0, backend="fpga"), "backend must be one of"),
        (lambda: kde.scott(ONE), "more rows than columns"),
        (lambda: kde.scott(np.ones((9, 3))), "lower-dimensional"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_errors_of_type():
    with pytest.raises(TypeError, match="queries must be real"):
        kde.log_density(ONE * 1j, ONE, 1.0)
    with pytest.raises(TypeError, match="samples must be a numpy array"):
        kde.log_density(ONE, np.array([[object()] * 3]), 1.0)


@pytest.fixture
def restore_threads():
    yield
    set_threads(None)


def test_threads_do_not_change_a_bit(restore_threads):
    rng, x, y = draw(0, np.float32, (3000, 3), (3000, 3))
    w = rng.random((5, 3000))
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        assert get_threads() == threads
        results.append((kde.log_density(x, y, 0.3), kde.log_density_many(x, y, 0.3, w)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_safe_under_many_calling_threads():
    dask = pytest.importorskip("dask")
    _, x, y = draw(0, np.float32, (1500, 2), (2000, 2))
    expected = kde.log_density(x, y, 0.3)
    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: kde.log_density(x, y, 0.3), range(12)):
            np.testing.assert_array_equal(got, expected)
    tasks = [dask.delayed(kde.log_density)(x, y, 0.3) for _ in range(12)]
    for got in dask.compute(*tasks, scheduler="threads", num_workers=6):
        np.testing.assert_array_equal(got, expected)


def test_memory_is_linear():
    rng, x, y = draw(0, np.float32, (15_000, 2), (15_000, 2))
    w = rng.random((4, 15_000))
    kde.log_density(x[:9], y[:9], 1.0)
    kde.log_density_many(x[:9], y[:9], 1.0, w[:, :9])
    for call in (lambda: kde.log_density(x, y, 0.3), lambda: kde.log_density_many(x, y, 0.3, w)):
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 12e6  # a matrix of these pairs would be 900 MB


def test_importing_is_cheap():
    code = (
        "import sys; from featdyn_kernels import kde, pairwise; print({'numba', 'triton', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def _expected(x, y):
    return kde.log_density(x, y, kde.scott(y), backend="reference")


@pytest.mark.parametrize("d", [1, 3, 40])
def test_peers_agree_with_the_reference(d):
    _, x, y = draw(0, np.float32, (30, d), (400, d))
    factor = torch.from_numpy(kde.scott(y)).float()
    expected = _expected(x, y)
    np.testing.assert_allclose(peers.scipy_logpdf(x, y), expected, rtol=1e-5)
    np.testing.assert_allclose(peers.scipy_evaluate(x, y), expected, rtol=1e-5)
    blocked = peers.blocked_torch(torch.from_numpy(x), torch.from_numpy(y), factor, block=16)
    np.testing.assert_allclose(blocked, expected, rtol=1e-4)


@pytest.mark.slow  # KeOps compiles C++ on first use
@pytest.mark.filterwarnings("ignore")
def test_keops_agrees_with_the_reference():
    pytest.importorskip("pykeops")
    _, x, y = draw(0, np.float32, (30, 2), (400, 2))
    x_tensor, y_tensor, factor = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(kde.scott(y)).float()
    for peer in (peers.keops_logsumexp, peers.keops_sum):
        np.testing.assert_allclose(peer(x_tensor, y_tensor, factor), _expected(x, y), rtol=1e-4)
