"""Triton's log-densities against the float64 reference: on a GPU, or under Triton's interpreter on small odd shapes."""

import numpy as np
import pytest
import torch

from featdyn_kernels import kde
from featdyn_kernels._dispatch import interpreting

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)
TOLERANCE = {np.float16: (5e-6, 2e-5), np.float32: (5e-6, 2e-5), np.float64: (1e-12, 1e-12)}


def close(got, expected, dtype):
    rtol, atol = TOLERANCE[dtype]
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def draw(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return rng, *(rng.standard_normal(shape).astype(dtype) for shape in shapes)


SHAPES = [(1, 1, 1), (1, 2, 5), (7, 131, 1), (67, 129, 3), (3, 257, 17), (65, 31, 40)]


@pytest.mark.parametrize(("m", "n", "d"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_density(m, n, d, dtype):
    rng, x, y = draw(m, dtype, (m, d), (n, d))
    w = rng.random(n) * (rng.random(n) < 0.7) + (np.arange(n) == n - 1)
    h = np.linalg.qr(rng.standard_normal((d, d)))[0] * rng.uniform(0.5, 1.5, d)
    for weights in (None, w):
        expected = kde.log_density(x, y, h, weights, backend="reference")
        close(kde.log_density(x, y, h, weights, backend="gpu"), expected, dtype)


@pytest.mark.parametrize(("m", "n", "d"), SHAPES)
@pytest.mark.parametrize("r", [1, 19, 150])
def test_log_density_many(m, n, d, r):
    rng, x, y = draw(m, np.float32, (m, d), (n, d))
    w = rng.random((r, n)) * (rng.random((r, n)) < 0.5) + (np.arange(n) == 0)
    expected = kde.log_density_many(x, y, 0.8, w, backend="reference")
    close(kde.log_density_many(x, y, 0.8, w, backend="gpu"), expected, np.float32)


def test_columns_are_split_when_rows_are_few():
    rng, x, y = draw(0, np.float32, (3, 2), (8200, 2))
    w = rng.random((2, 8200))
    y[4100:] += 50  # the nearest samples of a query are in one split only
    close(kde.log_density(x, y, 0.5, backend="gpu"), kde.log_density(x, y, 0.5, backend="reference"), np.float32)
    expected = kde.log_density_many(x, y, 0.5, w, backend="reference")
    close(kde.log_density_many(x, y, 0.5, w, backend="gpu"), expected, np.float32)


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("distance", [1e2, 1e6, 1e17])
def test_far_queries_have_finite_and_correct_logs(d, distance):
    _, x, y = draw(0, np.float32, (5, d), (40, d))
    x *= np.float32(distance)
    close(kde.log_density(x, y, 0.5, backend="gpu"), kde.log_density(x, y, 0.5, backend="reference"), np.float32)


def test_weight_vectors_that_are_zero_near_a_query():
    _, y = draw(0, np.float32, (60, 2))
    y[:30] += 60
    w = np.stack([np.arange(60) < 30, np.arange(60) >= 30, np.ones(60)]).astype(np.float64)
    expected = kde.log_density_many(y, y, 0.5, w, backend="reference")
    close(kde.log_density_many(y, y, 0.5, w, backend="gpu"), expected, np.float32)


def test_products_are_not_used_where_they_would_cancel():
    _, y = draw(0, np.float32, (50, 20))
    y[25:] += 30  # two clusters, far apart in units of the bandwidth
    close(
        kde.log_density(y[1:], y[:-1], 0.5, backend="gpu"),
        kde.log_density(y[1:], y[:-1], 0.5, backend="reference"),
        np.float32,
    )


def test_no_queries():
    assert kde.log_density(np.empty((0, 3)), np.ones((2, 3)), 1.0, backend="gpu").shape == (0,)


def test_tensors_stay_where_they_are():
    _, x, y = draw(0, np.float32, (5, 2), (9, 2))
    got = kde.log_density(torch.from_numpy(x), torch.from_numpy(y), 0.5, backend="gpu")
    assert isinstance(got, torch.Tensor)
    assert got.dtype == torch.float32
    assert got.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("d", [3, 40])
def test_opcheck(d):
    from featdyn_kernels.kde.gpu import kde_log_sums, kde_many_sums

    rows, points, start = (torch.randn(shape, device="cuda") for shape in ((33, d), (70, d), (70,)))
    torch.library.opcheck(kde_log_sums, (rows, points, start.abs(), False, d > 16))
    torch.library.opcheck(kde_many_sums, (rows, points, torch.rand(70, 5, device="cuda"), d > 16))
