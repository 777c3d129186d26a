"""The six tests of the bench on similarity measures: a measure that is right passes, one of chance does not."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from bench import resi

rng = np.random.default_rng(0)
SEEDS = list(resi.SEEDS)


def network(seed, accuracy=0.5, shift=0.0):
    p = np.array([[0.5 + shift, 0.5 - shift]])
    return resi.Network(seed, [], [], accuracy, p)


def symmetric(m):
    values = rng.standard_normal((m, m))
    return values + values.T


def test_behaviour_is_found_by_what_follows_it_and_by_nothing_else():
    nets = [network(seed, rng.random(), rng.uniform(0, 0.4)) for seed in SEEDS * 6]
    accuracy = np.array([n.accuracy for n in nets])
    shift = np.array([n.probabilities[0, 0] for n in nets])
    for kind, values in (("accuracy", accuracy), ("outputs", shift)):
        of = resi.behaviour(nets, kind)
        right = resi.judged(of(-np.abs(values[:, None] - values)), 0.0)
        assert right["passes"]
        assert right["score"] == pytest.approx(1, abs=0.03)
        assert abs(resi.judged(of(symmetric(len(nets))), 0.0)["score"]) < 0.2


def test_outputs_differ_by_the_divergence_of_jensen_and_shannon():
    p, q = rng.dirichlet(np.ones(4), (2, 50))
    m = (p + q) / 2
    expected = 0.5 * (p * np.log(p / m)).sum(1) + 0.5 * (q * np.log(q / m)).sum(1)
    assert resi.divergence(p, q) == pytest.approx(expected.mean(), rel=1e-12)
    assert resi.divergence(np.eye(2), np.eye(2)[::-1]) == pytest.approx(np.log(2))


def test_groups_are_told_by_what_follows_them_and_by_nothing_else():
    names, seeds = zip(*product("abc", SEEDS), strict=True)
    together = np.array([[a == b for b in names] for a in names])
    score = resi.grouped(names, seeds)
    chance = (len(SEEDS) - 1) / (len(names) - 1)
    assert together[np.triu_indices(len(names), 1)].mean() == pytest.approx(chance)
    assert resi.judged(score(together + 0.1 * symmetric(len(names))), chance)["score"] > 0.95
    assert resi.judged(score(together * 1.0), chance)["passes"]  # all agree: no interval, and none is needed
    assert not resi.judged(score(symmetric(len(names))), chance)["passes"]
    assert not resi.judged(score(np.full((15, 15), np.nan)), chance)["passes"]


def test_layers_in_order_are_monotone():
    depth = len(resi.WIDTHS)
    near = -np.abs(np.subtract.outer(np.arange(depth), np.arange(depth))) * 1.0
    nets = [network(seed) for seed in SEEDS]
    assert resi.judged(resi.monotone(nets, [{"x": near}] * 5, "x"), 0.5)["score"] == 1
    assert resi.judged(resi.monotone(nets, [{"x": -near}] * 5, "x"), 0.5)["score"] == 0


def test_similarities_are_large_for_what_is_alike_by_every_measure():
    x = rng.standard_normal((60, 6))
    others = [x, x + 0.1 * rng.standard_normal(x.shape), rng.standard_normal((60, 6))]
    ready = [resi.Ready.of(z, 0, 2**-24) for z in others]
    found = resi.similarities(ready, [z @ z.T for z in others])
    assert set(found) == set(resi.MEASURES)
    for values in found.values():
        assert values[0, 1] > max(values[0, 2], values[1, 2])
        np.testing.assert_allclose(values, values.T)
