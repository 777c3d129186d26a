"""AND and OR interactions of a masked network's outputs, and what the literature asks of them.

A table holds one output for each subset of n variables ("players") on its last axis, bit i of the index being variable
i; the outputs are usually log-odds of the true class (:func:`log_odds`). Leading axes are networks, checkpoints and,
last of them, samples.

- :func:`and_or`: interactions under the sparsest split; :func:`joint_and_or`: of several networks together.
- :func:`salient`, :func:`top`, :func:`strength_by_order`: which count, and how strong each order is.
- :func:`generalizable`, :func:`generalization_power`, :func:`loss_gap`, :mod:`agreement`: what other networks encode
  too.
- :mod:`phases`, :mod:`theory`, :func:`fit_decay_spindle`, :func:`compare_layer`: through training and depth.
- :mod:`indices`: Shapley values and interaction indices.
- :func:`sparse_interactions`: of 20 to 200 variables, from queries in place of the whole table.

Most follows arXiv 2407.19198 and its siblings. The paper on generalization power (arXiv 2505.06993) was known by
abstract and reviews only; what is our own reading or choice says so in its docstring.
"""

from featdyn.statistics.interactions import agreement, indices, phases, theory
from featdyn.statistics.interactions.agreement import Kappa, cohens_kappa
from featdyn.statistics.interactions.decay_spindle import DecaySpindle, fit_decay_spindle
from featdyn.statistics.interactions.extraction import AndOr, and_or, and_or_outputs
from featdyn.statistics.interactions.generalization import Power, chance_labels, generalizable, generalization_power
from featdyn.statistics.interactions.joint import Joint, joint_and_or
from featdyn.statistics.interactions.layers import LayerComparison, compare_layer, stability
from featdyn.statistics.interactions.loss_gap import LossGap, cross_entropy, log_odds, loss_gap
from featdyn.statistics.interactions.recovery import SparseInteractions, sparse_interactions
from featdyn.statistics.interactions.strength import (
    mean_order,
    normalised,
    salient,
    signed_strength_by_order,
    strength_by_order,
    threshold_of_largest,
    threshold_of_span,
    top,
)
from featdyn.statistics.interactions.subsets import members, orders, relabelled

__all__ = [
    "AndOr",
    "DecaySpindle",
    "Joint",
    "Kappa",
    "LayerComparison",
    "LossGap",
    "Power",
    "SparseInteractions",
    "agreement",
    "and_or",
    "and_or_outputs",
    "chance_labels",
    "cohens_kappa",
    "compare_layer",
    "cross_entropy",
    "fit_decay_spindle",
    "generalizable",
    "generalization_power",
    "indices",
    "joint_and_or",
    "log_odds",
    "loss_gap",
    "mean_order",
    "members",
    "normalised",
    "orders",
    "phases",
    "relabelled",
    "salient",
    "signed_strength_by_order",
    "sparse_interactions",
    "stability",
    "strength_by_order",
    "theory",
    "threshold_of_largest",
    "threshold_of_span",
    "top",
]
