"""Statistics on plain arrays, usable without a store.

- :func:`isotropy`: is this noise isotropic, and if not, along how many directions does it lie?
- :mod:`sphericity`: its tests, one by one.
- :mod:`alignment`: spectra beside isotropic baselines; directions of halves of the draws; drift along them.
- :mod:`two_sample`: are these two samples from one law? Total variation, MMD, energy, sliced Wasserstein, a classifier.
- :mod:`multiplicity`, :mod:`resampling`, :mod:`repeats`: adjusted p-values; intervals, of clustered samples too.
- :mod:`interactions`: AND and OR interactions of masked outputs, generalization power, phases, Shapley indices.
- :mod:`cka`: centred kernel alignment, from Gram matrices.
- :mod:`richness`: the low-rank measure, feature metrics, neural collapse, how far kernels and parameters have moved.
- :mod:`representation`, :mod:`similarity`: what one representation looks like, and how alike two are.

Where samples come in groups, such as the corruptions of one image, the group is the unit: everything that resamples,
permutes or tests draws takes ``groups``. Draws are rows: an array (n, p). A :class:`Gram` stands for draws too large to
hold: add those of blocks of coordinates. ``center`` says what they are taken about: their mean (``"estimated"``) or
zero (``"known"``). ``rng`` is a generator or a seed, 0 by default.
"""

from featdyn.statistics import (
    alignment,
    cka,
    interactions,
    multiplicity,
    repeats,
    representation,
    resampling,
    richness,
    similarity,
    sphericity,
    two_sample,
)
from featdyn.statistics.directions import Directions, count_directions
from featdyn.statistics.gram import Gram, group_means
from featdyn.statistics.isotropy import Isotropy, isotropy
from featdyn.statistics.result import TestResult
from featdyn.statistics.tails import TailShape, tail_shape

__all__ = [
    "Directions",
    "Gram",
    "Isotropy",
    "TailShape",
    "TestResult",
    "alignment",
    "cka",
    "count_directions",
    "group_means",
    "interactions",
    "isotropy",
    "multiplicity",
    "repeats",
    "representation",
    "resampling",
    "richness",
    "similarity",
    "sphericity",
    "tail_shape",
    "two_sample",
]
