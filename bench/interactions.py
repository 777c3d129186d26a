"""Sparse interactions from queries beside shapiq's SPEX, where that is installed: planted AND terms of order up to 4.

Seconds are those of the method: the planted function answers at once, where a network would not, so that the queries
in the notes are the other half of the price.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.harness import Case, sized
from featdyn.statistics.interactions import SparseInteractions, sparse_interactions
from tests.engine.statistics.interactions import peers

TERMS, ORDER = 20, 4
BUDGETS = {20: 10_752, 50: 13_824, 100: 31_488}  # what SPEX is allowed


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    for n, budget in sized(BUDGETS, {12: 4_000}).items():
        yield _case(n, budget)


def _case(n: int, budget: int) -> Case:
    f, planted = peers.planted_function(n, sized(TERMS, 4), ORDER, n)
    several = [s for s in planted if len(s) > 1]
    ours = sparse_interactions(f, n, max_order=ORDER)
    contenders = {"shapiq-spex": lambda: peers.spex(f, n, ORDER, budget)} if find_spec("shapiq") else {}
    rival = "; shapiq is not installed"
    if contenders:
        found, asked = peers.spex(f, n, ORDER, budget)
        every, some = (sum(abs(found.get(s, 0) - planted[s]) < 0.05 for s in sets) for sets in (planted, several))
        rival = f"; SPEX: {asked}, {every} of {len(planted)}, {some} of {len(several)} of order 2 and more"

    def check(result: Any) -> None:
        if isinstance(result, SparseInteractions):
            assert result.terms.keys() == planted.keys()
            np.testing.assert_allclose([result.terms[s] for s in planted], list(planted.values()), atol=1e-9)
            return
        # Within 0.05; those of one variable it tells apart from its constant less well.
        assert sum(abs(result[0].get(s, 0) - planted[s]) < 0.05 for s in several) >= 0.9 * len(several)

    return Case(
        name=f"n={n} {len(planted)} terms of order up to {ORDER}",
        ours=lambda: sparse_interactions(f, n, max_order=ORDER),
        peers=contenders,
        check=check,
        repeats=3,
        notes=f"queries: {ours.queries} in {ours.calls} calls, all {len(planted)} terms exact{rival}",
    )
