"""Linear probes: what a linear classifier can read from features. Dual ridge regression is our own choice.

Ridge regression of one-hot labels with an intercept, solved on the training probes' Gram matrix, since there are mostly
fewer probes than features. One eigendecomposition serves every penalty, and gives the exact leave-one-out residuals by
which the penalty is chosen (Allen's PRESS, 1974). What is left out is judged with the shares of the classes among all
training probes: our own choice, since where they are equal the own class would be the rarest.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    groups: NDArray[np.int64]  # (training sample,), as they were given
    residuals: Values  # (training sample, class), of the regression without its group
    shares: Values  # (training sample, class), by how much leaving out its group makes the classes' shares smaller
    values: Values  # (n,), eigenvalues of the Gram matrix
    vectors: Values  # (training sample, n), its eigenvectors less their means
    shrunk: Values  # (n,), 1 / (eigenvalue + penalty)

    def predict(self, gram: NDArray[np.float32] | Values, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the class of each sample, from its inner products ``(n, training sample)`` with the training samples.

        Features are those of :func:`fit`: centred by the training samples' mean. A sample of one of its ``groups`` is
        judged by the probe that was fitted without that group.
        """
        found: NDArray[np.int64] = self.classes[self.scores(gram, groups).argmax(1)]
        return found

    def scores(self, gram: NDArray[np.float32] | Values, groups: NDArray[np.int64] | None = None) -> Values:
        """Return what each class is given ``(n, class)``, of which the largest decides; ``groups`` as above."""
        found = np.asarray(gram @ self.weights + self.intercept)
        for mine, change, of_intercept in self.without(groups):
            found[mine] += gram[mine] @ self.vectors @ change + of_intercept
        return found

    def without(self, groups: NDArray[np.int64] | None) -> Iterator[tuple[NDArray[np.intp], Values, Values]]:
        """Yield, for each group of these that was fitted to, its places and what fitting without it changes.

        By how much the rows change, in the basis of ``vectors`` ``(n, class)``, and the intercept. The probe without a
        group is the one whose labels there are the left-out predictions; classes keep their shares.
        """
        for group in [] if groups is None else np.intersect1d(groups, self.groups):
            there, mine = np.flatnonzero(self.groups == group), np.flatnonzero(groups == group)
            change = self.shrunk[:, None] * (self.vectors[there].T @ self.residuals[there])
            yield mine, -change, self.shares[there[0]] - self.residuals[there].sum(0) / len(self.groups)


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
    best: tuple[float, float, Values, Values, Values] | None = None
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
            best = press, float(penalty), residuals / (penalty * unit), left_out, shrunk / unit
    assert best is not None
    _, penalty, weights, off, shrunk = best
    # With its own class rarer for being left out, a sample that features tell nothing of would never be right.
    size = np.bincount(group)[group][:, None]
    shares: Values = np.stack([np.bincount(group, each) for each in (wanted - intercept).T], 1)[group] / (n - size)
    said = classes[(wanted - off + shares).argmax(1)]
    given = group if groups is None else groups
    less_mean = np.asarray(vectors - vectors.mean(0))
    return Probe(classes, weights, intercept, penalty, said, given, off, shares, values, less_mean, shrunk)
