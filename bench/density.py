"""Kernel total variation with a permutation null: 2,000 against 2,000 points in two dimensions, 200 permutations.

The NumPy peer computes each kernel matrix once and multiplies it with all labellings, which needs it in memory; SciPy's
estimator computes it anew for each, so it is given 2 of the 200.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.harness import Case, sized
from featdyn.statistics.two_sample.kde_tv import total_variations
from tests.engine.statistics import peers

PERMUTATIONS = 200
LIMIT = 2.0  # seconds on two cores


def cases(device: str) -> Iterator[Case]:
    if device == "cuda":
        return  # the kernels it stands on are timed by bench/kde.py
    for n in sized((2_000, 8_000), (40,)):
        yield _case(n)


def _case(n: int) -> Case:
    rng = np.random.default_rng(n)
    x, y = (rng.standard_normal((n, 2)).astype(np.float32) + shift for shift in (0, 0.2))
    expected = peers.total_variations(x, y, 0, 0)

    def check(found: Any) -> None:
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-4)

    contenders = {"numpy": lambda: peers.total_variations(x, y, PERMUTATIONS, 0)}
    if n == 2_000:
        contenders["scipy-2-of-200"] = lambda: peers.scipy_total_variations(x, y, 2, 0)
    return Case(
        name=f"n=m={n} d=2 float32, {PERMUTATIONS} permutations",
        ours=lambda: total_variations(x, y, False, PERMUTATIONS, 0),
        peers=contenders,
        check=check,
        repeats=5,
        notes=f"to stay under {LIMIT:g} s" if n == 2_000 else "",
    )
