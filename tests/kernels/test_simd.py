"""The registers that CPU kernels are written with."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import _simd as simd
from featdyn_kernels._half import numeric, widen

DTYPES = (np.float32, np.float64)


@numba.njit
def _mix(a, b, out):
    n = simd.lanes(a)
    x, y = simd.load(a, 0, 2), simd.load(b, 0, 2)
    zero = simd.splat(a.dtype.type(0), 2)
    simd.store(out, 0, x * y + x / y - y)
    simd.store(out, 2 * n, simd.where_less(x, y, simd.sqrt(simd.absolute(x)), zero - y))
    simd.store(out, 4 * n, simd.load(a, 0, 2) + simd.broadcast(b, 1, 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_match_numpy(dtype):
    rng = np.random.default_rng(0)
    lanes = 64 // np.dtype(dtype).itemsize
    a, b = (rng.uniform(-2, 2, 2 * lanes).astype(dtype) for _ in range(2))
    b += np.where(b < 0, -0.5, 0.5).astype(dtype)
    out = np.empty(6 * lanes, dtype)
    _mix(a, b, out)
    expected = [a * b + a / b - b, np.where(a < b, np.sqrt(np.abs(a)), -b), a + b[1]]
    np.testing.assert_allclose(out, np.concatenate(expected), rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@numba.njit
def _copy_ahead(a, out, ahead):
    for i in range(0, a.size, simd.lanes(a)):
        simd.prefetch(a, i + ahead, 3)
        simd.store(out, i, simd.load(a, i, 1))


@pytest.mark.parametrize("ahead", [0, 16, -(2**20), 2**40])
def test_a_prefetch_may_point_anywhere(ahead):
    a = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    out = np.zeros_like(a)
    _copy_ahead(a, out, ahead)
    np.testing.assert_array_equal(out, a)


@numba.njit
def _accumulate(a, total):
    simd.add_float64(total, 1, simd.load(a, 0, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_float64_touches_its_elements_only(dtype):
    n = 3 * 64 // np.dtype(dtype).itemsize
    a = np.arange(n, dtype=dtype) / 3
    total = np.full(n + 2, 0.5)
    _accumulate(a, total)
    np.testing.assert_array_equal(total, np.concatenate([[0.5], 0.5 + a.astype(np.float64), [0.5]]))


@numba.njit
def _to_float64(a, out):
    simd.store(out, 1, simd.widened(simd.load(a, 1, 2)))


def test_widened_keeps_the_order():
    a = np.random.default_rng(0).standard_normal(34).astype(np.float32)
    out = np.full(34, -1.0)
    _to_float64(a, out)
    np.testing.assert_array_equal(out, [-1, *a[1:33].astype(np.float64), -1])


@numba.njit
def _reduce(a):
    return simd.total(simd.load(a, 1, 3)), simd.smallest(simd.load(a, 1, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_lanes_are_reduced(dtype):
    n = 3 * 64 // np.dtype(dtype).itemsize
    a = np.full(n + 2, -99, dtype)
    a[1:-1] = np.random.default_rng(0).permutation(n)
    assert _reduce(a) == (n * (n - 1) // 2, 0)
    a[1:-1] = np.inf
    assert _reduce(a) == (np.inf, np.inf)


@numba.njit
def _exp2(x, out):
    for i in range(0, x.size, simd.lanes(x)):
        simd.store(out, i, simd.exp2(simd.load(x, i, 1)))


@pytest.mark.parametrize(("dtype", "least", "error"), [(np.float32, -126, 3e-7), (np.float64, -1022, 4e-16)])
def test_exp2(dtype, least, error):
    x = np.concatenate([-np.geomspace(1e-12, -least, 20_000), [0.0, least], np.arange(least, 1) + 0.5, [0.25]])
    x = np.minimum(np.pad(x, (0, -len(x) % 16)), 0.0).astype(dtype)
    out = np.empty_like(x)
    _exp2(x, out)
    np.testing.assert_allclose(out, np.exp2(x.astype(np.float64)), rtol=error)
    x[:3] = least - 1, -1e30, -np.inf
    _exp2(x, out)
    assert (out[:3] <= 1.001 * 2.0**least).all()
    assert (out[:3] >= 0).all()


@pytest.mark.parametrize("n", [0, 1, 17])
def test_aligned_empty(n):
    array = simd.aligned_empty(n, np.float32)
    assert array.shape == (n,)
    assert array.dtype == np.float32
    assert array.ctypes.data % 64 == 0 or n == 0


@numba.njit
def _widen(x, out):
    for i in range(x.size):
        out[i] = widen(x[i])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=70))
def test_every_half_is_widened_exactly(bits):
    raw = np.array(bits, np.uint16)
    out = np.empty(len(raw), np.float32)
    _widen(numeric(raw.view(np.float16), "x"), out)
    np.testing.assert_array_equal(out, raw.view(np.float16).astype(np.float32))
    tensor = torch.from_numpy(raw).view(torch.bfloat16)
    _widen(numeric(tensor, "x"), out)
    np.testing.assert_array_equal(out, tensor.float().numpy())


def test_only_floating_point_is_numeric():
    with pytest.raises(TypeError, match="features must be float16, bfloat16, float32 or float64, got int64"):
        numeric(np.arange(3), "features")
