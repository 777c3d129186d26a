"""Salient sets and strength by order, counted one subset after the other."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import (
    and_or,
    mean_order,
    normalised,
    salient,
    signed_strength_by_order,
    strength_by_order,
    threshold_of_largest,
    threshold_of_span,
    top,
)
from featdyn.statistics.interactions.theory import spindle
from featdyn_kernels import moebius
from tests.engine.statistics.interactions import worlds

N = 4


def samples(seed: int = 0, number: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([worlds.planted(N, 4, rng) for _ in range(number)])


def test_thresholds_are_shares_of_the_mean_span_and_of_the_largest() -> None:
    both = np.stack([samples(0), 3 * samples(1)])  # two networks
    found = worlds.model(both)
    spans = both.sum((-2, -1))  # all planted are of order 2 and more
    np.testing.assert_allclose(threshold_of_span(found, 0.1)[:, 0], [0.1 * np.mean([abs(x) for x in s]) for s in spans])
    np.testing.assert_allclose(threshold_of_largest(found)[1, 2], 0.05 * np.abs(both[1, 2]).max())
    for tau in (threshold_of_span(found, 0.5), threshold_of_largest(found, 0.3), threshold_of_largest(found, 1.0)):
        kept = salient(found, tau)
        expected = np.broadcast_to(tau, (2, 3))
        for k in np.ndindex(2, 3):
            np.testing.assert_array_equal(kept[k], np.abs(both[k]) >= expected[k])
        assert kept.any()
        assert not kept.all()
    np.testing.assert_array_equal(salient(found), salient(found, threshold_of_span(found, 0.03)))
    assert not salient(found, 0.0)[both == 0].any(), "what is 0 is never salient"


def test_top_takes_the_largest_and_no_zeros() -> None:
    both = samples(2)
    found = worlds.model(both)
    for k, row in enumerate(both):
        cut = np.sort(np.abs(row).ravel())[-3]
        np.testing.assert_array_equal(top(found, 3)[k], np.abs(row) >= cut)
    assert top(found, 30).sum() == np.count_nonzero(both)
    with pytest.raises(ValueError, match="count must be between 1 and 32"):
        top(found, 33)


def test_strength_by_order_is_a_sum_over_subsets() -> None:
    both = samples(3)
    found = worlds.model(both)
    weights = np.random.default_rng(4).uniform(size=both.shape)
    expected, signed = np.zeros((3, N)), np.zeros((3, 2, N))
    for k, op, s in np.ndindex(3, 2, 2**N):
        if s:
            value = both[k, op, s] * weights[k, op, s]
            expected[k, s.bit_count() - 1] += abs(value)
            signed[k, int(value < 0), s.bit_count() - 1] += value
    np.testing.assert_allclose(strength_by_order(found, weights), expected)
    np.testing.assert_allclose(signed_strength_by_order(found, weights), signed)
    np.testing.assert_allclose(normalised(expected).mean(-1), 1)
    np.testing.assert_allclose(mean_order([1.0, 0, 0, 3]), 13 / 4)
    assert np.isnan(mean_order([0.0, 0]))
    assert np.isnan(normalised([0.0, 0])).all()


def test_noise_makes_the_spindle() -> None:
    """Outputs that are noise, AND alone: strength by order is that of theory."""
    n = 8
    v = np.random.default_rng(5).normal(size=(40, 2**n))
    i_and = np.stack([worlds.dividends(row) for row in v[:4]])
    both = np.stack([i_and, np.zeros_like(i_and)], axis=1)
    strength = strength_by_order(worlds.model(both)).mean(0)
    np.testing.assert_allclose(strength / strength.sum(), spindle(n), atol=0.02)
    # The sparsest split of noise keeps the shape's middle: its mean order is that of medium orders.
    split = strength_by_order(and_or(v[:4], slack=0)).mean(0)
    assert 3 < mean_order(split) < 6


def test_a_random_network_makes_the_spindle() -> None:
    """A deep network whose weights are large, so that each masking changes everything."""
    n, rng = 8, np.random.default_rng(6)
    masks = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)
    tables = []
    for _ in range(40):
        hidden = masks @ rng.normal(size=(n, 96))
        for _ in range(6):
            hidden = np.tanh(6 * hidden @ rng.normal(size=(96, 96)) / 96**0.5)
        tables.append(hidden @ rng.normal(size=96))
    i_and = moebius.moebius(np.array(tables))
    strength = strength_by_order(worlds.model(np.stack([i_and, np.zeros_like(i_and)], axis=1))).mean(0)
    np.testing.assert_allclose(strength / strength.sum(), spindle(n), atol=0.02)


def test_a_single_table_has_no_mean_over_samples() -> None:
    with pytest.raises(ValueError, match="sample"):
        salient(worlds.model(samples()[0]))
    with pytest.raises(ValueError, match="share"):
        threshold_of_largest(worlds.model(samples()), 2.0)
    with pytest.raises(ValueError, match="threshold"):
        salient(worlds.model(samples()), -1.0)
