"""Triton's subset transforms against the float64 reference: on a GPU, or under Triton's interpreter on small shapes."""

import numpy as np
import pytest
import torch

from featdyn_kernels import moebius
from featdyn_kernels._dispatch import interpreting
from tests.kernels.interpreted import sized

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)
TRANSFORMS = {
    "moebius": moebius.moebius,
    "zeta": moebius.zeta,
    "moebius_adjoint": moebius.moebius_adjoint,
    "zeta_adjoint": moebius.zeta_adjoint,
}
each_transform = pytest.mark.parametrize("name", sorted(TRANSFORMS))


def draw(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_close(result, f, name):
    n, expected = f.shape[-1].bit_length() - 1, TRANSFORMS[name](f.astype(np.float64), backend="reference")
    assert result.dtype == f.dtype
    scale = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(result, expected, rtol=0, atol=4 * (n + 1) * np.finfo(f.dtype).eps * scale)


@each_transform
@pytest.mark.parametrize(
    ("batch", "n", "dtype"),
    [
        ((), 0, np.float32), ((7,), 1, np.float64), ((2, 3), 4, np.float32), ((131,), 5, np.float64),
        ((5,), 11, np.float32), ((1,), 12, np.float64), ((0,), 3, np.float32),
    ],
)  # fmt: skip
def test_transforms(name, batch, n, dtype):
    f = draw(n, *batch, 2**n, dtype=dtype)
    kept = f.copy()
    assert_close(TRANSFORMS[name](f, backend="gpu"), f, name)
    np.testing.assert_array_equal(f, kept)


@each_transform
@pytest.mark.parametrize(("n", "dtype"), [(8, np.float64), (sized(10, 9), np.float32)])
def test_several_passes_over_a_few_rows_at_a_time(name, n, dtype, monkeypatch):
    from featdyn_kernels.moebius import gpu

    itemsize = np.dtype(dtype).itemsize
    monkeypatch.setattr(gpu, "_TILE", 2**5 * itemsize)
    monkeypatch.setattr(gpu, "_RUN", 2**2 * itemsize)
    monkeypatch.setattr(gpu, "_CACHED", 2 * 2**n * itemsize)
    f = draw(n, 3, 2**n, dtype=dtype)
    assert_close(TRANSFORMS[name](f, backend="gpu"), f, name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter takes minutes: needs CUDA")
@pytest.mark.gpu
@each_transform
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [16, 20, 21])
def test_long_rows(name, dtype, n):
    f = draw(n, 3, 2**n, dtype=dtype)
    assert_close(TRANSFORMS[name](f, backend="gpu"), f, name)


def where_kernels_run(f):
    return torch.from_numpy(f).to("cpu" if interpreting() else "cuda")


def test_any_layout_and_kind():
    f = where_kernels_run(draw(0, 2, 64, 3))
    swapped = f.swapaxes(1, 2)
    assert torch.equal(moebius.zeta(swapped, backend="gpu"), moebius.zeta(swapped.contiguous(), backend="gpu"))
    half = swapped.bfloat16()
    assert torch.equal(moebius.zeta(half, backend="gpu"), moebius.zeta(half.float(), backend="gpu"))
    assert moebius.zeta(swapped > 0, backend="gpu").dtype == torch.float64


def test_out_may_be_or_overlap_its_input():
    both = where_kernels_run(draw(0, 3 * 64))
    expected = moebius.moebius(both[:64].clone(), backend="gpu")
    moebius.moebius(both[:64], out=both[16:80], backend="gpu")
    assert torch.equal(both[16:80], expected)
    f = both[128:].clone()
    expected = moebius.moebius(f, backend="gpu")
    assert moebius.moebius(f, out=f, backend="gpu") is f
    assert torch.equal(f, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_the_sets_above_it_and_no_others(value):
    f, place = draw(0, 2**7), 0b101
    f[place] = value
    above = (np.arange(2**7) & place) == place
    for transform in (moebius.moebius, moebius.zeta):
        result = transform(f, backend="gpu")
        assert not np.isfinite(result[above]).any()
        assert np.isfinite(result[~above]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("n", [5, 14])
def test_opcheck(n):
    from featdyn_kernels.moebius.gpu import moebius_transform

    f = torch.randn(3, 2**n, device="cuda")
    torch.library.opcheck(moebius_transform, (f, torch.empty_like(f), -1.0, False))
