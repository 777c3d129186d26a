"""Features in a unit of their own: what is taken out as a power of two is said, and put back it is the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featdyn.analysis.features.drift.cka import _centred, _mean
from featdyn.analysis.features.drift.weight_distance import beyond_squares

LARGEST = 40  # powers of two on either side of 1, beyond which squares may leave float32


@pytest.mark.parametrize("power", [-120, -60, -41, -40, -3, 0, 1, 39, 40, 41, 60, 120])
def test_centred_features_times_their_unit_are_the_features_less_their_mean(power: int) -> None:
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).sub_(0.3)
    z = (z - z.mean(0)) / (z - z.mean(0)).abs().max() * 0.75 * 2.0**power  # the largest is 0.75 of that power
    mean = _mean(z)
    scaled, exponent = _centred(z.clone(), mean)
    exact = (z.double() - z.double().mean(0)).numpy()
    np.testing.assert_allclose(np.ldexp(scaled.double().numpy(), exponent), exact, rtol=1e-5, atol=1e-6 * 2.0**power)
    assert (exponent == 0) == (abs(power) <= LARGEST)
    assert torch.isfinite(scaled.square().sum())
    assert scaled.square().sum() > 0


@pytest.mark.parametrize(
    ("largest", "beyond"), [(2.0**39, False), (2.0**40, True), (2.0**-41, False), (2.0**-42, True)]
)
def test_squares_of_rows_that_are_very_large_or_small_are_taken_in_float64(largest: float, beyond: bool) -> None:
    """By the largest of each row; those without a size, or without an end to it, say nothing."""
    rows = torch.tensor([[1.0, 1e-30], [0.0, 0.0], [torch.inf, 1.0], [torch.nan, 1.0], [1e-30, 0.0]])
    assert not beyond_squares(rows[:4])
    rows[4, 1] = largest
    assert beyond_squares(rows) is beyond
    assert beyond_squares(-rows[None]) is beyond
