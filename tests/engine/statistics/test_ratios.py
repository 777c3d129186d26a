"""Intervals of ratios of two shares of the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import share_interval
from tests.strategies import sizes


@given(
    st.integers(0, 2**32 - 1), sizes(8, 60), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.8, 0.95]),
    st.sampled_from([1, 3]),
)  # fmt: skip
def test_limits_are_the_ratios_at_whose_multiple_the_difference_reaches_zero(
    seed: int, n: int, alike: float, level: float, copies: int
) -> None:
    """Of ``a - L b`` the square is the squared distance to its limit, by the correlation of both shares."""
    rng = np.random.default_rng(seed)
    below = rng.random(n) < 0.7
    above = np.where(rng.random(n) < alike, below, rng.random(n) < 0.4)
    above[:2], below[:2] = (True, False), (True, False)
    groups = None if copies == 1 else np.arange(n) // copies
    found = ratio_interval(above, below, groups=groups, level=level)
    a, b = (share_interval(x, groups=groups, level=level) for x in (above, below))
    member = np.arange(n) // copies
    x, y = (np.bincount(member, v - v.mean()) for v in (above, below))
    r = x @ y / np.sqrt((x @ x) * (y @ y)) * len(x) / (len(x) + norm.isf((1 - level) / 2) ** 2)
    assert found.estimate == pytest.approx(above.sum() / below.sum())
    for limit, down, up in (
        (found.low, a.estimate - a.low, b.high - b.estimate),
        (found.high, a.high - a.estimate, b.estimate - b.low),
    ):
        apart = down**2 + limit**2 * up**2 - 2 * r * limit * down * up
        assert (a.estimate - limit * b.estimate) ** 2 == pytest.approx(apart, rel=1e-9, abs=1e-12)
    assert found.low < found.estimate < found.high


def test_of_many_shares_each_has_its_ratio_and_what_never_varies_no_correlation() -> None:
    rng = np.random.default_rng(0)
    above, below = rng.random((3, 1, 20)) < 0.6, rng.random((2, 20)) < 0.8
    above[0], below[1] = True, True
    found = ratio_interval(above, below[None].repeat(3, 0))
    for i, j in np.ndindex(3, 2):
        one = ratio_interval(above[i, 0], below[j])
        for name in ("estimate", "low", "high"):
            assert getattr(found, name)[i, j] == pytest.approx(getattr(one, name))
    whole = ratio_interval(np.ones(20), np.ones(20))
    bound = share_interval(np.ones(20)).low
    assert (whole.estimate, whole.low, whole.high) == pytest.approx((1, bound, 1 / bound))


def test_of_nothing_there_is_no_ratio_and_none_of_something_starts_at_zero() -> None:
    some, none = np.array([True, False, True, True]), np.zeros(4, bool)
    assert np.isnan([*ratio_interval(some, none).named("ratio").values()]).all()
    zero = ratio_interval(none, some)
    assert (zero.estimate, zero.low) == (0.0, 0.0)
    assert zero.high > 0
