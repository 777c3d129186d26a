"""Intervals of ratios of two shares of the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import share_interval
from tests.strategies import sizes


@given(st.integers(0, 2**32 - 1), sizes(8, 60), st.sampled_from([0.0, 0.5, 0.9]))
def test_limits_are_the_ratios_at_whose_multiple_the_difference_reaches_zero(seed: int, n: int, alike: float) -> None:
    """Of ``a - L b`` the square is the squared distance to its limit, by the correlation of both shares."""
    rng = np.random.default_rng(seed)
    below = rng.random(n) < 0.7
    above = np.where(rng.random(n) < alike, below, rng.random(n) < 0.4)
    above[:2], below[:2] = (True, False), (True, False)
    found, a, b = ratio_interval(above, below), share_interval(above), share_interval(below)
    r = np.corrcoef(above, below)[0, 1] * n / (n + 1.959963984540054**2)
    assert found.estimate == pytest.approx(above.sum() / below.sum())
    for limit, down, up in (
        (found.low, a.estimate - a.low, b.high - b.estimate),
        (found.high, a.high - a.estimate, b.estimate - b.low),
    ):
        apart = down**2 + limit**2 * up**2 - 2 * r * limit * down * up
        assert (a.estimate - limit * b.estimate) ** 2 == pytest.approx(apart, rel=1e-9, abs=1e-12)
    assert found.low < found.estimate < found.high


def test_of_nothing_there_is_no_ratio_and_none_of_something_starts_at_zero() -> None:
    some, none = np.array([True, False, True, True]), np.zeros(4, bool)
    assert np.isnan([*ratio_interval(some, none).named("ratio").values()]).all()
    zero = ratio_interval(none, some)
    assert (zero.estimate, zero.low) == (0.0, 0.0)
    assert zero.high > 0
