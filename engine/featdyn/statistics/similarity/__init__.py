"""How alike two representations of the same samples are, in the same order; CKA is in :mod:`featdyn.statistics.cka`."""

from featdyn.statistics.similarity.cca import Canonical, canonical, mean_cca, pwcca, svcca
from featdyn.statistics.similarity.neighbours import information_imbalance, jaccard, jaccard_chance
from featdyn.statistics.similarity.rsa import dissimilarities, noise_ceiling, rsa
from featdyn.statistics.similarity.shape import angular, procrustes

__all__ = [
    "Canonical",
    "angular",
    "canonical",
    "dissimilarities",
    "information_imbalance",
    "jaccard",
    "jaccard_chance",
    "mean_cca",
    "noise_ceiling",
    "procrustes",
    "pwcca",
    "rsa",
    "svcca",
]
