"""Joint extraction against the linear program as the paper states it, boxes on splits included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from featdyn.statistics.interactions import and_or, joint_and_or, orders
from tests.engine.statistics.interactions import worlds


def program(v: np.ndarray, share: float, slack: float, room: np.ndarray) -> float:
    """The least joint sum of one sample, v (network, 2**n): unknowns are gbar, ghat, q, and sizes and their maxima."""
    networks, size = v.shape
    m = np.stack([worlds.dividends(row) for row in np.eye(size)], axis=1)
    kinds = (m[1:], -m[1:, ::-1])  # AND, OR of nonempty subsets
    own, number = networks * size, size - 1
    ghat, q, sizes = size, size + own, size + 2 * own
    largest = sizes + 2 * networks * number
    total = largest + 2 * number
    cost = np.zeros(total)
    cost[sizes:largest], cost[largest:] = share, 1 - share
    rows, limits = [], []
    for i in range(networks):
        for k, kind in enumerate(kinds):
            sign = 1 - 2 * k
            at = sizes + (k * networks + i) * number
            for side in (1, -1):
                row = np.zeros((number, total))
                row[:, :size] = side * sign * kind
                row[:, ghat + i * size : ghat + (i + 1) * size] = side * sign * kind
                row[:, q + i * size : q + (i + 1) * size] = side * kind / 2
                row[:, at : at + number] = -np.eye(number)
                rows.append(row)
                limits.append(-side * kind @ v[i] / 2)
            row = np.zeros((number, total))
            row[:, at : at + number] = np.eye(number)
            row[:, largest + k * number : largest + (k + 1) * number] = -np.eye(number)
            rows.append(row)
            limits.append(np.zeros(number))
    bound = slack * np.abs(v[:, -1] - v[:, 0])
    boxes = [(None, None)] * size
    boxes += [(-c, c) for c in np.repeat(room, size)] + [(-b, b) for b in np.repeat(bound, size)]
    boxes += [(0, None)] * (total - sizes)
    found = linprog(cost, A_ub=np.concatenate(rows), b_ub=np.concatenate(limits), bounds=boxes)
    assert found.success
    return float(found.fun)


def tables(n: int, networks: int, samples: int, seed: int = 0, noise: float = 0.2) -> np.ndarray:
    """Networks that share interactions, each a little different."""
    rng = np.random.default_rng(seed)
    common = [worlds.planted(n, 3, rng, (1, n)) for _ in range(samples)]
    return np.stack(
        [
            [worlds.outputs(*(b + noise * rng.normal(size=b.shape) * (b != 0)), 0.4) for b in common]
            for _ in range(networks)
        ]
    )


@pytest.mark.parametrize(("n", "networks"), [(3, 2), (3, 4), (4, 3)])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_joint_sum_is_the_linear_programs(n: int, networks: int, share: float) -> None:
    v = tables(n, networks, 3)
    found = joint_and_or(v, share=share, tolerance=1e-4)
    room = 0.5 * np.abs(v[..., -1] - v[..., 0]).mean(1)
    best = np.array([program(v[:, k], share, 0.02, room) for k in range(3)])
    assert (found.objective >= best * (1 - 1e-8)).all()
    assert (found.objective - found.gap <= best * (1 + 1e-8)).all()
    assert (found.objective <= best * 1.01).any(), "the box on splits may cost the others something"
    assert (found.gap >= 0).all()
    assert (found.gap <= 1e-4 * found.objective).any()
    rough = joint_and_or(v, share=share, tolerance=1e9)
    assert (rough.gap > 1e-3 * rough.objective).all(), "the first look is enough"
    size = np.abs(found.models.both)
    expected = (1 - share) * size.max(0) + share * size.sum(0)
    np.testing.assert_allclose(found.objective, expected.sum((-2, -1)), rtol=1e-9)


def test_planted_interactions_of_all_networks_are_found() -> None:
    rng = np.random.default_rng(1)
    planted = np.abs(np.stack([worlds.planted(5, 3, rng) for _ in range(2)]))
    size = np.array([1.0, 1.3, 0.7])
    v = np.stack([[s * worlds.outputs(*both) + 0.5 for both in planted] for s in size])
    found = joint_and_or(v, slack=0, tolerance=1e-6).models
    np.testing.assert_allclose(found.both, size[:, None, None, None] * planted, atol=1e-3)
    np.testing.assert_allclose(found.bias, 0.5, atol=1e-3)


def split_apart() -> np.ndarray:
    """A network of AND alone beside one of OR alone, whose spans are small beside what is between."""
    both = np.zeros((2, 16))
    both[0, [0b0111, 0b1110]] = 3, -2.8
    return np.stack([[worlds.outputs(*both)] * 2, [worlds.outputs(*both[::-1])] * 2])


def of_room(split: np.ndarray, span: np.ndarray) -> float:
    """The least share of spans (network,) within which splits (network, 2**n) are of a common one.

    What one variable alone does is AND or OR as one likes.
    """
    networks, size = split.shape
    n = size.bit_length() - 1
    holds = (np.arange(size)[:, None] >> np.arange(n) & 1).astype(float)
    rows, limits = [], []
    for i, (p, width) in enumerate(zip(split, span, strict=True)):
        row = np.zeros((size, size + networks * n + 1))
        row[:, :size], row[:, size + i * n : size + (i + 1) * n] = np.eye(size), holds
        for side in (1, -1):
            rows.append(np.c_[side * row[:, :-1], np.full(size, -width)])
            limits.append(side * p)
    found = linprog(
        np.eye(1, rows[0].shape[1], rows[0].shape[1] - 1)[0], np.concatenate(rows), np.concatenate(limits),
        bounds=(None, None),
    )  # fmt: skip
    return float(found.fun)


@pytest.mark.parametrize(("v", "at_work"), [(tables(4, 3, 2), False), (split_apart(), True)], ids=["alike", "apart"])
def test_every_network_is_reproduced_and_splits_stay_in_their_box(v: np.ndarray, at_work: bool) -> None:
    found = joint_and_or(v, share=0.3, iterations=400)
    models, size = found.models, np.abs(found.models.both)
    np.testing.assert_allclose(models.outputs() - models.q, v, atol=1e-10)
    span = np.abs(v[..., -1] - v[..., 0])
    assert (np.abs(models.q) <= 0.02 * span[..., None] * (1 + 1e-12)).all()
    assert not models.i_or[..., orders(4) == 1].any()
    np.testing.assert_allclose(found.objective, (0.7 * size.max(0) + 0.3 * size.sum(0)).sum((-2, -1)), rtol=1e-9)
    np.testing.assert_allclose(models.l1, np.abs(models.both).sum((-2, -1)) + np.abs(models.bias))
    # v_and of a network is half of v + q, and its split.
    v_and = np.zeros_like(v)
    for k in np.ndindex(v.shape[:2]):
        v_and[k] = worlds.outputs(models.i_and[k], np.zeros(16), models.bias[k])
    split = v_and - (v + models.q) / 2
    taken = [of_room(split[:, k], span.mean(1)) for k in range(2)]
    assert max(taken) <= 0.5 + 1e-6
    assert min(taken) > 0.3 or not at_work


def test_the_bound_holds_of_each_interaction_alone() -> None:
    both = np.eye(16).reshape(16, 2, 8)[[k for k in range(16) if k % 8]]
    v = np.stack([[worlds.outputs(*one) for one in both], [worlds.outputs(*one, 2.0) for one in 2 * both]])
    found = joint_and_or(v, slack=0, tolerance=1e-6)
    best = [program(v[:, k], 0.1, 0.0, np.abs(v[..., -1] - v[..., 0]).mean(1)) for k in range(len(both))]
    assert (found.objective - found.gap <= np.multiply(best, 1 + 1e-8)).all()
    np.testing.assert_allclose(found.objective, best, rtol=1e-5)


def test_shared_interactions_are_more_often_found_as_such() -> None:
    v = tables(5, 2, 6, noise=0.5)
    alone, together = and_or(v, tolerance=1e-4), joint_and_or(v, tolerance=1e-3).models

    def union(both: np.ndarray) -> float:
        """Interactions that any network has."""
        return float((np.abs(both) > 0.05).any(0).sum())

    assert union(together.both) <= union(alone.both)
    one = joint_and_or(v, share=1.0, tolerance=1e-3)
    np.testing.assert_allclose(one.models.l1.sum(0), alone.l1.sum(0), rtol=0.02)
    assert np.isnan(one.models.gap).all()


def test_constant_networks_and_bad_input() -> None:
    found = joint_and_or(np.full((2, 2, 8), 1.5))
    np.testing.assert_allclose(found.models.both, 0, atol=1e-9)
    for v in (np.zeros((2, 8)), np.zeros((1, 2, 8)), np.zeros((2, 1, 1, 8)), np.zeros((2, 1, 2**14))):
        with pytest.raises(ValueError, match="at least 2 networks and n to 13"):
            joint_and_or(v)
    assert joint_and_or(np.ones((2, 1, 2**13)), iterations=1).models.bias == pytest.approx(1)
    with pytest.raises(ValueError, match="share"):
        joint_and_or(np.zeros((2, 1, 4)), share=2.0)
