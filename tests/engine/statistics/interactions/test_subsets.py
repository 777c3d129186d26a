"""Tables over subsets: what is one, whose orders are which, and quotients of what may be 0."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import members, orders, relabelled
from featdyn.statistics.interactions.subsets import apart, by_order, divided, table


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_subsets_are_bits(n: int) -> None:
    held = [members(s) for s in range(2**n)]
    assert held == [tuple(i for i in range(n) if s // 2**i % 2) for s in range(2**n)]
    assert orders(n).tolist() == [len(s) for s in held]
    values = np.random.default_rng(n).normal(size=(3, 2**n))
    expected = [[sum(v[s] for s in range(2**n) if len(held[s]) == k) for k in range(1, n + 1)] for v in values]
    np.testing.assert_allclose(by_order(values), expected, atol=1e-12)


@pytest.mark.parametrize("size", [0, 1, 3, 6, 7, 12])
def test_what_has_no_value_for_each_subset_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"v must have shape \(\.\.\., 2\*\*n\) with n >= 1, got \(2, {size}\)"):
        table(np.zeros((2, size)), "v")


def test_tables_are_real_and_finite() -> None:
    for kind in (bool, np.int8, np.uint16, np.float16, np.float32):
        found = table(np.ones((2, 4), kind), "v")
        assert (found.dtype, found.sum()) == (np.float64, 8)
    for wrong in (np.ones(4, complex), np.array(["a", "b"]), np.array([None, 1])):
        with pytest.raises(TypeError, match="v must hold real numbers"):
            table(wrong, "v")
    with pytest.raises(ValueError, match="n >= 1"):
        table(1.0, "v")
    with pytest.raises(ValueError, match="finite"):
        table([0.0, np.inf], "v")


def test_what_is_over_nothing_is_nan() -> None:
    np.testing.assert_equal(divided([1, 0, 3, 2], [[2], [0]]), [[0.5, 0, 1.5, 1], [np.nan] * 4])
    assert np.isnan(divided(1, -1))
    assert apart([0.0, -2.0, 1e-9, 0.0], [0.0, -2 + 1e-13, 2e-9, 1e-300]).tolist() == [False, False, True, True]
    assert not apart(3.0, 3.0)
    assert not apart(np.nan, np.nan)


@pytest.mark.parametrize(
    ("v", "order"),
    [(np.zeros(4), [0]), (np.zeros(4), [1, 2]), (np.zeros(6), [0, 1]), (np.zeros(4), [0, 1, 2]), (1.0, [])],
)
def test_what_cannot_be_renamed_is_refused(v: np.ndarray, order: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be \(\.\.\., 2\*\*n\) and order a permutation of 0 to n - 1"):
        relabelled(v, order)
    np.testing.assert_array_equal(relabelled([[1, 2, 3, 4]], [1, 0]), [[1, 3, 2, 4]])
    np.testing.assert_array_equal(relabelled([5.0], []), [5.0])
