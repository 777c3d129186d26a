"""The tiles that kde and pairwise are made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels._tiles.coordinates import matmul_transposed, scaled_pair
from featdyn_kernels._tiles.points import SPREAD
from featdyn_kernels._tiles.registers import ROWS, fill, padded_rows, panels
from featdyn_kernels._tiles.vectors import exp2_in_place, exp2_sum, nearest, root_in_place, root_sum

DTYPES = (np.float32, np.float64)
DEPTHS = st.sampled_from((1, 2, 3, 5, 17, 511, 512, 513, 1030))


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 13), n=st.integers(1, 150), depth=DEPTHS, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99)
)
def test_fill_is_a_start_plus_squared_distances(m, n, depth, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b, start = (rng.standard_normal(shape).astype(dtype) for shape in ((m, depth), (n, depth), (n, 1)))
    rows, columns = padded_rows(a), panels(b)
    tile = np.full((len(rows), columns.shape[0] * columns.shape[2]), np.nan, dtype)
    fill(rows, 0, len(rows), columns, 0, len(columns), panels(start), tile)
    wide = [x.astype(np.float64) for x in (a, b, start)]
    expected = wide[2].T + np.square(wide[0][:, None] - wide[1]).sum(-1)
    np.testing.assert_allclose(tile[:m, :n], expected, rtol=50 * np.finfo(dtype).eps, atol=10 * np.finfo(dtype).eps)


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 13), n=st.integers(1, 150), depth=DEPTHS, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99)
)
def test_matmul_transposed(m, n, depth, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, depth)).astype(dtype), rng.standard_normal((n, depth)).astype(dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64).T
    np.testing.assert_allclose(matmul_transposed(a, b), expected, atol=20 * np.finfo(dtype).eps * depth)


@pytest.mark.parametrize("n", [1, ROWS - 1, ROWS, ROWS + 1])
def test_padding_is_zero(n):
    x = np.ones((n, 3), np.float32)
    assert len(padded_rows(x)) % ROWS == 0
    assert padded_rows(x).sum() == panels(x).sum() == x.size


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 200), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_row_functions_stop_at_the_last_panel(n, dtype, seed):
    rng = np.random.default_rng(seed)
    width = panels(np.zeros((1, 1), dtype)).shape[2]
    stop = -(-n // width) * width
    tile = (rng.random((3, stop + width)) * 40).astype(dtype)
    tile[:, n:] = np.inf
    wide, other = tile[1, :n].astype(np.float64), tile[[0, 2]].copy()
    near, one = dtype(nearest(tile, 1, n)), dtype(1)
    assert near == tile[1, :n].min()
    powers = np.exp2(near - wide)
    assert exp2_sum(tile, 1, n, near, one) == pytest.approx(powers.sum(), rel=1e-6)
    assert exp2_sum(tile, 1, n, dtype(0), dtype(0.5)) == pytest.approx(np.exp2(-0.5 * wide).sum(), rel=1e-6)
    exp2_in_place(tile, 1, n, near, np.array([1, 2], dtype))
    np.testing.assert_allclose(tile[1, :n], powers + np.exp2(near - 2 * wide), rtol=3e-6)
    assert (tile[1, n:stop] < 1e-30).all()
    tile[1, :n], tile[1, n:stop] = wide, 0
    assert root_sum(tile, 1, n) == pytest.approx(np.sqrt(wide).sum(), rel=1e-6)
    root_in_place(tile, 1, n)
    np.testing.assert_allclose(tile[1, :n], np.sqrt(wide), rtol=1e-6)
    assert np.isinf(tile[:, stop:]).all()
    np.testing.assert_array_equal(tile[[0, 2]], other)


def test_float64_takes_over_where_float32_coordinates_would_not_do():
    near = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    one = np.ones(1)
    assert scaled_pair(near, near, one)[0].dtype == np.float32
    assert scaled_pair(near, near, one * 4 * SPREAD)[1].dtype == np.float64
    assert scaled_pair(near * np.float32(1e20), near, one)[0].dtype == np.float64
    assert scaled_pair(near.astype(np.float64), near, one)[1].dtype == np.float64
