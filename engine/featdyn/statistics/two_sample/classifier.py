"""Can a classifier tell the samples apart?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.two_sample.permutation import Labels, halved, outcome, samples
from featdyn.statistics.two_sample.result import TwoSampleResult


def classifier(
    x: ArrayLike,
    y: ArrayLike,
    *,
    paired: bool = False,
    groups: ArrayLike | None = None,
    permutations: int | Labels = 200,
    regularization: float = 1.0,
    rng: Rng = None,
) -> TwoSampleResult:
    """Test by the held-out balanced accuracy of a logistic classifier between the samples (Lopez-Paz and Oquab 2017).

    Parameters
    ----------
    x, y : (n, d), (m, d)
        Samples of at least four rows. The classifier is fitted on a random half of each, in standardised coordinates;
        pairs and groups fall in the same half.
    paired, groups, permutations, rng
        As for :func:`~featdyn.statistics.two_sample.mmd`; halves are random too. The null labels the held-out half
        anew: what the classifier says of it stays.
    regularization
        Inverse strength ``C`` of scikit-learn's L2 penalty.

    Returns
    -------
    TwoSampleResult
        ``statistic`` is about 1/2 under the null. ``extras["total_variation_bound"]``: ``max(0, 2 accuracy - 1)``,
        which estimates a lower bound of the total variation.
    """
    a, b, _ = samples(x, y, paired, least=4)
    n, m, draw = len(a), len(b), generator(rng)
    split, labels = halved(n, m, permutations, draw, paired, groups)
    labels = labels[:, split[1]]
    told = _predicted(np.concatenate([a, b]).astype(np.float64), split, n, regularization)
    shares = [(side & said).sum(axis=1) / side.sum(axis=1) for side, said in ((labels, told), (~labels, ~told))]
    found = (shares[0] + shares[1]) / 2
    extras = {"total_variation_bound": max(0.0, 2 * float(found[0]) - 1)}
    return outcome("classifier", found, (a.shape, b.shape), paired, extras)


def _predicted(
    points: NDArray[np.float64], split: list[NDArray[np.intp]], n: int, strength: float
) -> NDArray[np.bool_]:
    """Return which held-out points are taken for x by a classifier that is fitted on the others."""
    from sklearn.linear_model import LogisticRegression

    fitted, held_out = (points[half] for half in split)
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit((fitted - mean) / scale, split[0] < n)
    return np.asarray(model.predict((held_out - mean) / scale), dtype=bool)
