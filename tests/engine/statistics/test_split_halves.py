"""For how many directions two halves of draws say something: as many as either holds, and fewer than there are."""

from __future__ import annotations

import numpy as np
import pytest

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
