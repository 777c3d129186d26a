"""Of one variable every index is the one difference that there is."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import indices

V = np.array([[2.0, 5.5], [1.0, -1.0]])


@pytest.mark.parametrize("name", ["shapley_values", "banzhaf_values"])
def test_one_variable_has_all_of_the_difference(name: str) -> None:
    np.testing.assert_allclose(getattr(indices, name)(V), V[:, 1:] - V[:, :1])
