"""Distances within paths against the float64 reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import paths, set_threads
from featdyn_kernels.paths import gpu
from tests.kernels.peers import paths as peers

# Relative: one rounding of a difference, and of sums of at most 64 squares in a lane.
RTOL = {np.float16: 4e-6, np.float32: 4e-6, np.float64: 1e-13}
dtypes = st.sampled_from(tuple(RTOL))
quick = settings(deadline=None, max_examples=40)


def draw(seed, n, steps, width, dtype, offset=0.0):
    """Random walks with small steps, far from the origin."""
    rng = np.random.default_rng(seed)
    start, walk = rng.standard_normal((n, 1, width)) + offset, rng.standard_normal((n, steps, width))
    return (start + 0.01 * walk.cumsum(1)).astype(dtype)


@quick
@given(
    n=st.integers(0, 5),
    steps=st.integers(1, 14),
    width=st.sampled_from((0, 1, 3, 16, 31, 1024, 1025, 2077)),
    dtype=dtypes,
    seed=st.integers(0, 999),
)
def test_matches_the_reference(n, steps, width, dtype, seed):
    x = draw(seed, n, steps, width, dtype, offset=8.0)
    expected = paths.squared_distances(x, backend="reference")
    got = paths.squared_distances(x)
    assert got.shape == (n, steps, steps)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=RTOL[dtype], atol=0)
    assert np.array_equal(got, got.swapaxes(1, 2))
    assert (np.einsum("ntt->nt", got) == 0).all()


def test_close_points_far_away_are_told_apart():
    x = np.full((1, 2, 5000), 1000.0, np.float32)
    x[0, 1] += 2.0**-13  # the last bit
    assert paths.squared_distances(x)[0, 0, 1] == 5000 * 2.0**-26


def test_the_gpu_path_on_the_cpu():
    """It is plain torch, so its meaning can be tested without a GPU; its speed cannot."""
    x = draw(1, 3, 6, 1500, np.float32)
    got = gpu.squared_distances(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, paths.squared_distances(x, backend="reference"), rtol=4e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu():
    x = draw(1, 3, 6, 1500, np.float32)
    got = paths.squared_distances(torch.from_numpy(x).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu(), paths.squared_distances(x, backend="reference"), rtol=4e-6)


@pytest.mark.parametrize("peer", [peers.torch_cdist, peers.torch_products, peers.torch_loop])
def test_peers_compute_the_same(peer):
    x = draw(2, 3, 5, 100, np.float32)
    np.testing.assert_allclose(
        peer(torch.from_numpy(x)), paths.squared_distances(x, backend="reference"), rtol=1e-5, atol=1e-8
    )


def test_strides_tensors_and_threads():
    x = draw(3, 6, 9, 130, np.float64)
    turned = np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0)
    expected = paths.squared_distances(x)
    assert np.array_equal(paths.squared_distances(turned), expected)
    found = paths.squared_distances(torch.from_numpy(x))
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found, expected)
    half = torch.from_numpy(x).bfloat16()
    wide = paths.squared_distances(half.double().numpy(), backend="reference")
    np.testing.assert_allclose(paths.squared_distances(half), wide, rtol=4e-6)
    many = draw(4, 64, 20, 400, np.float32)
    try:
        set_threads(1)
        alone = paths.squared_distances(many)
        set_threads(3)
        assert np.array_equal(paths.squared_distances(many), alone)
    finally:
        set_threads(None)


def test_what_is_not_finite_stays_where_it_is():
    x = draw(5, 2, 5, 40, np.float32)
    x[0, 1, 3], x[1, 4, 0] = np.nan, np.inf
    got = paths.squared_distances(x)
    expected = paths.squared_distances(x, backend="reference")
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert np.array_equal(np.isinf(got), np.isinf(expected))
    assert np.isfinite(got[0][np.ix_([0, 2, 3, 4], [0, 2, 3, 4])]).all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"paths must have shape \(N, T, F\), got shape \(3, 4\)|paths.*\(3, 4\)"):
        paths.squared_distances(np.zeros((3, 4)))
    with pytest.raises(TypeError, match="int64"):
        paths.squared_distances(np.zeros((1, 2, 3), np.int64))
