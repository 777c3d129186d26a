"""Indices against the definitions that name them, and against shapiq's exact ones."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb, factorial

import numpy as np
import pytest

from featdyn.statistics.interactions import indices
from tests.engine.statistics.interactions.worlds import subsets

N = 4
V = np.random.default_rng(0).normal(size=2**N)


def derivative(v: np.ndarray, s: int, t: int) -> float:
    """The discrete derivative of v with respect to S at T."""
    return sum((-1) ** (s.bit_count() - k.bit_count()) * v[t | k] for k in subsets(s))


def mean_derivative(v: np.ndarray, s: int, weight) -> float:
    rest = (len(v) - 1) & ~s
    return sum(weight(rest.bit_count(), t.bit_count()) * derivative(v, s, t) for t in subsets(rest))


def sii(v: np.ndarray, s: int) -> float:
    return mean_derivative(v, s, lambda m, t: factorial(m - t) * factorial(t) / factorial(m + 1))


def of_order(n: int, least: int, most: int) -> list[int]:
    return [s for s in range(2**n) if least <= s.bit_count() <= most]


def test_values_are_means_over_orders_of_arrival_and_over_subsets() -> None:
    orders_of_arrival = list(permutations(range(N)))
    expected = np.zeros(N)
    for order in orders_of_arrival:
        before = 0
        for i in order:
            expected[i] += (V[before | 1 << i] - V[before]) / len(orders_of_arrival)
            before |= 1 << i
    np.testing.assert_allclose(indices.shapley_values(V), expected, atol=1e-12)
    np.testing.assert_allclose(indices.shapley_values(V).sum(), V[-1] - V[0])
    banzhaf = [mean_derivative(V, 1 << i, lambda m, t: 0.5**m) for i in range(N)]
    np.testing.assert_allclose(indices.banzhaf_values(V), banzhaf, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_interaction_indices_are_mean_derivatives(order: int) -> None:
    shapley, banzhaf = indices.shapley_interactions(V, order), indices.banzhaf_interactions(V, order)
    for s in range(2**N):
        inside = 1 <= s.bit_count() <= order
        assert shapley[s] == pytest.approx(sii(V, s) if inside else 0, abs=1e-12)
        assert banzhaf[s] == pytest.approx(mean_derivative(V, s, lambda m, t: 0.5**m) if inside else 0, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_taylor_and_k_shapley(order: int) -> None:
    taylor, k_sii = indices.shapley_taylor_interactions(V, order), indices.k_shapley_values(V, order)
    bernoulli = [1, -1 / 2, 1 / 6, 0, -1 / 30]
    for s in of_order(N, 1, order):
        if s.bit_count() == order:
            expected = mean_derivative(V, s, lambda m, t: order / N / comb(N - 1, t))
        else:
            expected = derivative(V, s, 0)
        assert taylor[s] == pytest.approx(expected, abs=1e-12)
        above = [t for t in of_order(N, 1, order) if t & s == s]
        assert k_sii[s] == pytest.approx(sum(bernoulli[(t ^ s).bit_count()] * sii(V, t) for t in above), abs=1e-12)
    for found in (taylor, k_sii, indices.faithful_shapley_interactions(V, order)):
        np.testing.assert_allclose(found.sum(), V[-1] - V[0], atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_faithful_shapley_is_the_best_polynomial(order: int) -> None:
    """The weighted least squares that define it, with the empty and the whole set kept exactly."""
    terms = of_order(N, 1, order)
    inner = of_order(N, 1, N - 1)
    design = np.array([[float(s & t == s) for s in terms] for t in inner])
    weights = np.array([1 / (comb(N, t.bit_count()) * t.bit_count() * (N - t.bit_count())) for t in inner])
    target = V[inner] - V[0]
    gram = design.T @ (weights[:, None] * design)
    ones = np.ones(len(terms))
    system = np.block([[gram, ones[:, None]], [ones[None], np.zeros((1, 1))]])
    solved = np.linalg.solve(system, np.r_[design.T @ (weights * target), V[-1] - V[0]])[:-1]
    np.testing.assert_allclose(indices.faithful_shapley_interactions(V, order)[terms], solved, atol=1e-10)


def test_leading_axes_are_batches() -> None:
    v = np.random.default_rng(1).normal(size=(2, 3, 8))
    np.testing.assert_allclose(indices.shapley_values(v)[1, 2], indices.shapley_values(v[1, 2]))
    np.testing.assert_allclose(
        indices.faithful_shapley_interactions(v, 2)[0, 1], indices.faithful_shapley_interactions(v[0, 1], 2)
    )
    assert indices.banzhaf_values(v).shape == (2, 3, 3)


@pytest.mark.parametrize("n", [3, 6])
def test_shapiq_agrees(n: int) -> None:
    exact = pytest.importorskip("shapiq.game_theory.exact")
    v = np.random.default_rng(n).normal(size=2**n)
    powers = 2 ** np.arange(n)
    computer = exact.ExactComputer(lambda masks: v[np.asarray(masks, np.int64) @ powers], n)
    ours = {
        "SII": indices.shapley_interactions,
        "k-SII": indices.k_shapley_values,
        "STII": indices.shapley_taylor_interactions,
        "FSII": indices.faithful_shapley_interactions,
        "BII": indices.banzhaf_interactions,
    }
    for name, index in ours.items():
        for order in (1, 2, 3):
            theirs, found = computer(name, order=order), index(v, order)
            close = 1e-6 if name == "FSII" else 1e-9  # which shapiq fits with large weights for its constraints
            for size in range(1, order + 1):
                for s in combinations(range(n), size):
                    assert found[sum(1 << i for i in s)] == pytest.approx(theirs[s], abs=close), (name, s)
    for name, values in {"SV": indices.shapley_values, "BV": indices.banzhaf_values}.items():
        theirs = computer(name, order=1)
        np.testing.assert_allclose(values(v), [theirs[(i,)] for i in range(n)], atol=1e-9)
