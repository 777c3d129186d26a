"""What rounding leaves: of each kind of number, and of a spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.rounding import noise_share, roundoff


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_numbers_are_off_by_no_more_than_their_share(kind: str) -> None:
    """Those between a power of two and the number after it are off by nearly as much."""
    assert roundoff(kind) == 0.5 * float(np.nextafter(np.array(1, kind), np.array(2, kind)) - 1)
    assert roundoff("int64") == roundoff(bool) == 0.0


@pytest.mark.parametrize(
    ("shape", "scale", "mean"), [((40, 300), 1e-2, 0.0), ((200, 60), 30.0, 0.0), ((90, 90), 1.0, 9.0)]
)
def test_rounding_has_no_singular_value_above_its_share_and_some_not_far_below(
    shape: tuple[int, int], scale: float, mean: float
) -> None:
    """Of numbers that are kept in float16, whatever their unit and their mean."""
    x = scale * (np.random.default_rng(0).standard_normal(shape) + mean)
    off = np.linalg.norm(x.astype(np.float16) - x, 2)
    largest = np.linalg.norm(x - x.mean(0), 2)
    share = noise_share(roundoff("float16"), float((x**2).mean()), shape, float(largest))
    assert off < share * largest < 4 * off


def test_where_nothing_varies_no_share_is_rounding() -> None:
    assert noise_share(0.1, 1.0, (4, 9), 0.0) == 0.0
    assert noise_share(0.1, 4.0, (4, 9), 0.5) == pytest.approx(0.1 * 2 * (2 + 3) / 0.5)
