"""The Gram matrix: additive over coordinates, exact for large means and float16, refusing what it cannot use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.statistics import Gram, isotropy, sphericity
from featdyn.statistics.gram import centred
from tests.engine.statistics import reference
from tests.strategies import sizes

SHAPES = st.tuples(sizes(4, 13), sizes(2, 23))


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 10), st.data())
def test_blocks_of_coordinates_add_up(shape: tuple[int, int], seed: int, data: st.DataObject) -> None:
    x = np.random.default_rng(seed).standard_normal(shape) + 3
    cut = data.draw(st.integers(1, shape[1] - 1))
    whole, parts = Gram.of(x), Gram.of(x[:, :cut]) + Gram.of(x[:, cut:])
    assert parts.p == whole.p
    for name in ("centred", "along_mean", "mean_square", "fourth", "fourth_centred"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 10), st.sampled_from(["estimated", "known"]))
def test_both_sides_give_the_traces_of_the_covariance(shape: tuple[int, int], seed: int, center: str) -> None:
    x = np.random.default_rng(seed).standard_normal(shape) + 0.5
    m, p, t = reference.traces(x, center)
    for draws in (x, Gram.of(x)):  # an array with n > p takes the other side
        c = centred(draws, center)  # type: ignore[arg-type]
        assert (c.m, c.p) == (m, p)
        assert len(c.eigenvalues) == min(m, p)
        np.testing.assert_allclose([c.trace(k) for k in (1, 2, 3, 4)], t[1:], rtol=1e-9)
        np.testing.assert_allclose(
            c.rows @ c.rows.T, reference.centred(x, center)[0] @ reference.centred(x, center)[0].T, atol=1e-9
        )


def test_large_means_cost_no_digits_of_the_deviations() -> None:
    z = np.random.default_rng(0).standard_normal((9, 40))
    shifted = z + 1e6
    expected = Gram.of(shifted - 1e6).about("estimated").trace(2)
    assert Gram.of(shifted).about("estimated").trace(2) == pytest.approx(expected, rel=1e-9)
    known = Gram.of(shifted).about("known")
    np.testing.assert_allclose(np.sort(known.square_norms), np.sort((shifted**2).sum(1)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_products_are_those_of_float64(dtype: type) -> None:
    x = (8 * np.random.default_rng(1).standard_normal((6, 301))).astype(dtype)[:, ::2]
    np.testing.assert_array_equal(Gram.of(x).centred, Gram.of(x.astype(np.float64)).centred)


def test_many_blocks_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).standard_normal((7, 101))
    whole = Gram.of(x)
    monkeypatch.setattr("featdyn.statistics.gram._BLOCK", 7 * 13)
    np.testing.assert_allclose(Gram.of(x).centred, whole.centred, atol=1e-12)


@pytest.mark.parametrize("law", ["uniform", "standard_normal", "laplace"])
@pytest.mark.parametrize("center", ["estimated", "known"])
def test_kurtosis_is_that_of_the_entries(law: str, center: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (12, 40_000)) if law == "uniform" else getattr(rng, law)(size=(12, 40_000))
    truth = {"uniform": -1.2, "standard_normal": 0.0, "laplace": 3.0}[law]
    assert Gram.of(x).about(center).excess_kurtosis == pytest.approx(truth, abs=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((5, 8)), "does not vary"),
        (np.ones((8, 5)) * 0.1, "does not vary"),
        (np.ones((5, 8)) * 0.1, "does not vary"),
        (np.full((5, 8), np.nan), "finite"),
        (np.where(np.eye(8, 5) > 0, np.inf, 0.0), "finite"),
        (np.ones((2, 8)), r"at least 3 rows .* got \(2, 8\)"),
        (np.ones((8, 1)), r"got \(8, 1\)"),
        (np.ones(8), r"got \(8,\)"),
    ],
)
def test_refusals_are_one_line(x: np.ndarray, message: str) -> None:
    for test in (sphericity.john, sphericity.sign_test):
        with pytest.raises(ValueError, match=message) as error:
            test(x)
        assert "\n" not in str(error.value)


def test_other_refusals() -> None:
    x = np.random.default_rng(0).standard_normal((6, 9))
    with pytest.raises(ValueError, match="center"):
        sphericity.john(x, center="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="center"):
        sphericity.john(x.T, center="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="was centred with"):
        sphericity.john(Gram.of(x).about("known"))
    with pytest.raises(TypeError, match="real"):
        sphericity.john(x * 1j)
    with pytest.raises(ValueError, match="6 and 5 draws"):
        Gram.of(x) + Gram.of(x[:5])
    with pytest.raises(ValueError, match="1e-69 and 1e69"):
        Gram.of(x * 1e160)
    with pytest.raises(ValueError, match="rows have a direction"):
        sphericity.sign_test(np.vstack([x[:1], np.zeros((5, 9))]), center="known")
    with pytest.raises(ValueError, match="needs p < m"):
        sphericity.mauchly(x)
    with pytest.raises(ValueError, match="needs p > m"):
        sphericity.quasi_lrt(x.T)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-60, 1e70, 1e160, 1e300])
@pytest.mark.parametrize("shape", [(20, 30), (30, 6)])
def test_units_change_nothing(scale: float, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(4).standard_normal(shape)
    exact = np.ldexp(x, int(np.log2(scale)))  # a power of two near it: the same digits
    one, other = isotropy(x), isotropy(exact)
    assert other.verdict == one.verdict
    for a, b in zip(one.tests, other.tests, strict=True):
        assert (a.result is None) == (b.result is None)
        if a.result is not None and b.result is not None:
            assert b.result.statistic == pytest.approx(a.result.statistic, rel=1e-9)
            assert b.result.pvalue == pytest.approx(a.result.pvalue, rel=1e-6)
    if 1e-69 < scale < 1e69:
        found = sphericity.john(Gram.of(exact))
        assert found.statistic == pytest.approx(sphericity.john(x).statistic, rel=1e-9)


@pytest.mark.parametrize("center", ["estimated", "known"])
def test_draws_without_a_direction_are_left_out(center: str) -> None:
    x = np.random.default_rng(5).standard_normal((21, 12))
    more = np.vstack([x[:20], np.ones((2, 12)) * (center == "estimated"), x[20:]])  # one equal pair, or two zeros
    found, wanted = (isotropy(z, center=center) for z in (more, x))  # type: ignore[arg-type]
    sign, without = found["sign_test"].result, wanted["sign_test"].result
    assert sign is not None
    assert without is not None
    assert (sign.n, sign.statistic) == (without.n, pytest.approx(without.statistic))


@pytest.mark.parametrize("shape", [(3000, 20), (64, 3000)])
def test_threads_change_no_bit(shape: tuple[int, int]) -> None:
    from threadpoolctl import threadpool_limits

    x = np.random.default_rng(6).standard_normal(shape)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            result = isotropy(x)
        values = [e.result.statistic for e in result.tests if e.result is not None]
        found.append((result.verdict, result.participation_ratio, result.checks, values))
    assert found[0] == found[1]
