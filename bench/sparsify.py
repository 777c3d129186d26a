"""moebius.sparsify beside a linear program solved by HiGHS, on planted tables of ten variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.harness import Case
from featdyn_kernels import moebius
from tests.kernels.peers import sparsify as peers

N, BATCH = 10, 50
SOLVED = 2  # tables that the linear program solves: seconds each


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    table = peers.planted(N, BATCH)[0]
    bound = 0.02 * np.abs(table[:, -1] - table[:, 0])
    few = table[:SOLVED].astype("float32")
    optima = [peers.highs_as_printed(table[i], float(bound[i])) for i in range(SOLVED)]

    def highs() -> np.ndarray:
        return np.array([peers.highs_as_printed(table[i], float(bound[i])) for i in range(SOLVED)])

    def check(result: Any) -> None:
        l1 = result if isinstance(result, np.ndarray) else np.asarray(result.l1)
        np.testing.assert_array_less(l1[:SOLVED], 1.02 * np.array(optima))

    yield Case(
        name=f"n={N}, {SOLVED} planted tables, float32, L1 within 2 % of the optimum",
        ours=lambda: moebius.sparsify(few, bound=bound[:SOLVED]),
        peers={"linear program (HiGHS, interior point)": highs},
        check=check,
        target={"linear program (HiGHS, interior point)": 10.0},
        repeats=2,
    )
    whole = table.astype("float32")
    yield Case(
        name=f"n={N}, batch {BATCH}, float32: seconds alone",
        ours=lambda: moebius.sparsify(whole, bound=bound),
        peers={},
        check=check,
    )
