"""Planted sparse functions of masks, and what one would otherwise recover them with; checked in tests, timed in
bench.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Masked = Callable[[np.ndarray], np.ndarray]


def planted_function(
    n: int, terms: int, max_order: int, seed: int, *, basis: str = "and", noise: float = 0.0
) -> tuple[Masked, dict[tuple[int, ...], float]]:
    """A function of masks (queries, n) that is 0.3 and a sum of terms, and these; sizes are between 0.5 and 1.5."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], float] = {}
    while len(found) < terms:
        order = int(rng.integers(1, max_order + 1))
        found[tuple(sorted(rng.choice(n, order, replace=False).tolist()))] = float(
            rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
        )
    rows = np.zeros((terms, n), np.float32)
    for row, variables in zip(rows, found, strict=True):
        row[list(variables)] = 1
    coefficients = np.array(list(found.values()))

    def f(masks: np.ndarray) -> np.ndarray:
        active = (~masks) @ rows.T == 0 if basis == "and" else masks @ rows.T > 0
        return 0.3 + active @ coefficients + noise * rng.normal(size=len(masks))

    return f, found


def spex(f: Masked, n: int, max_order: int, budget: int, seed: int = 0) -> tuple[dict[tuple[int, ...], float], int]:
    """Terms by shapiq's SPEX, and how many masks it asked; its FSII are Moebius coefficients where none is higher."""
    from shapiq import SPEX

    asked = []

    def counted(masks: np.ndarray) -> np.ndarray:
        rows = np.atleast_2d(masks).astype(bool)
        asked.append(len(rows))
        return f(rows)

    approximator = SPEX(n=n, index="FSII", max_order=max_order, random_state=seed, degree_parameter=max_order)
    with np.errstate(all="ignore"):  # empty bins
        values = approximator.approximate(budget, counted)
    return {tuple(s): float(values[s]) for s in values.interaction_lookup if s}, sum(asked)
