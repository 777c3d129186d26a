"""Along which directions does noise lie, and does drift follow them?

Spectra (``S = X'X / m`` of n centred draws in p coordinates) beside isotropic baselines; subspaces beside random ones;
covariances beside each other.
"""

from featdyn.statistics.alignment.covariances import covariance_cosine
from featdyn.statistics.alignment.spectrum import (
    ExplainedShares,
    Spikes,
    effective_rank,
    explained_shares,
    participation_ratio,
    principal_directions,
    spikes,
    stable_rank,
)
from featdyn.statistics.alignment.subspaces import (
    SubspaceShare,
    drift_share,
    principal_angles,
    split_half_overlap,
    subspace_overlap,
)

__all__ = [
    "ExplainedShares",
    "Spikes",
    "SubspaceShare",
    "covariance_cosine",
    "drift_share",
    "effective_rank",
    "explained_shares",
    "participation_ratio",
    "principal_angles",
    "principal_directions",
    "spikes",
    "split_half_overlap",
    "stable_rank",
    "subspace_overlap",
]
