"""For how many directions two halves of draws say something: as many as either holds, and fewer than there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from featdyn.statistics import alignment


@pytest.mark.parametrize(
    ("n", "p", "center", "most"),
    [
        (40, 3, "known", 2),  # all three directions are everything
        (40, 3, "estimated", 2),
        (10, 20, "known", 5),
        (10, 20, "estimated", 4),  # each half about its own mean
        (11, 20, "known", 5),  # the smaller half decides
        (12, 7, "known", 6),
    ],
)
def test_directions_that_both_halves_hold(n: int, p: int, center: str, most: int) -> None:
    x, ks = np.random.default_rng(0).standard_normal((n, p)), range(1, p + 3)
    found = alignment.split_halves(x, list(ks), center=center, rng=0)  # type: ignore[arg-type]
    for values in (found.overlap, found.held_out, found.held_out_high):
        assert np.isfinite(values).tolist() == [k <= most for k in ks]
    assert found.random.tolist() == [min(k / p, 1.0) for k in ks]
    assert (np.diff(found.held_out[:most]) >= 0).all()


@pytest.mark.parametrize(("n", "p", "k"), [(40, 3, 1), (11, 20, 3), (14, 7, 5), (30, 2, 1)])
@pytest.mark.parametrize("center", ["known", "estimated"])
def test_what_isotropic_halves_hold_has_the_moments_of_uniform_directions(n: int, p: int, k: int, center: str) -> None:
    """The law of the 95 % point is that Beta law which has the mean and the variance of the notes."""
    x = np.random.default_rng(1).standard_t(3, (n, p))
    found = alignment.split_halves(x, [k], center=center, rng=5)  # type: ignore[arg-type]
    order, shares = np.random.default_rng(5).permutation(n), []
    for half in (order[: n // 2], order[n // 2 :]):
        rows = x[half] - (x[half].mean(0) if center == "estimated" else 0)
        second = rows.T @ rows
        shares.append(np.trace(second @ second) / np.trace(second) ** 2)
    mean = k / p
    variance = 2 * k * (p - k) / (p * (p - 1) * (p + 2)) * (np.mean(shares) - 1 / p)
    size = mean * (1 - mean) / variance - 1
    law = stats.beta(mean * size, (1 - mean) * size)
    assert (law.mean(), law.var()) == pytest.approx((mean, variance))
    assert found.held_out_high[0] == pytest.approx(law.isf(0.05))
