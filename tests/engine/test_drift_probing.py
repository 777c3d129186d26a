"""Linear probes against ridge regression written out, each left-out fit made anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from featdyn.analysis.features.drift import linear_probe as probing
from tests.strategies import sizes


def problem(seed, n, width, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n) * 2 + 1  # classes need not count from 0
    x = rng.standard_normal((n, width)) + labels[:, None] * rng.standard_normal(width) + 3
    return x, labels


def one_hot(labels):
    return (labels[:, None] == np.unique(labels)).astype(float)


@settings(deadline=None, max_examples=10)
@given(n=sizes(4, 25), width=st.sampled_from((1, 5, 40)), seed=st.integers(0, 99))
def test_predictions_are_those_of_a_primal_ridge(n, width, seed):
    x, labels = problem(seed, n, width)
    new = problem(seed + 1000, 12, width)[0]
    centred = x - x.mean(0)
    found = probing.fit(centred @ centred.T, labels)
    unit = (centred**2).sum(1).mean()
    ridge = Ridge(alpha=found.penalty * unit, solver="svd").fit(x, one_hot(labels))
    scores = ridge.predict(new).reshape(12, -1)
    mine = (new - x.mean(0)) @ centred.T @ found.weights + found.intercept
    np.testing.assert_allclose(mine, scores, atol=1e-6)
    assert (found.predict((new - x.mean(0)) @ centred.T) == found.classes[mine.argmax(1)]).all()


@pytest.mark.parametrize(("n", "width"), [(20, 4), (15, 30), (7, 1)])
def test_the_penalty_is_the_best_of_honest_left_out_fits(n, width):
    x, labels = problem(n, n, width)
    wanted = one_hot(labels)
    centred = x - x.mean(0)
    unit = (centred**2).sum(1).mean()
    found = probing.fit(centred @ centred.T, labels)

    def left_out(penalty):
        rows = []
        for i in range(n):
            kept = np.arange(n) != i
            fitted = Ridge(alpha=penalty * unit, solver="svd").fit(x[kept], wanted[kept])
            rows.append(fitted.predict(x[i : i + 1]).reshape(-1))
        return np.stack(rows)

    press = [((left_out(p) - wanted) ** 2).sum() for p in probing.PENALTIES]
    chosen = int(np.flatnonzero(found.penalty == probing.PENALTIES)[0])
    assert press[chosen] == pytest.approx(min(press), rel=1e-4)
    scores = left_out(found.penalty) + (wanted - wanted.mean(0)) / (n - 1)  # with the classes' shares of all
    top = np.sort(scores, 1)
    clear = top[:, -1] - top[:, -2] > 1e-6 if scores.shape[1] > 1 else np.ones(n, bool)
    assert (found.left_out == found.classes[scores.argmax(1)])[clear].all()


def test_separable_classes_are_read_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = 10 * np.eye(4)[labels] + rng.standard_normal((200, 4))
    found = probing.fit((c := x - x.mean(0)) @ c.T, labels)
    assert (found.left_out == labels).mean() > 0.99
    noise = rng.standard_normal((200, 50))
    found = probing.fit((c := noise - noise.mean(0)) @ c.T, labels)
    assert abs((found.left_out == labels).mean() - 0.25) < 0.12


def test_features_that_do_not_vary_say_the_commonest_class():
    found = probing.fit(np.zeros((5, 5)), np.array([1, 7, 7, 7, 1]))
    assert found.predict(np.zeros((3, 5))).tolist() == [7, 7, 7]


def test_wrong_grams():
    with pytest.raises(ValueError, match="finite"):
        probing.fit(np.full((3, 3), np.nan), np.arange(3))
    with pytest.raises(ValueError, match="2 > 1 samples, got shape"):
        probing.fit(np.zeros((3, 3)), np.arange(2))
    with pytest.raises(ValueError, match="at least two groups"):
        probing.fit(np.eye(3), np.arange(3), np.zeros(3, int))
    assert probing.fit(np.eye(3), np.arange(3), np.array([4, 4, 7])).penalty > 0
