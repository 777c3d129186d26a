"""The softmax probe on inner products beside another solver on the features themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from featdyn.statistics.softmax_probe import HELD_OUT, PENALTIES, fit

Values = NDArray[np.float64]


def solved(x: Values, which: NDArray[np.int64], penalty: float, classes: int) -> tuple[Values, Values]:
    """Return weights and intercepts of least mean cross-entropy + penalty / 2 |w|^2."""
    shape = (x.shape[1], classes)

    def of(flat: Values) -> tuple[Values, Values]:
        return flat[: x.shape[1] * classes].reshape(shape), flat[x.shape[1] * classes :]

    def loss(flat: Values) -> tuple[float, Values]:
        w, b = of(flat)
        said = log_softmax(x @ w + b, axis=1)
        off = (np.exp(said) - np.eye(classes)[which]) / len(x)
        slopes = np.concatenate([(x.T @ off + penalty * w).ravel(), off.sum(0)])
        return float(-said[np.arange(len(x)), which].mean() + penalty / 2 * (w**2).sum()), slopes

    found = minimize(loss, np.zeros((x.shape[1] + 1) * classes), jac=True, method="BFGS", options={"gtol": 1e-7})
    return of(found.x)


def probe(x: Values, which: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[float, Values]:
    """Return the penalty that held-out groups choose, the largest where too few stay, and log-probabilities."""
    x = (x - x.mean(0)) / np.sqrt(x.var(0).sum())
    names, classes = np.unique(groups), len(np.unique(which))
    out = {int(names[i]) for i in np.random.default_rng(0).permutation(len(names))[::HELD_OUT]}
    held = np.array([int(group) in out for group in groups])
    seen = sorted(set(which[~held].tolist()))
    tested = np.flatnonzero(held & np.isin(which, seen))
    penalty = PENALTIES[-1]
    if len(seen) > 1 and (~held).sum() >= 2 * len(seen) and len(tested):
        place, losses = np.searchsorted(seen, which), []
        for each in PENALTIES:
            w, b = solved(x[~held], place[~held], each, len(seen))
            losses.append(-log_softmax(x[tested] @ w + b, axis=1)[np.arange(len(tested)), place[tested]].mean())
        penalty = PENALTIES[int(np.argmin(losses))]
    w, b = solved(x, which, penalty, classes)
    return penalty, log_softmax(x @ w + b, axis=1)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(("classes", "n"), [(2, 4), (2, 5), (2, 6), (2, 9), (3, 6), (3, 8), (3, 9), (3, 14), (4, 12)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_penalty_and_scores_are_those_of_another_solver(classes: int, n: int, copies: int, scale: float) -> None:
    rng = np.random.default_rng([classes, n, copies])
    which, groups = np.arange(n) % classes, np.arange(n) // copies
    x = scale * (5 + 2 * np.eye(classes, 4)[which] + rng.standard_normal((n, 4)))
    penalty, expected = probe(x, which, groups)
    centred = x - x.mean(0)
    found = fit(centred @ centred.T, which, groups)
    assert found.penalty == penalty
    np.testing.assert_allclose(log_softmax(found.scores(centred @ centred.T), axis=1), expected, rtol=2e-3, atol=2e-3)


def test_where_fewer_than_two_of_a_class_stay_nothing_is_chosen() -> None:
    rng = np.random.default_rng(0)
    x = 40 * np.eye(2, 3)[np.arange(5) % 2] + rng.standard_normal((5, 3))  # so far apart that little penalty is best
    centred = x - x.mean(0)
    assert fit(centred @ centred.T, np.arange(5) % 2).penalty == PENALTIES[-1]
    x = 40 * np.eye(2, 3)[np.arange(12) % 2] + rng.standard_normal((12, 3))
    centred = x - x.mean(0)
    assert fit(centred @ centred.T, np.arange(12) % 2).penalty == PENALTIES[0]
