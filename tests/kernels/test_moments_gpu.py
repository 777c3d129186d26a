"""Triton's moments against two passes in float64: on a GPU, or under Triton's interpreter on small odd shapes."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch

from featdyn_kernels import moments
from featdyn_kernels._dispatch import interpreting
from tests.kernels.interpreted import on_a_gpu, sized
from tests.kernels.test_moments import assert_close, sample

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)
DTYPES = ("float16", "bfloat16", "float32", "float64")


def compare(x, f=None, labels=None, classes=None, tolerance=1e-6):
    found = moments.accumulate(x, f, labels, classes=classes, backend="gpu")
    assert_close(found, moments.accumulate(x, f, labels, classes=classes, backend="reference"), tolerance)
    assert np.array_equal(found.to_dict()["scatter"], found.to_dict()["scatter"].T, equal_nan=True)
    return found


SHAPES = [
    (0, 3, 2, 4, 0.0),
    (1, 1, None, None, 3.0),
    (2, 7, 1, 2, -100.0),
    (131, 37, None, 5, 0.0),
]
# More than one tile, of which a dtype changes nothing but how an element is read.
WIDE = [(67, 5, 143, None, 3.0), (101, 149, 10, 3, -100.0)]


@pytest.mark.parametrize(
    ("n", "width", "outputs", "classes", "mean", "dtype"),
    [
        *((*shape, dtype) for shape in SHAPES for dtype in DTYPES),
        *((*shape, dtype) for shape in WIDE for dtype in ("float32", "float64")),
        *(on_a_gpu(*shape, dtype) for shape in WIDE for dtype in ("float16", "bfloat16")),
    ],
)
def test_matches_the_reference(n, width, outputs, classes, mean, dtype):
    x = sample(n, width, dtype, mean)
    f = None if outputs is None else sample(n, outputs, dtype, mean, seed=1)
    labels = None if classes is None else np.random.default_rng(2).integers(0, classes, n)
    compare(x, f, labels, classes, 1e-11 if dtype == "float64" else 1e-6)


def test_more_rows_than_one_sum_takes():
    n, classes = sized(700, 300), sized(7, 3)
    found = compare(sample(n, 3, mean=5.0), labels=np.arange(n) % classes)
    again = moments.accumulate(sample(n, 3, mean=5.0), labels=np.arange(n) % classes, backend="gpu")
    assert all(np.array_equal(value, again.to_dict()[name]) for name, value in found.to_dict().items())


def test_more_rows_than_are_summed_at_a_time(monkeypatch):
    from featdyn_kernels.moments import gpu

    monkeypatch.setattr(gpu, "WORK_BYTES", 1)
    compare(sample(150, 140, mean=5.0))
    compare(sample(90, 14, "float64", 5.0), tolerance=1e-11)


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
def test_large_means_cost_no_digits(ratio):
    x = (ratio + np.random.default_rng(0).standard_normal((sized(401, 131), 20))).astype(np.float32)
    compare(x)
    compare(x + np.linspace(0, 50 * ratio, len(x), dtype=np.float32)[:, None])
    parts = [moments.accumulate(part, backend="gpu") for part in np.array_split(x, 3)]
    assert_close(reduce(add, parts), moments.accumulate(x, backend="reference"), 1e-6)


@pytest.mark.parametrize("scale", [1e-39, 1e-30, 1e-18, 1e18, 1e30, 3e36])
def test_squares_outside_float32(scale):
    n = sized(200, 67)
    compare((sample(n, 11) * scale).astype(np.float32), sample(n, 3))


def test_columns_with_rare_large_values():
    x = sample(sized(300, 150), 6)
    x[7, :3] *= 1e6
    x[:, 4] = 0
    x[13, 4] = -1e-20
    compare(x)


def test_few_distinct_values_do_not_round_the_same_way():
    draws = np.random.default_rng(0).standard_normal((sized(1500, 300), 20))
    compare((np.round(16 * draws + 1600) / 16).astype(np.float16))


def test_a_constant_column_has_no_scatter():
    x = sample(sized(1000, 200), 5)
    x[:, 2] = 1234.5678
    found = compare(x)
    assert np.all(found.scatter[2] == 0)
    assert found.mean[2] == x[0, 2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which the interpreter calculates with
def test_bad_numbers_stay_in_their_column(bad, dtype):
    x = sample(170, 5, dtype)
    good = moments.accumulate(x, backend="gpu")
    x[150, 3] = bad
    found = moments.accumulate(x, sample(170, 2), (np.arange(170) == 150).astype(int), backend="gpu")
    others = np.arange(5) != 3
    assert np.isnan(found.scatter[3]).all()
    assert np.isnan(found.scatter[:, 3]).all()
    assert np.isnan(found.cross_scatter[3]).all()
    assert np.array_equal(found.mean[3], np.float64(bad), equal_nan=True)
    np.testing.assert_allclose(found.scatter[np.ix_(others, others)], good.scatter[np.ix_(others, others)], rtol=1e-13)
    assert np.isfinite(found.class_sum[0]).all()
    assert np.isfinite(found.output_scatter).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_and_kind_of_the_input(dtype):
    x = torch.as_tensor(sample(90, 14, dtype, 1.0))
    found = moments.accumulate(x.T.contiguous().T, labels=torch.arange(90, dtype=torch.uint8) % 3, backend="gpu")
    assert found.scatter.dtype == found.class_sum.dtype == torch.float64
    assert found.scatter.device.type == "cpu"  # where the features are
    assert_close(found, moments.accumulate(x, labels=np.arange(90) % 3, backend="reference"), 1e-6)


def test_other_numbers_are_refused():
    with pytest.raises(TypeError, match="features must be float16, bfloat16, float32 or float64, got int64"):
        moments.accumulate(np.zeros((2, 2), np.int64), backend="gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_opcheck(dtype):
    from featdyn_kernels.moments.gpu import moments_products, moments_sums

    x, f = (torch.randn(300, width, device="cuda", dtype=dtype) for width in (150, 10))
    limits = torch.tensor([0, 100, 300], device="cuda")
    torch.library.opcheck(moments_sums, (x, torch.randperm(300, device="cuda"), limits))
    torch.library.opcheck(moments_sums, (x, None, limits[::2].contiguous()))
    shifts = [torch.ones(3, width, device="cuda") for width in (150, 10)]
    torch.library.opcheck(moments_products, (x, x, shifts[0], shifts[0], True))
    torch.library.opcheck(moments_products, (x, f, *shifts, False))
