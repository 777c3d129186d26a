"""What the recovery of sparse interactions returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.interactions.recovery.model import contained
from featdyn.statistics.interactions.subsets import Values


@dataclass(frozen=True)
class SparseInteractions:
    """A sparse model of a masked function, and what it is worth.

    Attributes
    ----------
    terms : mapping from tuples of variables, ascending, to coefficients
    bias : value of the empty mask
    basis : "and" adds a term where all of its variables are present, "or" where any of them is
    r2, r2_low : share of the variance that is explained on fresh random masks, and its lower 95 % limit by bootstrap;
    NaN
        where the function is constant on them. Each mask keeps variables with a probability drawn from 0 to 1.
    worst : largest error on the fresh masks
    noise : standard deviation of the answers to one mask, 0 where they are always equal
    threshold : size that a term must have to be seen
    exact : whether coefficients are those of the terms (up to noise), as the search ended with nothing left that random
        masks see; else they are a ridge fit to 1,024 random masks
    complete : whether exact, and no fresh mask differs by more than the threshold and noise
    trusted : whether ``r2_low`` is at least 0.95, or the function has no noise and is met by all fresh masks within the
        threshold
    reason : one line on that
    queries, calls : evaluations and calls of the function, those for the comparison included
    """

    terms: Mapping[tuple[int, ...], float]
    bias: float
    basis: Literal["and", "or"]
    r2: float
    r2_low: float
    worst: float
    noise: float
    threshold: float
    exact: bool
    complete: bool
    trusted: bool
    reason: str
    queries: int
    calls: int

    def outputs(self, masks: ArrayLike) -> Values:
        """Return the model's outputs for ``masks (queries, n)``, one a mask."""
        present = np.asarray(masks, bool)
        rows = np.zeros((len(self.terms), present.shape[1]), bool)
        for row, variables in zip(rows, self.terms, strict=True):
            row[list(variables)] = True
        coefficients = np.array(list(self.terms.values()))
        if self.basis == "and":
            return np.asarray(self.bias + contained(rows, present) @ coefficients)
        return np.asarray(self.bias + (1 - contained(rows, ~present)) @ coefficients)
