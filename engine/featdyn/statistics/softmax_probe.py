"""Softmax regression on inner products: a linear probe whose scores are log-probabilities.

Multinomial logistic regression with an L2 penalty, solved in the coordinates that the training samples span (at most n,
where there are mostly more features). The penalty is the one of least held-out cross-entropy: our own choice, where the
literature of layer-wise interactions trains by SGD without one, which on separable features never ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics import checks
from featdyn_kernels.eigh import eigh

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried, in units of the mean squared norm of the centred features: our choice."""
HELD_OUT = 3
"""One in so many groups of samples chooses among them: our own choice."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class SoftmaxProbe:
    """A linear classifier in dual form: a weight is a sum over training samples."""

    classes: NDArray[np.int64]
    weights: Values  # (training sample, class)
    intercept: Values  # (class,)
    penalty: float

    def scores(self, gram: NDArray[np.floating]) -> Values:
        """Return logits ``(n, class)`` from inner products ``(n, training sample)`` with the training samples."""
        return np.asarray(gram @ self.weights + self.intercept)


def fit(gram: NDArray[np.floating], labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> SoftmaxProbe:
    """Fit a probe to labels ``(n,)``, from inner products ``(n, n)`` of features less their mean over the n samples.

    ``groups (n,)`` are held out together, such as copies of one image; each sample alone by default.

    Raises
    ------
    ValueError
        The Gram matrix is not finite, there are fewer than two groups or classes or samples of a class, on average, or
        features do not vary.
    """
    n = len(labels)
    checks.gram(gram, n)
    classes, which = np.unique(labels, return_inverse=True)
    group = checks.groups(groups, n)
    if len(classes) < 2 or (group == group[0]).all():
        raise ValueError("labels must hold at least two classes, and groups two groups")
    if n < 2 * len(classes):
        raise ValueError(f"{len(classes)} classes need at least {2 * len(classes)} samples, got {n}")
    values, vectors = eigh(np.asarray(gram, np.float64))
    kept = np.asarray(values > values.max() * n * float(np.finfo(np.float32).eps))
    if not values.max() > 0:
        raise ValueError("features do not vary")
    root = np.sqrt(values[kept] / values.sum() * n)  # in units of the mean squared norm
    points = vectors[:, kept] * root
    penalty = _chosen(points, which, group)
    w, intercept = _solved(points, which, penalty, len(classes))
    back = vectors[:, kept] / root * (n / values.sum())
    return SoftmaxProbe(classes, back @ w, intercept, penalty)


def _chosen(points: Values, which: NDArray[np.intp], group: NDArray[np.int64]) -> float:
    """Return the penalty of least cross-entropy on held-out groups; the largest where nothing can be held out."""
    names = np.unique(group)
    held = np.isin(group, names[np.random.default_rng(0).permutation(len(names))[::HELD_OUT]])
    seen = np.unique(which[~held])
    tested = held & np.isin(which, seen)
    if len(seen) < 2 or (~held).sum() < 2 * len(seen) or not tested.any():
        return PENALTIES[-1]
    place = np.searchsorted(seen, which)
    losses = []
    for penalty in PENALTIES:
        w, intercept = _solved(points[~held], place[~held], penalty, len(seen))
        scores = points[tested] @ w + intercept
        own = scores[np.arange(len(scores)), place[tested]]
        losses.append(float((np.logaddexp.reduce(scores, axis=1) - own).mean()))
    return PENALTIES[int(np.argmin(losses))]


def _solved(points: Values, which: NDArray[np.intp], penalty: float, classes: int) -> tuple[Values, Values]:
    """Return weights ``(r, class)`` and intercepts that minimise mean cross-entropy + penalty / 2 |w|^2."""
    from sklearn.linear_model import LogisticRegression

    # Of two classes it fits the difference of their weights, whose square is twice the sum of theirs.
    strength = (2 if classes == 2 else 1) / (penalty * len(points))
    model = LogisticRegression(C=strength, tol=1e-6, max_iter=10_000).fit(points, which)
    w, intercept = model.coef_.T, model.intercept_
    if classes == 2:  # one row: class 1 against class 0
        w, intercept = np.concatenate([-w, w], 1) / 2, np.concatenate([-intercept, intercept]) / 2
    return w, intercept
