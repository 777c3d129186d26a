"""Statistics on plain arrays, usable without a store.

- :func:`isotropy`: is this noise isotropic, and if not, along how many directions does it lie?
- :mod:`sphericity`: its tests, one by one.
- :mod:`alignment`: spectra beside isotropic baselines; subspaces, drift and covariances beside each other.
- :mod:`two_sample`: are these two samples from one law? Total variation, MMD, energy, sliced Wasserstein, a classifier.
- :mod:`multiplicity`, :mod:`resampling`: adjusted p-values, intervals.

Draws are rows: an array (n, p). A :class:`Gram` stands for draws too large to hold: add those of blocks of coordinates.
"""

from featdyn.statistics import alignment, multiplicity, resampling, sphericity, two_sample
from featdyn.statistics.directions import Directions, count_directions
from featdyn.statistics.gram import Gram
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
    "count_directions",
    "isotropy",
    "multiplicity",
    "resampling",
    "sphericity",
    "tail_shape",
    "two_sample",
]
