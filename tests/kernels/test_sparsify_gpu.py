"""The solver's Triton kernels beside its Numba ones: the same iterations, so the same results up to rounding."""

import numpy as np
import pytest
import torch

from featdyn_kernels import moebius
from featdyn_kernels._dispatch import interpreting
from tests.kernels.interpreted import on_a_gpu, sized
from tests.kernels.peers.sparsify import planted

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)
TOLERANCE = {"float32": 2e-4, "float64": 1e-11}


def tables(n, batch, dtype):
    v = planted(n, batch, terms=4, orders=(1, max(1, n - 1)), seed=n)[0].astype(dtype)
    return v, 0.02 * np.abs(v[:, -1] - v[:, 0]).astype(float)


def assert_same(got, expected, v):
    tolerance = TOLERANCE[str(v.dtype)]
    for name in ("p", "q", "prices", "l1", "gap"):
        here, there = np.asarray(getattr(got, name)), np.asarray(getattr(expected, name))
        assert here.dtype == there.dtype
        np.testing.assert_allclose(here, there, atol=tolerance * max(1.0, np.abs(there).max()), rtol=0, err_msg=name)
    np.testing.assert_array_equal(got.iterations, expected.iterations)


@pytest.mark.parametrize(
    ("n", "batch", "dtype"),
    [
        (1, 3, "float64"),
        (3, 3, "float32"),
        (4, 2, "float64"),
        on_a_gpu(5, 1, "float32"),
        on_a_gpu(8, 1, "float64"),
        (9, 1, "float32"),
    ],
)
def test_takes_the_iterations_of_the_cpu(n, batch, dtype, monkeypatch):
    from featdyn_kernels.moebius.sparse import gpu

    if interpreting():
        monkeypatch.setattr(gpu, "_SAMPLES", 2)  # so that a few tables fill more than one program
    v, bound = tables(n, batch, dtype)
    options = {"bound": bound, "tolerance": 0.0, "iterations": 20}
    assert_same(moebius.sparsify(v, **options, backend="gpu"), moebius.sparsify(v, **options, backend="cpu"), v)


def test_each_table_stops_when_it_is_solved():
    v, bound = tables(2, 3, "float64")
    found = moebius.sparsify(v, bound=bound, backend="gpu")
    assert len(set(found.iterations.tolist())) > 1
    assert_same(found, moebius.sparsify(v, bound=bound, backend="cpu"), v)
    optimum = moebius.sparsify(v, bound=bound, backend="reference").l1
    assert (found.gap <= 0.01 * found.l1).all()
    assert (found.l1 >= optimum - 1e-9).all()
    assert (found.l1 - found.gap <= optimum + 1e-9).all()


def test_any_layout_and_a_warm_start():
    n = sized(3, 2)
    v = torch.from_numpy(tables(n, 2, "float32")[0]).reshape(2, 1, 2**n)
    v = v if interpreting() else v.cuda()
    cold = moebius.sparsify(v, bound=0.05, backend="gpu")
    assert cold.p.shape == (2, 1, 2**n)
    assert cold.p.device == v.device
    assert cold.l1.shape == (2, 1)
    strided = torch.stack([v, v], -1)[..., 0]
    warm = moebius.sparsify(strided, bound=0.05, start=cold, backend="gpu")
    assert warm.iterations.sum() <= cold.iterations.sum()
    assert (warm.gap <= 0.01 * warm.l1).all()


def test_constant_tables_and_no_tables():
    v = np.ones((1, 4))
    found = moebius.sparsify(v, bound=0.0, backend="gpu")
    np.testing.assert_allclose(found.l1, 1.0)
    assert moebius.sparsify(v[:0], bound=0.0, backend="gpu").p.shape == (0, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("n", [4, 8])
def test_opcheck(n):
    from featdyn_kernels.moebius.sparse.gpu import _tables, moebius_sparse_round
    from featdyn_kernels.moebius.sparse.gpu_kernels import ARRAYS, NUMBERS

    work = torch.randn(ARRAYS, 5, 2**n, device="cuda")
    numbers = torch.rand(NUMBERS, 5, device="cuda")
    running = torch.tensor([0, 2, 4], device="cuda")
    constants = _tables(n, work.dtype, work.device)
    torch.library.opcheck(moebius_sparse_round, (running, work, numbers, *constants, 0.01, True))
