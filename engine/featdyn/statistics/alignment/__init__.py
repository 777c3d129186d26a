"""Along which directions does noise lie, and does drift follow them?

Spectra (``S = X'X / m`` of n centred draws in p coordinates), the directions of two halves of the draws, and drift
along them, each beside what isotropic noise or other draws show. Draws ``x`` are (n, p); inner products are enough: a
``Gram`` or ``Centred`` does as well. They are taken about their mean (``center="estimated"``) or about zero
(``"known"``). ``rng`` is the generator or seed of what is random, 0 by default.
"""

from featdyn.statistics.alignment.drift import DriftBeside, DriftShare, drift_beside, drift_share
from featdyn.statistics.alignment.halves import Halves, split_halves
from featdyn.statistics.alignment.spectrum import (
    ExplainedShares,
    effective_rank,
    explained_shares,
    participation_ratio,
    stable_rank,
)

__all__ = [
    "DriftBeside",
    "DriftShare",
    "ExplainedShares",
    "Halves",
    "drift_beside",
    "drift_share",
    "effective_rank",
    "explained_shares",
    "participation_ratio",
    "split_halves",
    "stable_rank",
]
