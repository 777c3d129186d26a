"""What one representation of n samples looks like: its spectrum, sparsity, intrinsic dimension and class manifolds.

Ranks of the spectrum that stand in :mod:`featdyn.statistics.alignment` (effective, participation ratio, stable) are
not repeated here.
"""

from featdyn.statistics.representation.dimension import TwoNN, local_pca, two_nn
from featdyn.statistics.representation.manifolds import Manifolds, class_manifolds, signal_to_noise
from featdyn.statistics.representation.mean_field import MeanField, mean_field
from featdyn.statistics.representation.sparsity import gini, hoyer
from featdyn.statistics.representation.spectrum import (
    PowerLaw,
    condition_number,
    power_law,
    proportional_effective_rank,
    singular_values,
)

__all__ = [
    "Manifolds",
    "MeanField",
    "PowerLaw",
    "TwoNN",
    "class_manifolds",
    "condition_number",
    "gini",
    "hoyer",
    "local_pca",
    "mean_field",
    "power_law",
    "proportional_effective_rank",
    "signal_to_noise",
    "singular_values",
    "two_nn",
]
