"""Can a classifier tell the samples apart?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.two_sample.permutation import samples
from featdyn.statistics.two_sample.result import TwoSampleResult


def classifier(
    x: ArrayLike, y: ArrayLike, *, paired: bool = False, regularization: float = 1.0, rng: Rng = None
) -> TwoSampleResult:
    """Test by the held-out balanced accuracy of a logistic classifier between the samples (Lopez-Paz and Oquab 2017).

    Parameters
    ----------
    x, y : (n, d), (m, d)
        Samples of at least four rows. The classifier is fitted on a random half of each, in standardised coordinates.
    paired
        Row i of both is the same item: both of a pair fall in the same half, and the test is the exact sign test on
        pairs of which both or none are told right.
    regularization
        Inverse strength ``C`` of scikit-learn's L2 penalty.
    rng
        Generator or seed of the halves; 0 by default.

    Returns
    -------
    TwoSampleResult
        ``statistic`` is the balanced accuracy, 1/2 under the null; ``pvalue`` by the normal approximation, or exact for
        pairs. ``extras["total_variation_bound"]``: ``max(0, 2 accuracy - 1)``, which estimates a lower bound of the
        total variation.
    """
    a, b = samples(x, y, paired, least=4)
    draw = generator(rng)
    first = draw.permutation(len(a))
    second = first if paired else draw.permutation(len(b))
    right_x, right_y = _held_out_hits(a, b, first, second, regularization)
    accuracy = float(right_x.mean() + right_y.mean()) / 2
    if paired:
        both, none = int((right_x & right_y).sum()), int((~right_x & ~right_y).sum())
        deviation = math.sqrt(both + none) / (2 * len(right_x))
        pvalue = float(stats.binomtest(both, both + none, alternative="greater").pvalue) if both + none else 1.0
    else:  # under the null, P(called x) is one rate for both: estimate it from all
        rate = (right_x.sum() + (~right_y).sum()) / (len(right_x) + len(right_y))
        deviation = math.sqrt(rate * (1 - rate) * (1 / len(right_x) + 1 / len(right_y))) / 2
        pvalue = float(stats.norm.sf((accuracy - 0.5) / deviation)) if deviation > 0 else 1.0
    extras = {"total_variation_bound": max(0.0, 2 * accuracy - 1)}
    return TwoSampleResult("classifier", accuracy, pvalue, 0.5, deviation, len(a), len(b), a.shape[1], paired, extras)


def _held_out_hits(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    regularization: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which held-out points of either sample are told right."""
    from sklearn.linear_model import LogisticRegression

    fitted = np.concatenate([a[first[::2]], b[second[::2]]]).astype(np.float64)
    is_x = np.arange(len(fitted)) < len(first[::2])
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=regularization, class_weight="balanced", max_iter=1000)
    model.fit((fitted - mean) / scale, is_x)
    told_x, told_y = (np.asarray(model.predict((z - mean) / scale)) for z in (a[first[1::2]], b[second[1::2]]))
    return told_x, ~told_y
