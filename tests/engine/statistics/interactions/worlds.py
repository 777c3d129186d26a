"""Planted interactions, and sums over subsets written out as their definitions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featdyn.statistics.interactions import AndOr


def subsets(of: int) -> Iterator[int]:
    """All subsets of a set of bits, itself and the empty one included."""
    part = of
    while True:
        yield part
        if not part:
            return
        part = (part - 1) & of


def dividends(v: np.ndarray) -> np.ndarray:
    """The Moebius transform of one table, as the alternating sum that defines it."""
    return np.array([sum((-1) ** (s ^ t).bit_count() * v[t] for t in subsets(s)) for s in range(len(v))])


def outputs(i_and: np.ndarray, i_or: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """The table of one AND-OR model."""
    size = len(i_and)
    return np.array(
        [
            bias + sum(i_and[s] for s in range(1, size) if s & t == s) + sum(i_or[s] for s in range(1, size) if s & t)
            for t in range(size)
        ]
    )


def planted(n: int, terms: int, rng: np.random.Generator, orders: tuple[int, int] = (2, 4)) -> np.ndarray:
    """AND and OR interactions (2, 2**n), N(0, 1)."""
    size = np.array([s.bit_count() for s in range(2**n)])
    sets = np.flatnonzero((size >= orders[0]) & (size <= orders[1]))
    found = np.zeros((2, 2**n))
    for row in found:
        row[rng.choice(sets, terms, replace=False)] = rng.normal(size=terms)
    return found


def model(both: np.ndarray, bias: float = 0.0) -> AndOr:
    """Interactions (..., 2, 2**n) that are known, as the result of an extraction."""
    i_and, i_or = (np.array(both[..., k, :]) for k in (0, 1))
    i_and[..., 0] = i_or[..., 0] = 0
    lead = i_and.shape[:-1]
    span = i_and.sum(-1) + i_or.sum(-1)
    zeros = np.zeros(lead)
    l1 = np.abs(both).sum((-2, -1))
    return AndOr(i_and, i_or, zeros + bias, np.zeros(i_and.shape), span, l1, zeros, "primal-dual")
