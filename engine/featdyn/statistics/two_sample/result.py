"""What a two-sample test returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TwoSampleResult:
    """One comparison of two samples.

    Attributes
    ----------
    statistic : large values speak against one common law
    null_mean, null_deviation : mean and standard deviation of the statistic where the two laws agree
    n, m, d : sizes of the samples, coordinates
    paired : whether row i of both samples was treated as one item
    extras : further numbers, by name
    null : (permutations,)
        The statistic under each random labelling, in their order: what adjusting over a family needs.
    """

    name: str
    statistic: float
    pvalue: float
    null_mean: float
    null_deviation: float
    n: int
    m: int
    d: int
    paired: bool
    extras: Mapping[str, float]
    null: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def excess(self) -> float:
        """The statistic minus its mean under the null: what to report of a biased distance."""
        return self.statistic - self.null_mean
