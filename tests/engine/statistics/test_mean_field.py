"""Mean field capacity beside closed forms and another solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import ortho_group

from featdyn.statistics.representation import mean_field

FEW = settings(max_examples=10)


def drawn(classes, count, p, spread, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    return rng.standard_normal((classes, p))[labels] + spread * rng.standard_normal((len(labels), p)), labels


def test_points_have_the_capacity_of_gardner():
    x, labels = np.repeat(np.eye(4), 3, axis=0), np.repeat(np.arange(4), 3)
    found = mean_field(x, labels, draws=4000)
    np.testing.assert_allclose(1 / found.capacity, 0.5, atol=4 * found.error.max())
    np.testing.assert_array_equal(found.radius, 0)
    assert found.whole == pytest.approx(2, rel=0.05)


def test_segments_have_the_capacity_of_their_integral():
    """Two points at +-R about the centre: the cone of the conditions is |v_1| R <= v_2, a wedge in the plane."""
    radius = 0.7
    x = np.array([[1, radius, 0, 0], [1, -radius, 0, 0], [-1, 0, radius, 0], [-1, 0, -radius, 0.0]])
    found = mean_field(x, np.array([0, 0, 1, 1]), draws=6000)
    angle = np.arctan2(radius, 1)  # of each point to the axis
    # |projection on the cone spanned by the points|^2: all of t inside (opening 2 angle), cos^2 within a right angle.
    turn = np.linspace(0, np.pi, 200_001)  # of -t to the axis, two dimensions: E |t|^2 = 2, uniform in angle
    off = np.clip(turn - angle, 0, None)
    share = np.where(off < np.pi / 2, np.cos(off) ** 2, 0)
    inverse = 2 * np.trapezoid(share, turn) / np.pi
    np.testing.assert_allclose(1 / found.capacity, inverse, atol=4 * found.error.max())
    assert found.radius == pytest.approx([radius] * 2, rel=0.3)


def test_the_nearest_direction_is_that_of_a_general_solver():
    x, labels = drawn(2, 6, 5, 0.8)
    found = mean_field(x, labels, draws=25, seed=3)
    rng = np.random.default_rng(3)
    means = np.stack([x[labels == c].mean(0) for c in (0, 1)])
    for c in (0, 1):
        length = np.linalg.norm(means[c] - means.mean(0))
        _, s, axes = np.linalg.svd(x[labels == c] - means[c], full_matrices=False)
        axes = axes[s > 1e-9 * s[0]]
        points = np.column_stack([(x[labels == c] - means[c]) @ axes.T / length, np.ones(6)])
        squares, anchors, along = [], [], []
        for t in rng.standard_normal((25, points.shape[1])):
            conditions = {"type": "ineq", "fun": lambda v, a=points: a @ v, "jac": lambda v, a=points: a}
            solved = minimize(
                lambda v, t=t: ((v - t) ** 2).sum(), np.zeros(len(t)), jac=lambda v, t=t: 2 * (v - t),
                constraints=conditions, method="SLSQP", options={"ftol": 1e-13, "maxiter": 500},
            )  # fmt: skip
            squares.append(solved.fun)
            # The step is a sum of samples, whose last coordinate is 1: their mean by weight.
            step = solved.x - t if solved.fun > 1e-9 else points[np.argmin(points @ t)]
            anchors.append(step[:-1] / step[-1])
            along.append(t[:-1] @ anchors[-1] / np.linalg.norm(anchors[-1]))
        assert 1 / found.capacity[c] == pytest.approx(np.mean(squares), rel=1e-6)
        assert found.error[c] == pytest.approx(np.std(squares, ddof=1) / 5, rel=1e-5)
        assert found.radius[c] == pytest.approx(np.sqrt(np.square(anchors).sum(1).mean()), rel=1e-4)
        assert found.dimension[c] == pytest.approx(np.square(along).mean(), rel=1e-4)


@FEW
@given(st.integers(0, 99), st.floats(0.1, 100))
def test_capacity_sees_neither_unit_nor_place_and_falls_with_the_spread(seed, unit):
    x, labels = drawn(3, 8, 20, 0.2, seed)
    turned = unit * (x @ ortho_group.rvs(20, random_state=seed) + 3.0)
    one, other = (mean_field(v, labels, draws=60, seed=1) for v in (x, turned))
    # Axes may come with another sign, which other draws then follow.
    np.testing.assert_allclose(1 / one.capacity, 1 / other.capacity, atol=4 * (one.error + other.error).max())
    wide = mean_field(drawn(3, 8, 20, 2.0, seed)[0], labels, draws=60, seed=1)
    assert wide.whole < one.whole <= 2.6
    assert (wide.radius > one.radius).all()


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (np.arange(8), {}, "two classes with two samples"),
        (np.zeros(8, int), {}, "two classes"),
        (np.zeros(7, int), {}, r"\(8,\) integers from 0"),
        (np.arange(8) / 2, {}, "integers from 0"),
        (np.arange(8) % 2, {"draws": 1}, "draws must be at least 2"),
    ],
)
def test_what_has_no_capacity_is_refused(labels, options, said):
    with pytest.raises(ValueError, match=said):
        mean_field(drawn(2, 4, 3, 1.0)[0], labels, **options)


@pytest.mark.parametrize("p", [1, 4])
def test_capacity_of_one_feature_and_of_very_large_and_small_ones(p):
    x, labels = np.random.default_rng(4).standard_normal((8, p)) + 3 * (np.arange(8)[:, None] % 2), np.arange(8) % 2
    one = mean_field(x, labels, draws=9)
    assert np.isfinite([one.capacity, one.radius, one.error]).all()
    for unit in (2.0**-700, 2.0**700):
        other = mean_field(unit * x, labels, draws=9)
        np.testing.assert_allclose([other.capacity, other.radius], [one.capacity, one.radius])


def test_a_class_at_the_centre_has_no_measure_and_others_keep_theirs():
    x = np.array([[0, 1.0], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]])
    found = mean_field(x, np.array([0, 0, 1, 1, 2, 2]), draws=20)
    assert np.isnan(found.capacity).tolist() == [True, False, False]
