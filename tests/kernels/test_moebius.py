"""Moebius and zeta transforms and their adjoints."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import get_threads, moebius, set_threads
from tests.kernels.peers import moebius as peers

TRANSFORMS = {
    "moebius": moebius.moebius,
    "zeta": moebius.zeta,
    "moebius_adjoint": moebius.moebius_adjoint,
    "zeta_adjoint": moebius.zeta_adjoint,
}
# A value passes through n additions, each off by half a unit in the last place of sums that grow with n.
UNITS = {np.float32: np.finfo(np.float32).eps, np.float64: np.finfo(np.float64).eps}


def draw(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_close(result, expected, n, dtype):
    # |result| <= zeta(|f|) bounds every partial sum; the expected values of random input are of its square root's size.
    scale = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(result, expected, rtol=0, atol=4 * (n + 1) * UNITS[dtype] * scale)


@pytest.mark.parametrize("n", range(7))
def test_the_reference_is_the_sum_over_subsets(n):
    f = draw(n, 2, 2**n)
    subset = np.array([[t & s == t for t in range(2**n)] for s in range(2**n)], float)
    signs = np.array([[(-1.0) ** bin(s ^ t).count("1") for t in range(2**n)] for s in range(2**n)])
    expected = {
        "moebius": f @ (subset * signs).T,
        "zeta": f @ subset.T,
        "moebius_adjoint": f @ (subset * signs),
        "zeta_adjoint": f @ subset,
    }
    for name, transform in TRANSFORMS.items():
        np.testing.assert_allclose(transform(f, backend="reference"), expected[name], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 14),
    batch=st.sampled_from([(), (1,), (3,), (2, 3), (0,), (5, 1)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    name=st.sampled_from(sorted(TRANSFORMS)),
    seed=st.integers(0, 2**31),
)
def test_cpu_matches_the_reference(n, batch, dtype, name, seed):
    f = draw(seed, *batch, 2**n, dtype=dtype)
    kept = f.copy()
    result = TRANSFORMS[name](f)
    assert result.dtype == dtype
    assert result.shape == f.shape
    np.testing.assert_array_equal(f, kept)
    assert_close(result, TRANSFORMS[name](f.astype(np.float64), backend="reference"), n, dtype)
    in_place = TRANSFORMS[name](f, out=f)
    assert in_place is f
    np.testing.assert_array_equal(f, result)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize(("n", "dtype"), [(15, np.float64), (16, np.float32), (17, np.float64), (18, np.float32)])
def test_rows_larger_than_the_second_cache(name, n, dtype):
    f = draw(n, 3 if n < 17 else 1, 2**n, dtype=dtype)
    assert_close(TRANSFORMS[name](f), TRANSFORMS[name](f.astype(np.float64), backend="reference"), n, dtype)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(0, 12), seed=st.integers(0, 2**31))
def test_inverse_and_adjoint(n, seed):
    f, g = draw(seed, 2**n), draw(seed + 1, 2**n)
    np.testing.assert_allclose(moebius.zeta(moebius.moebius(f)), f, atol=1e-9)
    np.testing.assert_allclose(moebius.moebius_adjoint(moebius.zeta_adjoint(f)), f, atol=1e-9)
    for forward, adjoint in (
        (moebius.moebius, moebius.moebius_adjoint),
        (moebius.zeta, moebius.zeta_adjoint),
    ):
        np.testing.assert_allclose(forward(f) @ g, f @ adjoint(g), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("n", [3, 9, 10])
def test_any_layout(n):
    f = draw(0, 2, 2**n, 3, dtype=np.float32).swapaxes(1, 2)
    np.testing.assert_array_equal(moebius.moebius(f), moebius.moebius(f.copy()))
    reverse = f[..., ::-1]
    np.testing.assert_array_equal(moebius.zeta(reverse), moebius.zeta(reverse.copy()))
    wide = np.zeros((2, 2 * 2**n), np.float32)
    wide[:, : 2**n] = f[:, 0]
    np.testing.assert_array_equal(moebius.zeta(wide[:, : 2**n]), moebius.zeta(f[:, 0].copy()))


def test_out_may_overlap_its_input():
    both = np.zeros(3 * 1024, np.float32)
    both[:1024] = draw(0, 1024, dtype=np.float32)
    expected = moebius.moebius(both[:1024].copy())
    moebius.moebius(both[:1024], out=both[256 : 256 + 1024])
    np.testing.assert_array_equal(both[256 : 256 + 1024], expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.bool])
def test_tensors_in_tensors_out(kind):
    f = torch.from_numpy(draw(0, 3, 64) * 3).to(kind)
    result = moebius.moebius(f)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == (torch.float64 if kind in (torch.float64, torch.int32, torch.bool) else torch.float32)
    np.testing.assert_allclose(result, moebius.moebius(f.double().numpy(), backend="reference"), atol=1e-4)
    out = torch.empty_like(result)
    assert moebius.moebius(f, out=out) is out
    assert torch.equal(out, result)


def test_half_precision_arrays():
    f = draw(0, 5, 128, dtype=np.float16)
    assert moebius.zeta(f).dtype == np.float32
    np.testing.assert_array_equal(moebius.zeta(f), moebius.zeta(f.astype(np.float32)))


@pytest.mark.parametrize("n", [4, 9, 13])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_the_sets_above_it_and_no_others(n, value):
    f = draw(0, 2**n, dtype=np.float32)
    place = 0b101
    f[place] = value
    above = (np.arange(2**n) & place) == place
    for transform in (moebius.moebius, moebius.zeta):
        result = transform(f)
        assert not np.isfinite(result[above]).any()
        assert np.isfinite(result[~above]).all()


def test_peers_match_the_reference():
    f = torch.from_numpy(draw(0, 4, 256))
    expected = moebius.moebius(f, backend="reference")
    for result in (
        peers.dense(f, peers.dense_matrix(8, torch.float64)),
        torch.from_numpy(peers.numpy_loop(f.numpy())),
        peers.torch_loop(f),
    ):
        torch.testing.assert_close(result, expected)


def test_safe_from_many_threads():
    f = draw(0, 300, 2**11, dtype=np.float32)
    expected = moebius.moebius(f)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: moebius.moebius(f), range(12)):
            np.testing.assert_array_equal(result, expected)


def test_result_does_not_depend_on_the_number_of_threads():
    f = draw(0, 65, 2**12, dtype=np.float32)
    expected = moebius.moebius(f)
    before = get_threads()
    try:
        for threads in (1, 3):
            set_threads(threads)
            np.testing.assert_array_equal(moebius.moebius(f), expected)
    finally:
        set_threads(before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: moebius.zeta(np.zeros((2, 6))), ValueError, r"f must have shape \(..., 2\*\*n\), got \(2, 6\)"),
        (lambda: moebius.zeta(np.zeros((2, 0))), ValueError, r"got \(2, 0\)"),
        (lambda: moebius.zeta(np.float32(1)), ValueError, r"got \(\)"),
        (lambda: moebius.zeta(np.zeros(4, complex)), TypeError, "f must hold real numbers, got complex128"),
        (lambda: moebius.zeta(["a", "b"]), TypeError, "f must hold real numbers"),
        (lambda: moebius.zeta(np.zeros(4), backend="quick"), ValueError, "backend must be one of"),
        (lambda: moebius.zeta(np.zeros(4), out=np.zeros(8)), ValueError, r"out must be contiguous, float64 and \(4,\)"),
        (lambda: moebius.zeta(np.zeros(4), out=np.zeros(4, "f4")), ValueError, "got float32"),
        (lambda: moebius.zeta(np.zeros(4), out=np.zeros(8)[::2]), ValueError, "out must be contiguous"),
        (lambda: moebius.zeta(np.zeros(4), out=torch.zeros(4)), TypeError, "same kind of array as f, got Tensor"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_importing_loads_no_compiler():
    import subprocess
    import sys

    code = (
        "import sys; from featdyn_kernels import moebius;"
        "assert not {'numba', 'torch', 'triton', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
