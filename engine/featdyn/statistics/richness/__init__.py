"""How rich training has been, measured on features, outputs and targets of the same samples.

:func:`low_rank_measure` and :func:`feature_metrics` follow Nam et al. (arXiv 2410.04264), :func:`neural_collapse`
Papyan, Han and Donoho (2020). The full text of the former was not at hand: what is our own reading of it stands with
each function. Most follow from :class:`featdyn_kernels.moments.Moments`, of one pass over the samples; only :mod:`ntk`,
which is not imported here, needs a network and PyTorch.
"""

from featdyn.statistics.richness.collapse import Collapse, neural_collapse, of_class_moments
from featdyn.statistics.richness.features import FeatureMetrics, feature_metrics
from featdyn.statistics.richness.features import of_moments as feature_metrics_of_moments
from featdyn.statistics.richness.low_rank import LowRank, isotropic_reference, low_rank_measure
from featdyn.statistics.richness.low_rank import of_moments as low_rank_of_moments
from featdyn.statistics.richness.parameters import parameter_distance, parameter_norm
from featdyn.statistics.richness.since_start import KernelDeviation, kernel_deviation
from featdyn.statistics.richness.since_start import of_moments as kernel_deviation_of_moments

__all__ = [
    "Collapse",
    "FeatureMetrics",
    "KernelDeviation",
    "LowRank",
    "feature_metrics",
    "feature_metrics_of_moments",
    "isotropic_reference",
    "kernel_deviation",
    "kernel_deviation_of_moments",
    "low_rank_measure",
    "low_rank_of_moments",
    "neural_collapse",
    "of_class_moments",
    "parameter_distance",
    "parameter_norm",
]
