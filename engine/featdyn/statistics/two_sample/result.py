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
    name : str
    statistic : float
        Large values speak against one common law.
    pvalue : float
    null_mean, null_deviation : float
        Mean and standard deviation of the statistic where the two laws agree.
    n, m, d : int
        Sizes of the samples, coordinates.
    paired : bool
        Whether row i of both samples was treated as one item.
    extras : mapping
        Further numbers, by name.
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
