"""Are two samples from one law? Distances with exact permutation nulls, which keep pairs together.

Which one: :func:`kde_total_variation` for up to three coordinates, where the distance itself is wanted; :func:`mmd` and
:func:`energy` in any number of coordinates; :func:`sliced_wasserstein` in the units of the data; :func:`classifier` for
a lower bound of the total variation that needs no density.
"""

from featdyn.statistics.two_sample.classifier import classifier
from featdyn.statistics.two_sample.distances import energy, mmd, sliced_wasserstein
from featdyn.statistics.two_sample.kde_tv import kde_total_variation
from featdyn.statistics.two_sample.permutation import labellings
from featdyn.statistics.two_sample.result import TwoSampleResult

__all__ = ["TwoSampleResult", "classifier", "energy", "kde_total_variation", "labellings", "mmd", "sliced_wasserstein"]
