"""A mean that is given is subtracted, and subsets are named by their bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.statistics import isotropy
from featdyn.statistics.interactions.subsets import members


def test_isotropy_about_a_given_mean_is_that_of_draws_from_which_it_is_taken() -> None:
    rng = np.random.default_rng(0)
    x, mean = rng.standard_normal((40, 8)), rng.uniform(5, 9, 8)
    known, moved = isotropy(x, center="known", rng=1), isotropy(x + mean, center=mean, rng=1)
    assert moved.verdict == known.verdict
    for one, other in zip(known.tests, moved.tests, strict=True):
        assert (one.name, one.valid) == (other.name, other.valid)
        if one.result is not None and other.result is not None:
            assert other.result.pvalue == pytest.approx(one.result.pvalue, rel=1e-6)
    assert isotropy(x + mean, center="known", rng=1).verdict != known.verdict


@given(st.sets(st.integers(0, 12)))
def test_members_of_a_subset_are_its_bits(variables: set[int]) -> None:
    assert members(sum(2**i for i in variables)) == tuple(sorted(variables))
