"""Linear probes: what a linear classifier can read from features. Dual ridge regression is our own choice.

Ridge regression of one-hot labels with an intercept, solved on the training probes' Gram matrix, since there are mostly
fewer probes than features. One eigendecomposition serves every penalty, and gives the exact leave-one-out residuals by
which the penalty is chosen (Allen's PRESS, 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics import checks
from featdyn_kernels.eigh import eigh

PENALTIES = np.logspace(-6, 3, 28)
"""Tried, in units of the mean squared norm of the centred features: [I], our choice."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """A linear classifier in dual form."""

    classes: NDArray[np.int64]
    weights: Values  # (training sample, class)
    intercept: Values  # (class,)
    penalty: float  # in units of the mean squared norm
    left_out: NDArray[np.int64]  # prediction for each training sample of the probe that was fitted without its group

    def predict(self, gram: NDArray[np.float32] | Values) -> NDArray[np.int64]:
        """Return the class of each sample, from its inner products ``(n, training sample)`` with the training samples.

        Features are those of :func:`fit`: centred by the training samples' mean.
        """
        found: NDArray[np.int64] = self.classes[self.scores(gram).argmax(1)]
        return found

    def scores(self, gram: NDArray[np.float32] | Values) -> Values:
        """Return what each class is given ``(n, class)``, of which the largest decides."""
        return np.asarray(gram @ self.weights + self.intercept)


def fit(
    gram: NDArray[np.float32] | Values, labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None
) -> Probe:
    """Fit a probe to labels ``(n,)``, from inner products ``(n, n)`` of features less their mean over the n samples.

    ``groups (n,)`` are left out together, such as copies of one image; each sample alone by default.

    Raises
    ------
    ValueError
        The Gram matrix is not finite, or there are fewer than two groups.
    """
    n = len(labels)
    checks.gram(gram, n)
    group = checks.groups(groups, n)
    together = [np.flatnonzero(group == g) for g in np.flatnonzero(np.bincount(group) > 1)]
    if n and (group == 0).all():
        raise ValueError("groups must name at least two groups")
    classes, which = np.unique(labels, return_inverse=True)
    wanted = np.eye(len(classes))[which]
    intercept = wanted.mean(0)
    values, vectors = eigh(np.asarray(gram, np.float64))
    values, turned = np.maximum(values, 0), vectors.T @ (wanted - intercept)
    unit = values.mean() or 1.0
    best: tuple[float, float, Values, Values] | None = None
    for penalty in PENALTIES:
        shrunk = 1 / (values / unit + penalty)
        residuals = penalty * (vectors @ (shrunk[:, None] * turned))
        # Of each sample, by how much its own label pulls its prediction; 1/n is the intercept's part.
        free = penalty * (vectors**2 @ shrunk) - 1 / n
        left_out = residuals / np.maximum(free, 1e-12)[:, None]
        for mine in together:
            of_group = penalty * (vectors[mine] * shrunk) @ vectors[mine].T - 1 / n
            left_out[mine] = np.linalg.solve(of_group + 1e-12 * np.eye(len(mine)), residuals[mine])
        press = float((left_out**2).sum())
        if best is None or press < best[0]:
            best = press, float(penalty), residuals / (penalty * unit), wanted - left_out
    assert best is not None
    _, penalty, weights, predicted = best
    return Probe(classes, weights, intercept, penalty, classes[predicted.argmax(1)])
