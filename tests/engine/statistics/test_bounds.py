"""What is at a bound by its definition is not beyond it by rounding: of two of the same, of one value alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featdyn.statistics import representation, richness, similarity

X = np.ndarray[Any, Any]
"""``(n, p)``."""


def of_itself(measure: Callable[[X, X], Any]) -> Callable[[X], Any]:
    return lambda x: measure(x, 3 * x)


def deviations(x: X) -> list[float]:
    found = richness.kernel_deviation(x, 3 * x)
    return [found.similarity, found.deviation, found.cosine, found.cosine_deviation]


BOUNDED: dict[str, tuple[Callable[[X], Any], float]] = {
    "kernel deviation": (deviations, 1.0),
    "procrustes": (of_itself(similarity.procrustes), 2.0),
    "angle": (of_itself(similarity.angular), np.pi / 2),
    "canonical correlations": (of_itself(similarity.mean_cca), 1.0),
    "svcca": (of_itself(similarity.svcca), 1.0),
    "pwcca": (of_itself(similarity.pwcca), 1.0),
    "gini of one value": (lambda x: representation.gini(np.eye(1, len(x))), 1.0),
    "hoyer of one value": (lambda x: representation.hoyer(np.eye(1, len(x)) * x[0, 0]), 1.0),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_nothing_is_beyond_its_bounds_by_rounding(name: str) -> None:
    measure, most = BOUNDED[name]
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, p = rng.integers(4, 30), rng.integers(1, 40)
        values = np.asarray(measure(rng.standard_normal((n, p)) * rng.choice([1e-6, 1.0, 1e6])))
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= most)).all(), (n, p, known)
