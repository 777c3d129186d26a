"""Planted terms are found exactly; what is no sparse function of low order is said not to be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import sparse_interactions
from featdyn_kernels import moebius
from tests.engine.statistics.interactions.peers import planted_function, spex

BUDGETS = {20: 10_752, 50: 13_824, 100: 31_488}  # of SPEX on such functions


@pytest.mark.parametrize("basis", ["and", "or"])
@pytest.mark.parametrize("n", [20, 50, 100])
def test_all_planted_terms_are_found_in_a_third_of_the_rivals_queries(n: int, basis: str) -> None:
    for seed in range(3):
        f, planted = planted_function(n, 20, 4, seed, basis=basis)
        asked = []

        def counted(masks: np.ndarray, f=f, asked=asked) -> np.ndarray:
            asked.append(len(masks))
            return f(masks)

        found = sparse_interactions(counted, n, basis=basis, rng=seed)
        assert found.terms.keys() == planted.keys()
        np.testing.assert_allclose([found.terms[s] for s in planted], list(planted.values()), atol=1e-12)
        assert found.bias == pytest.approx(0.3)
        assert (found.queries, found.calls) == (sum(asked), len(asked))
        assert found.queries <= BUDGETS[n] / 3
        assert found.complete
        assert found.trusted
        assert found.r2 > 1 - 1e-12
        masks = np.random.default_rng(seed).random((50, n)) < 0.6
        np.testing.assert_allclose(found.outputs(masks), f(masks), atol=1e-12)


def test_a_table_gives_its_moebius_transform() -> None:
    n = 6
    table = np.random.default_rng(0).normal(size=2**n)
    found = sparse_interactions(lambda masks: table[masks @ 2 ** np.arange(n)], n, max_order=n)
    expected = moebius.moebius(table)
    assert len(found.terms) == 2**n - 1
    for variables, value in found.terms.items():
        assert value == pytest.approx(expected[sum(1 << i for i in variables)], abs=1e-10)
    assert found.bias == pytest.approx(table[0])


def test_one_variable_has_one_term_and_order_eight_is_the_highest() -> None:
    found = sparse_interactions(lambda masks: 2.0 + 3.0 * masks[:, 0], 1, max_order=8)
    assert dict(found.terms) == {(0,): pytest.approx(3)}
    assert found.bias == pytest.approx(2)
    for n, order in ((0, 1), (1, 0), (1, 9)):
        with pytest.raises(ValueError, match="n must be at least 1 and max_order between 1 and 8"):
            sparse_interactions(lambda masks: masks.sum(1), n, max_order=order)


def test_terms_that_cancel_are_found() -> None:
    def f(masks: np.ndarray) -> np.ndarray:
        m = masks.astype(float)
        return m[:, 0] * m[:, 1] - m[:, 2] * m[:, 3] + m[:, 0] * m[:, 2] * m[:, 4] - m[:, 5] * m[:, 6] * m[:, 7]

    found = sparse_interactions(f, 30)
    assert dict(found.terms) == {(0, 1): 1, (2, 3): -1, (0, 2, 4): 1, (5, 6, 7): -1}
    assert found.complete


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_hides_no_large_term_and_makes_none(n: int, seed: int) -> None:
    f, planted = planted_function(n, 15, 4, seed, noise=0.05)
    found = sparse_interactions(f, n, rng=seed)
    assert found.terms.keys() == planted.keys()
    np.testing.assert_allclose([found.terms[s] for s in planted], list(planted.values()), atol=0.15)
    assert 0.03 < found.noise < 0.07
    assert found.trusted
    assert found.r2 < 1


def test_noise_that_hides_everything_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    found = sparse_interactions(lambda masks: 0.1 * masks[:, 0] + rng.normal(size=len(masks)), 20)
    assert not found.trusted
    assert "within the noise" in found.reason
    assert found.r2_low < 0.5
    assert found.queries < 20_000


def test_a_threshold_below_the_noise_asks_more_often() -> None:
    rng = np.random.default_rng(0)

    def f(masks: np.ndarray) -> np.ndarray:
        return masks[:, 2] + 0.1 * masks[:, 0] * masks[:, 1] + 0.05 * rng.normal(size=len(masks))

    small, usual = sparse_interactions(f, 12, threshold=0.06), sparse_interactions(f, 12)
    assert small.terms.keys() == {(2,), (0, 1)}
    assert (0, 1) not in usual.terms
    assert small.queries > 4 * usual.queries


def dense(masks: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(7)
    n = masks.shape[1]
    hidden = np.maximum((masks - 0.5) @ rng.normal(size=(n, 32)), 0)
    return np.maximum(hidden @ rng.normal(size=(32, 32)) / 6, 0) @ rng.normal(size=32)


@pytest.mark.parametrize(
    "f",
    [
        dense,
        lambda masks: masks.sum(1) % 2,
        lambda masks: masks[:, :7].all(1) + 0.5 * masks[:, 9],
        lambda masks: np.random.default_rng(len(masks)).normal(size=len(masks)),
    ],
    ids=["a random network", "parity", "a term of order 7", "noise alone"],
)
def test_what_cannot_be_found_is_not_trusted(f) -> None:
    found = sparse_interactions(f, 22)
    assert not found.trusted
    assert not found.complete
    assert found.r2_low < 0.95
    assert "not to be trusted" in found.reason
    assert found.queries < 20_000


@pytest.mark.parametrize("basis", ["and", "or"])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_what_a_result_is_worth_is_told_by_the_last_masks(basis: str, noise: float) -> None:
    rng, asked = np.random.default_rng(3), []

    def f(masks: np.ndarray) -> np.ndarray:
        asked.append((masks, 7 + dense(masks) + noise * rng.normal(size=len(masks))))
        return asked[-1][1]

    found = sparse_interactions(f, 14, basis=basis, max_queries=4000)
    assert sum(len(masks) for masks, _ in asked) == found.queries <= 4000
    masks, values = asked[-1]
    assert len(masks) == 256
    left = values - found.outputs(masks)
    total = np.square(values - values.mean()).sum()
    assert found.r2 == pytest.approx(1 - np.square(left).sum() / total)
    assert found.worst == pytest.approx(np.abs(left).max())
    counts = np.random.default_rng(0).multinomial(256, np.full(256, 1 / 256), 4000)
    mean = counts @ values / 256
    drawn = 1 - counts @ left**2 / (counts @ values**2 - 256 * mean**2)
    assert found.r2_low == pytest.approx(np.quantile(drawn, 0.025), abs=0.15 * (1 - found.r2_low))
    assert found.reason.startswith(
        f"not to be trusted: R2 is {found.r2:.3g} on 256 fresh masks, at least {found.r2_low:.3g}"
    )
    assert found.reason.endswith("; terms are left that are of order above 4 or too many for max_queries")
    assert found.noise == pytest.approx(noise, rel=0.7)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (-300.0, 1.0), (1e-3, -7.0)])
def test_the_threshold_is_a_share_of_the_range_or_as_given(scale: float, offset: float) -> None:
    def f(masks: np.ndarray) -> np.ndarray:
        return offset + scale * masks[:, 1]

    found = sparse_interactions(f, 9)
    assert found.threshold == pytest.approx(1e-5 * abs(scale))
    assert sparse_interactions(f, 9, threshold=0.25 * abs(scale)).threshold == 0.25 * abs(scale)
    coarse = sparse_interactions(f, 9, threshold=1.01 * abs(scale))
    assert (dict(coarse.terms), coarse.complete) == ({}, True)
    assert coarse.reason == "all 256 fresh masks agree within the threshold"
    assert np.isnan(found.r2_low) == (found.r2 != 1)


def test_noise_sets_the_threshold_and_is_told_from_what_is_left() -> None:
    rng = np.random.default_rng(4)
    found = sparse_interactions(lambda masks: 5.0 * masks[:, 0] + 0.1 * rng.normal(size=len(masks)), 8)
    assert found.threshold == pytest.approx(6 * found.noise)
    assert found.trusted
    assert found.complete
    assert f"errors up to {found.worst:.3g}; what is left is within the noise, of standard deviation" in found.reason
    assert found.reason.startswith("R2 is 0.99")


def test_a_small_term_of_high_order_is_said_to_be_left() -> None:
    found = sparse_interactions(lambda masks: 3.0 * masks[:, 9] + 0.1 * masks[:, :7].all(1), 22)
    assert found.trusted, "R2 is that good"
    assert not found.complete
    assert "left" in found.reason
    assert found.worst > 0.05
    assert sparse_interactions(lambda masks: masks[:, :7].all(1) * 0.1 + masks[:, 9], 22, max_order=7).complete


def test_a_budget_is_kept_and_a_constant_has_no_terms() -> None:
    few = sparse_interactions(dense, 40, max_queries=1_600)
    assert few.queries <= 1_600
    assert not few.exact
    constant = sparse_interactions(lambda masks: np.full(len(masks), 2.5, np.float32), 30)
    assert (dict(constant.terms), constant.bias, constant.trusted) == ({}, 2.5, True)
    assert np.isnan(constant.r2)
    single = sparse_interactions(lambda masks: 2.0 * masks[:, 0], 1)
    assert dict(single.terms) == {(0,): 2}


@pytest.mark.parametrize(
    ("f", "options", "error", "message"),
    [
        (lambda m: np.zeros((len(m), 1)), {}, ValueError, "shape"),
        (lambda m: np.full(len(m), np.nan), {}, ValueError, "finite"),
        (lambda m: np.full(len(m), "x"), {}, TypeError, "real numbers"),
        (lambda m: m[:, 0], {"max_order": 9}, ValueError, "max_order"),
        (lambda m: m[:, 0], {"basis": "xor"}, ValueError, "basis"),
        (lambda m: m[:, 0], {"threshold": 0.0}, ValueError, "threshold"),
        (lambda m: m[:, 0], {"max_queries": 100}, ValueError, "max_queries must be at least 1312, got 100"),
    ],
)
def test_bad_input_is_one_line(f, options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        sparse_interactions(f, 4, **options)


@pytest.mark.slow
def test_the_rival_finds_them_too() -> None:
    pytest.importorskip("shapiq")
    f, planted = planted_function(20, 20, 4, 0)
    found, asked = spex(f, 20, 4, BUDGETS[20])
    assert asked > 3 * sparse_interactions(f, 20).queries
    several = [s for s in planted if len(s) > 1]
    assert sum(abs(found.get(s, 0) - planted[s]) < 0.05 for s in several) >= 0.9 * len(several)
