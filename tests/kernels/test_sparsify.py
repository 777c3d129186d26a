from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import moebius
from featdyn_kernels.moebius.sparse.blocks import blocks
from tests.kernels.peers.sparsify import highs_as_printed, numpy_iterations, planted


def l1_by_hand(v, p, q):
    """The objective from its definition: sums over subsets, in float64."""
    size = len(v)
    v_and, v_or = 0.5 * (v + q) + p, 0.5 * (v + q) - p
    total = 0.0
    for s in range(size):
        subsets = [t for t in range(size) if t & s == t]
        signs = [(-1.0) ** (bin(s).count("1") - bin(t).count("1")) for t in subsets]
        total += abs(sum(a * v_and[t] for a, t in zip(signs, subsets, strict=True)))
        swapped = sum(a * v_or[size - 1 - t] for a, t in zip(signs, subsets, strict=True))
        total += abs(v_or[0]) if s == 0 else abs(swapped)
    return total


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 7),
    batch=st.integers(1, 19),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.02, 0.3]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_gap_holds_the_optimum_of_a_linear_program(n, batch, seed, share, dtype):
    table = planted(n, batch, terms=4, orders=(1, max(1, n - 1)), seed=seed)[0].astype(dtype)
    bound = share * np.abs(table[:, -1] - table[:, 0]).astype(float)
    found = moebius.sparsify(table, bound=bound)
    assert found.p.shape == found.q.shape == table.shape
    assert found.l1.shape == found.gap.shape == (batch,)
    assert (np.abs(found.q) <= bound[:, None] * (1 + 1e-6)).all()
    slack = {"float32": 1e-4, "float64": 1e-6}[dtype]  # rounding of the table's own values
    for i in range(min(batch, 2)):
        optimum = highs_as_printed(table[i].astype(float), float(bound[i]))
        room = float(slack * (1 + abs(table[i]).max() * 2**n))
        assert found.l1[i] >= optimum - room
        assert found.l1[i] - found.gap[i] <= optimum + room
        if n <= 5:
            by_hand = l1_by_hand(*(a[i].astype(float) for a in (table, found.p, found.q)))
            assert found.l1[i] == pytest.approx(by_hand, rel=1e-6, abs=room)


def test_planted_interactions_come_back_within_the_tolerance():
    table, i_and, i_or = planted(10, 6, seed=3)
    bound = 0.02 * np.abs(table[:, -1] - table[:, 0])
    found = moebius.sparsify(table.astype("float32"), bound=bound, tolerance=0.01)
    assert (found.gap <= 0.0101 * found.l1).all()
    ands, ors = moebius.interactions(table, found.p.astype(float), found.q.astype(float))
    for i in range(len(table)):
        truth, got = np.concatenate([i_and[i], i_or[i]]), np.concatenate([ands[i], ors[i]])
        assert np.corrcoef(truth, got)[0, 1] > 0.97


def test_the_reference_is_exact():
    table = planted(5, 3, terms=3, orders=(1, 4), seed=0)[0]
    bound = 0.02 * np.abs(table[:, -1] - table[:, 0])
    exact = moebius.sparsify(table, bound=bound, backend="reference")
    fast = moebius.sparsify(table, bound=bound, tolerance=1e-6, iterations=50_000)
    np.testing.assert_allclose(exact.gap, 0, atol=1e-9 * exact.l1.max())
    np.testing.assert_allclose(fast.l1, exact.l1, rtol=2e-6)


@pytest.mark.parametrize("inverse", ["dense", "blocks"])
@pytest.mark.parametrize(("n", "dtype", "atol"), [(3, "float64", 1e-11), (6, "float32", 1e-4), (9, "float64", 1e-11)])
def test_peer_takes_the_same_iterations(n, dtype, atol, inverse):
    table = planted(n, 5, terms=4, orders=(1, n - 1), seed=n)[0].astype(dtype)
    bound = (0.02 * np.abs(table[:, -1] - table[:, 0])).astype(dtype)
    found = moebius.sparsify(table, bound=bound, tolerance=0.0, iterations=60, fold=0)
    p, q, prices = numpy_iterations(table, bound, 60, inverse)
    np.testing.assert_allclose(q, found.q, atol=atol)
    np.testing.assert_allclose(prices, found.prices, atol=atol)
    # Folding moves what is constant among the OR interactions, and no other value of p.
    np.testing.assert_allclose(p - p[:, :1], found.p - found.p[:, :1], atol=10 * atol)


@pytest.mark.parametrize("n", [1, 3, 6, 8, 11])
def test_blocks_invert_the_operator(n):
    found, step, slack_step = blocks(n), 0.3, 0.05
    assert sorted(found.places[found.places >= 0]) == list(range(2**n))
    x = np.random.default_rng(n).normal(size=2**n)
    coupled = np.append((found.high.T @ x.reshape(len(found.high), -1) @ found.low).ravel(), 0.0)
    inner = np.einsum("kij,ki->kj", found.vectors, coupled[found.places]) / (step * found.spectrum + slack_step)
    coupled[found.places] = np.einsum("kij,kj->ki", found.vectors, inner)
    y = (found.high @ coupled[:-1].reshape(len(found.high), -1) @ found.low.T).ravel()
    applied = moebius.zeta(moebius.zeta_adjoint(y)) + moebius.zeta_adjoint(moebius.zeta(y))
    np.testing.assert_allclose(step * applied + slack_step * y, x, atol=1e-9)


def test_interactions_reconstruct_the_table():
    table = planted(4, 2, terms=3, orders=(1, 3), seed=1)[0]
    found = moebius.sparsify(table, bound=0.1)
    ands, ors = moebius.interactions(table, found.p, found.q)
    for t in range(16):
        inside = sum(ands[:, s] for s in range(16) if s & t == s)
        meets = sum(ors[:, s] for s in range(16) if s & t or s == t == 0)
        np.testing.assert_allclose(inside + meets, (table + found.q)[:, t], atol=1e-9)


def test_kinds_shapes_and_a_warm_start():
    table = torch.from_numpy(planted(6, 6, terms=5, seed=2)[0].astype("float32")).reshape(2, 3, 64)
    cold = moebius.sparsify(table, bound=0.05)
    assert isinstance(cold.p, torch.Tensor)
    assert cold.p.shape == (2, 3, 64)
    assert cold.l1.shape == (2, 3)
    warm = moebius.sparsify(table, bound=0.05, start=cold)
    assert warm.iterations.sum() <= cold.iterations.sum()
    strided = moebius.sparsify(torch.stack([table, table], -1)[..., 0], bound=0.05)
    assert torch.equal(strided.p, cold.p)


def test_bad_input_is_refused():
    table = planted(4, 2, terms=3, seed=0)[0]
    for value in (np.nan, np.inf):
        broken = table.copy()
        broken[1, 3] = value
        with pytest.raises(ValueError, match="must be finite"):
            moebius.sparsify(broken, bound=0.1)
    with pytest.raises(ValueError, match="bound must be finite and not negative"):
        moebius.sparsify(table, bound=-1.0)
    with pytest.raises(ValueError, match=r"bound must be a scalar or have shape \(2,\), got \(3,\)"):
        moebius.sparsify(table, bound=np.ones(3))
    with pytest.raises(ValueError):
        moebius.sparsify(table[:, :15], bound=0.1)
