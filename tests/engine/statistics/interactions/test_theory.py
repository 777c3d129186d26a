"""Curves of theory against the matrices that define them and against published values; fits on planted curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from featdyn.statistics.interactions import fit_decay_spindle, normalised
from featdyn.statistics.interactions.decay_spindle import decay, decay_shares
from featdyn.statistics.interactions.theory import (
    filter_norms,
    filter_ratios,
    filtered,
    fit_noise,
    spindle,
    theoretical_strength,
)
from featdyn.statistics.resampling import bootstrap_counts
from tests.engine.statistics.interactions import worlds
from tests.engine.statistics.stretched import stretched


def dense_filter(n: int, noise: float) -> np.ndarray:
    j = np.array([[float(s & t == t) for t in range(2**n)] for s in range(2**n)])
    cost = 2**n * np.diag([noise * 2.0 ** t.bit_count() for t in range(2**n)])
    return np.linalg.solve(j.T @ j + cost, j.T @ j)


@pytest.mark.parametrize(
    ("noise", "first", "last"), [(1, 2.47, 3.03), (0.1, 1.81, 2.89), (0.01, 1.32, 2.72), (0.001, 1.12, 2.54)]
)
def test_filter_ratios_of_ten_variables(noise: float, first: float, last: float) -> None:
    found = filter_ratios(10, noise)
    assert found.shape == (10,)
    assert found[1] == pytest.approx(first, abs=0.006)
    assert found[9] == pytest.approx(last, abs=0.006)
    assert (found[1:] > 1).all()


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("noise", [0.003, 2.0])
def test_the_filter_is_its_matrix(n: int, noise: float) -> None:
    matrix = dense_filter(n, noise)
    norms = filter_norms(n, noise)
    for t in range(2**n):
        assert norms[t.bit_count()] == pytest.approx(np.linalg.norm(matrix[t]))
    w = np.random.default_rng(n).normal(size=(3, 2, 2**n))
    w[0, 0] = 0
    np.testing.assert_allclose(filtered(w, noise), w @ matrix.T, atol=1e-9)


def test_the_spindle_of_ten_variables() -> None:
    expected = [0.002, 0.013, 0.050, 0.125, 0.212, 0.250, 0.202, 0.107, 0.034, 0.005]
    np.testing.assert_allclose(spindle(10), expected, atol=6e-4)


def final_network(samples: int = 6, n: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([worlds.planted(n, 12, rng, (1, n)) for _ in range(samples)])


@pytest.mark.parametrize("noise", [1e-3, 0.1, 3.0])
def test_the_strength_of_theory_is_that_of_the_filtered_salient_ones(noise: float) -> None:
    n, rng = 4, np.random.default_rng(3)
    both = np.stack([[worlds.planted(n, 4, rng, (1, n)) for _ in range(3)] for _ in range(2)])
    both[1] *= [[[1.0]], [[1e-3]], [[2.0]]]
    matrix, order = dense_filter(n, noise), np.array([s.bit_count() for s in range(2**n)])
    found = theoretical_strength(worlds.model(both), noise)
    for k in range(2):
        spans = both[k].sum((-2, -1))
        w = np.where(np.abs(both[k]) >= 0.03 * np.abs(spans).mean(), both[k], 0) @ matrix.T
        w[..., 0] = 0  # v(0) is no interaction
        kept = np.abs(w) >= 0.03 * np.abs(w.sum((-2, -1))).mean()
        expected = [
            [np.abs(x * on)[:, order == j].sum() for j in range(1, n + 1)] for x, on in zip(w, kept, strict=True)
        ]
        np.testing.assert_allclose(found[k], expected, atol=1e-8)
        assert not kept[..., 1:].all()


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_noise_of_a_checkpoint_is_found(noise: float) -> None:
    final = worlds.model(final_network())
    fit = fit_noise(final, theoretical_strength(final, noise).mean(0))
    assert 0.7 < fit.noise / noise < 1.4
    assert fit.error < 0.05
    assert not fit.at_edge
    np.testing.assert_allclose(fit.strength.mean(), 1)


@pytest.mark.parametrize(("place", "edge"), [(0, True), (53, False), (54, True)])
def test_a_noise_at_either_end_of_those_tried_is_at_the_edge(place: int, edge: bool) -> None:
    final, tried = worlds.model(final_network()), np.geomspace(1e-7, 100, 55)
    fit = fit_noise(final, theoretical_strength(final, tried[place]).mean(0))
    assert (fit.noise, fit.at_edge) == (pytest.approx(tried[place]), edge)


def test_theory_removes_high_orders_first() -> None:
    final = worlds.model(final_network())
    weak, strong = (normalised(theoretical_strength(final, s).mean(0)) for s in (1e-3, 10.0))
    assert strong[0] > weak[0]
    assert strong[-1] < weak[-1]
    assert fit_noise(final, [0, 0, 0, 0, 1.0]).at_edge, "no noise makes the highest order the strongest"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_decays_share_is_found(share: float) -> None:
    n, samples = 10, 60
    rng = np.random.default_rng(1)
    curve = share * decay(n, 0.1) + (1 - share) * spindle(n)
    fit = fit_decay_spindle(curve * rng.gamma(4, 0.25, size=(samples, n)))
    assert fit.share.estimate == pytest.approx(share, abs=0.06)
    if 0 < share < 1:
        assert fit.share.low - 0.02 < share < fit.share.high + 0.02
    assert fit.r2 > 0.9
    np.testing.assert_allclose(fit.decay.sum() / (fit.decay + fit.spindle).sum(), fit.share.estimate)


def test_shares_of_many_checkpoints_are_those_of_each() -> None:
    rng = np.random.default_rng(2)
    strength = rng.gamma(2, 1, size=(3, 9, 6))
    strength[1] = 0
    counts = rng.multinomial(9, np.full(9, 1 / 9), 20)
    shares, draws = decay_shares(strength, counts)
    assert draws.shape == (20, 3)
    assert np.isnan(shares[1])
    assert np.isnan(draws[:, 1]).all()
    for t in (0, 2):
        assert shares[t] == pytest.approx(fit_decay_spindle(strength[t]).share.estimate, rel=1e-12)
        drawn = np.repeat(strength[t], counts[4], axis=0)
        assert draws[4, t] == pytest.approx(fit_decay_spindle(drawn).share.estimate, rel=1e-9)


def by_nnls(strength: np.ndarray) -> tuple[float, float, np.ndarray, float]:
    """The share, s2, weights and squares left of the best of 25 fits by SciPy."""
    n, best = len(strength), (np.inf, 0.0, np.zeros(2))
    for noise in np.geomspace(1e-3, 10, 25):
        weights, left = nnls(np.stack([decay(n, noise), spindle(n)], axis=1), strength)
        if left < best[0] - 1e-12:
            best = (left, noise, weights)
    left, noise, weights = best
    return weights[0] / weights.sum(), noise, weights, left**2


@pytest.mark.parametrize("kind", ["decay", "both", "spindle", "last order", "flat"])
def test_the_fit_is_the_best_of_those_without_negative_weights(kind: str) -> None:
    n, rng = 7, np.random.default_rng(8)
    shape = {
        "decay": decay(n, 0.2), "both": decay(n, 0.03) + spindle(n), "spindle": spindle(n), "last order": np.eye(n)[-1],
        "flat": np.full(n, 0.5),
    }[kind]  # fmt: skip
    strength = shape * (1 if kind == "flat" else rng.gamma(9, 1 / 9, size=(4, n)))
    strength = np.broadcast_to(strength, (4, n))
    mean = strength.mean(0)
    share, noise, weights, left = by_nnls(mean)
    fit = fit_decay_spindle(strength, groups=[0, 0, 1, 2], seed=3)
    assert (fit.share.estimate, fit.noise.estimate) == pytest.approx((share, noise))
    np.testing.assert_allclose(fit.decay, weights[0] * decay(n, noise), atol=1e-12)
    np.testing.assert_allclose(fit.spindle, weights[1] * spindle(n), atol=1e-12)
    np.testing.assert_allclose(fit.by_order, fit.decay / (fit.decay + fit.spindle))
    if kind == "flat":
        assert np.isnan([fit.r2, fit.share.low, fit.share.high]).all(), "nothing varies"
        assert fit.noise.low == fit.noise.high == fit.noise.estimate
        return
    assert fit.r2 == pytest.approx(1 - left / ((mean - mean.mean()) ** 2).sum(), abs=1e-9)
    counts, place = np.unique(bootstrap_counts(4, 500, 3, [0, 0, 1, 2]), axis=0, return_inverse=True)
    drawn = np.array([by_nnls(count @ strength)[:2] for count in counts.astype(float)])[place.ravel()]
    for found, values in ((fit.share, drawn[:, 0]), (fit.noise, drawn[:, 1])):
        scale, back, ends = (np.log, np.exp, (1e-3, 10)) if found is fit.noise else (lambda x: x, lambda x: x, (0, 1))
        limits = back(stretched(scale(values), scale(found.estimate), 16 / 6, scale(np.array(ends))))
        if np.ptp(limits) > 1e-9 or found is fit.noise:
            np.testing.assert_allclose([found.low, found.high], limits, rtol=1e-7, atol=1e-9)
        else:
            assert np.isnan([found.low, found.high]).all(), "draws that all agree tell no spread"


def test_shares_of_one_sample_and_of_draws_without_any_strength() -> None:
    strength = np.random.default_rng(5).gamma(2, 1, size=(3, 1, 5))
    shares, draws = decay_shares(strength)
    assert draws.shape == (0, 3)
    np.testing.assert_allclose(shares, [by_nnls(x[0])[0] for x in strength])
    one = np.zeros((2, 5))
    one[1] = strength[0]
    fit, share = fit_decay_spindle(one), by_nnls(strength[0, 0])[0]
    assert fit.share.estimate == pytest.approx(share), "a quarter of the draws has none"
    assert np.isnan([fit.share.low, fit.share.high]).all()
    two = fit_decay_spindle(np.stack([decay(5, 0.1), spindle(5)])).share
    assert (two.low, two.high) == pytest.approx((0, 1), abs=1e-6), "either alone is a quarter of the draws"
    counts = np.array([[2, 0], [1, 1], [0, 2]])
    np.testing.assert_allclose(decay_shares(one, counts)[1], [np.nan, share, share])


def test_a_shape_that_is_neither_has_a_small_r2_and_one_sample_no_interval() -> None:
    neither = np.tile([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 1], (5, 1))
    assert fit_decay_spindle(neither).r2 < 0.5
    one = fit_decay_spindle(spindle(10)[None])
    assert one.share.estimate == pytest.approx(0, abs=1e-6)
    assert np.isnan([one.share.low, one.share.high, one.noise.low]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filter_norms(3, 0.0), "noise must be positive"),
        (lambda: filter_norms(0, 1.0), "n must be at least 1"),
        (lambda: fit_decay_spindle(np.ones((2, 3))), "n >= 4"),
        (lambda: fit_decay_spindle(np.zeros((2, 5))), "not all 0"),
        (lambda: fit_decay_spindle(-np.ones((2, 5))), "not negative"),
        (lambda: fit_noise(worlds.model(final_network()), np.zeros(5)), "not be all 0"),
        (lambda: fit_noise(worlds.model(final_network()), np.ones(4)), "of 4 variables"),
        (lambda: fit_noise(worlds.model(np.zeros((2, 2, 32))), np.ones(5)), "no salient"),
    ],
)
def test_bad_input_is_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
