"""The valid range of each variable of an analysis is the one that its definition allows, no narrower and no wider."""

from __future__ import annotations

import math
import re

import pytest

from featdyn.analysis import analyses

RANGES = {
    # Differences of shares, correlations, and agreement beyond chance.
    (-1.0, 1.0): r"(averaging|batchnorm)\.change|controls\.advantage|rewind\.drop|drift\.cosine|similarity\.rsa"
    r"|generalization\.(beyond_chance|decay_correlation|kappa)|pattern_shift\.\w+_(correlation|spearman)",
    # Distances of what has length one: squared ones, and one minus a correlation. And capacities: two at most (Cover).
    (0.0, 2.0): r"collapse\.nc(2|2_angles|3)|pattern_shift\.shift|similarity\.procrustes"
    r"|representation\.manifold_capacity",
    (0.0, math.pi / 2): r"similarity\.angular",  # an angle between lines
    (0.0, 1.0): r".*",  # shares, probabilities, and squares of correlations
}
ENDS = r"(_low|_high|_shuffled)?"


@pytest.mark.parametrize("name", analyses())
def test_a_variable_s_range_is_what_its_definition_allows(name: str) -> None:
    for variable, declared in analyses()[name].variables.items():
        if declared.valid_range is not None:
            expected = next(r for r, names in RANGES.items() if re.fullmatch(f"({names}){ENDS}", f"{name}.{variable}"))
            assert declared.valid_range == pytest.approx(expected, abs=2e-6), f"{name}.{variable}"  # of rounding
