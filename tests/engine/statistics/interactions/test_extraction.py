"""AND and OR interactions: exact on all masks, sparse as the linear program's, the recipe's steps those of its code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featdyn.statistics.interactions import and_or, indices, orders, relabelled
from tests.engine.statistics.interactions import worlds


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_interactions_reproduce_every_masked_output(n: int, slack: float) -> None:
    v = np.random.default_rng(n).normal(size=(2, 3, 2**n)) + 2
    found = and_or(v, slack=slack)
    for k in np.ndindex(2, 3):
        expected = worlds.outputs(found.i_and[k], found.i_or[k], found.bias[k])
        np.testing.assert_allclose(expected, v[k] + found.q[k], atol=1e-12)
        np.testing.assert_allclose(found.outputs()[k], expected, atol=1e-12)
    assert (np.abs(found.q) <= slack * np.abs(v[..., -1:] - v[..., :1])).all()
    assert (np.abs(found.q).max() > 0) == (slack > 0)
    np.testing.assert_allclose(found.full, v[..., -1], atol=1e-12)
    # Efficiency: all interactions together lead from the masked to the whole sample.
    moved = found.span + found.q[..., -1] - found.q[..., 0]
    np.testing.assert_allclose(found.both.sum((-2, -1)), moved, atol=1e-12)
    assert not found.both[..., 0].any()
    assert (found.gap <= 0.0101 * found.l1).all()
    np.testing.assert_allclose(np.abs(found.both).sum((-2, -1)) + np.abs(found.bias), found.l1, rtol=1e-9)


def test_or_is_minus_and_of_the_swapped_sample() -> None:
    planted = worlds.planted(5, 3, np.random.default_rng(0))
    v = worlds.outputs(planted[0], planted[1], 1.5)
    found, swapped = (and_or(x, slack=0, tolerance=1e-7) for x in (v, v[::-1]))
    np.testing.assert_allclose(found.both, planted, atol=1e-4)
    np.testing.assert_allclose(swapped.i_and, -planted[1], atol=1e-4)
    np.testing.assert_allclose(swapped.i_or, -planted[0], atol=1e-4)


def test_variables_may_be_renamed() -> None:
    rng = np.random.default_rng(1)
    v = worlds.outputs(*worlds.planted(6, 5, rng)) + 0.02 * rng.normal(size=64)
    order = [3, 0, 5, 1, 4, 2]
    there = relabelled(v, order)
    for subset in ((0,), (1, 4), (0, 2, 3)):
        assert there[sum(1 << i for i in subset)] == v[sum(1 << order[i] for i in subset)]
    a, b = (and_or(x, tolerance=1e-6) for x in (v, there))
    np.testing.assert_allclose(relabelled(a.both, order), b.both, atol=1e-3)
    assert not np.allclose(a.both, b.both, atol=1e-3)
    np.testing.assert_allclose(a.l1, b.l1, rtol=2e-6)


def test_planted_interactions_are_found_and_l1_is_the_linear_programs() -> None:
    rng = np.random.default_rng(2)
    planted = worlds.planted(7, 8, rng)
    v = worlds.outputs(*planted) + 0.02 * rng.normal(size=128)
    found, program = and_or(v), and_or(v, method="linear-program")
    assert np.corrcoef(found.both.ravel(), planted.ravel())[0, 1] > 0.99
    assert program.l1 * (1 - 1e-9) <= found.l1 <= 1.02 * program.l1
    assert found.l1 - found.gap <= program.l1 * (1 + 1e-9)
    assert program.gap <= 1e-6 * program.l1
    assert not found.i_or[orders(7) == 1].any()
    np.testing.assert_allclose(and_or(v, method="sgd", iterations=50).bias, v[0], atol=0.05)


@pytest.mark.slow
def test_ten_variables_with_twelve_terms_of_each_kind() -> None:
    rng = np.random.default_rng(0)
    planted = worlds.planted(10, 12, rng, (2, 5))
    v = worlds.outputs(*planted) + 0.02 * rng.normal(size=1024)
    found, program = and_or(v), and_or(v, method="linear-program")
    recipe = and_or(v, method="sgd")
    assert np.corrcoef(found.both.ravel(), planted.ravel())[0, 1] > 0.99
    assert program.l1 * (1 - 1e-9) <= found.l1 <= 1.02 * program.l1
    assert recipe.l1 > 2 * found.l1, "far from converged after 20,000 iterations"


def test_the_recipe_takes_the_steps_of_the_published_code() -> None:
    """Dense sign matrices, autograd and torch's SGD, as the group's code has them."""
    n, iterations, rate = 4, 60, 1e-2
    v = np.random.default_rng(3).normal(size=2**n)
    bound = 0.05 * abs(v[-1] - v[0])
    basis = np.eye(2**n)
    table = torch.from_numpy(v)
    m = torch.from_numpy(np.stack([worlds.dividends(row) for row in basis], axis=1))
    m_or = -m.flip(1)
    m_or[0] = torch.from_numpy(basis[0])
    p, q = (torch.zeros(2**n, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([p, q], lr=0.0, momentum=0.9)
    for lr in np.geomspace(rate, rate / 10, iterations):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        ((m @ (0.5 * (table + q) + p)).abs().sum() + (m_or @ (0.5 * (table + q) - p)).abs().sum()).backward()
        optimizer.step()
        q.data.clamp_(-bound, bound)
    i_and = (m @ (0.5 * (table + q) + p)).detach().numpy()
    i_or = (m_or @ (0.5 * (table + q) - p)).detach().numpy()
    single = orders(n) == 1
    i_and[single] += i_or[single]
    i_or[single] = 0
    i_and[0] = i_or[0] = 0
    found = and_or(v, slack=0.05, method="sgd", learning_rate=rate, iterations=iterations)
    np.testing.assert_allclose(found.q, q.detach(), atol=1e-12)
    np.testing.assert_allclose(found.both, np.stack([i_and, i_or]), atol=1e-10)


def test_the_recipe_says_how_far_from_the_optimum_it_ended() -> None:
    v = worlds.outputs(*worlds.planted(6, 6, np.random.default_rng(3)))
    found, best = and_or(v, method="sgd", iterations=500), and_or(v, method="linear-program").l1
    assert found.l1 - found.gap <= best * (1 + 1e-9)
    assert best * 1.5 < found.l1 < best + 1.01 * found.gap
    solved = and_or(v)
    assert found.l1 - found.gap == pytest.approx(solved.l1 - solved.gap), "the bound is that of the solver"


def test_or_terms_of_one_variable_can_stay() -> None:
    v = np.random.default_rng(4).normal(size=16)
    folded, left = (and_or(v, fold=k, tolerance=1e-6) for k in (1, 0))
    single = orders(4) == 1
    assert left.i_or[single].any()
    assert not folded.i_or[single].any()
    np.testing.assert_allclose(folded.outputs() - folded.q, left.outputs() - left.q, atol=1e-12)


def test_dropping_interactions_leaves_the_others() -> None:
    planted = worlds.planted(4, 3, np.random.default_rng(5))
    known, keep = worlds.model(planted, 0.5), planted > 0
    np.testing.assert_allclose(known.outputs(keep), worlds.outputs(*np.where(keep, planted, 0), 0.5), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: and_or(np.zeros(6)), r"\(\.\.\., 2\*\*n\)"),
        (lambda: and_or(np.zeros(1)), "n >= 1"),
        (lambda: and_or([np.nan, 1]), "finite"),
        (lambda: and_or(np.zeros(4), slack=-1), "slack"),
        (lambda: and_or(np.zeros(4), slack=np.inf), "slack"),
        (lambda: and_or(np.zeros(4), method="lasso"), "method must be"),
        (lambda: and_or(np.zeros(2**11), method="linear-program"), "primal-dual"),
        (lambda: and_or(np.zeros(4), iterations=3), "iterations belong to method sgd"),
        (lambda: and_or(np.zeros(4), method="sgd", learning_rate=0), "learning_rate"),
        (lambda: relabelled(np.zeros(4), [0, 0]), "permutation"),
        (lambda: indices.shapley_interactions(np.zeros(4), 3), "order must be between 1 and 2"),
    ],
)
def test_bad_input_is_one_line(call, message) -> None:
    with pytest.raises(ValueError, match=message) as found:
        call()
    assert "\n" not in str(found.value)


def test_the_most_variables_of_the_program() -> None:
    v = np.zeros(2**10)
    v[-1] = 2.0
    found = and_or(v, slack=0, method="linear-program")
    assert found.i_and[-1] == pytest.approx(2)
    assert found.l1 == pytest.approx(2)


def test_a_constant_table_has_no_interactions() -> None:
    found = and_or(np.full((2, 8), 3.0))
    assert not found.both.any()
    np.testing.assert_allclose(found.bias, 3.0)


def test_the_steps_follow_the_derivative_of_the_sum_of_magnitudes() -> None:
    from featdyn.statistics.interactions.published_sgd import _gradients
    from featdyn_kernels import moebius

    v, p, q = np.random.default_rng(0).standard_normal((3, 1, 8))

    def size(dp: np.ndarray, dq: np.ndarray) -> float:
        return float(np.abs(np.stack(moebius.interactions(v, p + dp, q + dq))).sum())

    by_and, by_or = _gradients(v, p, q)
    steps, still = 1e-6 * np.eye(8)[:, None], np.zeros((1, 8))
    of_p = [(size(step, still) - size(-step, still)) / 2e-6 for step in steps]
    of_q = [(size(still, step) - size(still, -step)) / 2e-6 for step in steps]
    np.testing.assert_allclose((by_and - by_or)[0], of_p, atol=1e-6)
    np.testing.assert_allclose(((by_and + by_or) / 2)[0], of_q, atol=1e-6)
