"""Each test beside its definition, its invariances, and its null law."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from featdyn.statistics import Gram, TestResult, alignment, isotropy, sphericity, tracy_widom, wishart
from featdyn.statistics.gram import centred
from featdyn.statistics.sphericity.highdim import fourth_moment, second_moment
from tests.engine.statistics import laws, peers, reference
from tests.strategies import sizes

TESTS: dict[str, Callable[..., TestResult]] = {name: getattr(sphericity, name) for name in sphericity.__all__}
CENTERS = st.sampled_from(["estimated", "known"])


def run(name: str, x: np.ndarray | Gram, center: str) -> TestResult | None:
    n, p = (x.n, x.p) if isinstance(x, Gram) else x.shape
    m = n - (center == "estimated")
    if (name in ("mauchly", "corrected_lrt") and p >= m) or (name == "quasi_lrt" and p <= m):
        return None
    return TESTS[name](x, center=center, **({"replicates": 19} if name.startswith("exact") else {}))


@settings(deadline=None, max_examples=40)
@given(st.tuples(sizes(7, 20), sizes(2, 30)), st.integers(0, 20), CENTERS)
def test_statistics_are_those_of_the_covariance_matrix(shape: tuple[int, int], seed: int, center: str) -> None:
    x = np.random.default_rng(seed).standard_normal(shape) * np.linspace(1, 2, shape[1]) + 0.3
    p = shape[1]
    for name, expected in reference.statistics(x, center).items():
        found = TESTS[name](x, center=center)
        assert found.statistic == pytest.approx(expected, rel=1e-7, abs=1e-7)
        law = stats.chi2(p * (p + 1) / 2 - 1) if name in ("john", "mauchly") else stats.norm()
        assert found.pvalue == pytest.approx(law.sf(expected), rel=1e-5, abs=1e-9)


def test_quasi_lrt_is_that_of_the_dual_covariance() -> None:
    x = np.random.default_rng(0).standard_normal((9, 60))
    assert sphericity.quasi_lrt(x).statistic == pytest.approx(reference.quasi_lrt(x), rel=1e-9)


@pytest.mark.parametrize("p", [3, 7, 40])
def test_chen_zhang_zhong_equals_the_quadruple_sum(p: int) -> None:
    x = np.random.default_rng(p).standard_normal((7, p)) * np.linspace(1, 3, p) + 2
    result = sphericity.chen_zhang_zhong(x)
    t1, t2 = reference.czz_sums(x)
    assert result.extras["T1"] == pytest.approx(t1, rel=1e-12)
    assert result.extras["T2"] == pytest.approx(t2, rel=1e-11)
    assert result.statistic == pytest.approx(7 / 2 * (p * t2 / t1**2 - 1), rel=1e-9)
    known = sphericity.chen_zhang_zhong(x, center="known")
    products = x @ x.T
    assert known.extras["T2"] == pytest.approx((np.sum(products**2) - np.sum(np.diag(products) ** 2)) / 42, rel=1e-12)


@pytest.mark.parametrize("power", [-150, 3, 150])
def test_moments_are_in_the_units_of_the_draws(power: int) -> None:
    x = np.random.default_rng(0).standard_normal((7, 9))
    plain, kurtosis = sphericity.chen_zhang_zhong(x).extras, sphericity.wang_yao(x).extras["excess_kurtosis"]
    for moved in (np.ldexp(x, power), Gram.of(np.ldexp(x, power))):
        other = sphericity.chen_zhang_zhong(moved).extras
        assert other["T1"] == pytest.approx(plain["T1"] * 2.0 ** (2 * power))
        assert other["T2"] == pytest.approx(plain["T2"] * 2.0 ** (4 * power))
        assert sphericity.wang_yao(moved).extras["excess_kurtosis"] == pytest.approx(kurtosis)


def test_sign_and_exact_statistics_are_those_of_the_draws() -> None:
    x = laws.elliptical(np.random.default_rng(0), 11, 30)
    for center, rows, every in (("known", x, x), ("estimated", x[0:10:2] - x[1:10:2], x - x.mean(0))):
        n, s = len(rows), rows / np.linalg.norm(rows, axis=1, keepdims=True)
        c = s @ s.T
        q = 30 / (n * (n - 1)) * (np.sum(c**2) - n) - 1
        sign = sphericity.sign_test(x, center=center)  # type: ignore[arg-type]
        assert sign.extras["Q"] == pytest.approx(q, rel=1e-9)
        assert sign.n == n
        _, p, t = reference.traces(every, "known")
        exact = sphericity.exact_norm_conditional(x, center=center)  # type: ignore[arg-type]
        assert exact.statistic == pytest.approx(p * t[2] / t[1] ** 2 - 1, rel=1e-9)


@pytest.mark.parametrize("scales", [np.ones(12), np.linspace(0.5, 2, 12)])
def test_moments_are_unbiased(scales: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(1500):
        c = centred(rng.standard_normal((9, 12)) * np.sqrt(scales), "estimated")
        found.append([*c.unbiased_traces, second_moment(c), fourth_moment(c)])
    truth = [scales.sum(), (scales**2).sum(), (scales**2).mean(), (scales**4).mean()]
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error).all()


@pytest.mark.parametrize("center", ["known", "estimated"])
def test_lengths_of_draws_at_right_angles_are_theirs(center: str) -> None:
    """What is expected of draws with independent directions holds of these exactly, whatever their mean."""
    lengths = np.array([2.0, 1.0, 3.0, 0.5, 1.5])
    rotation = stats.ortho_group.rvs(7, random_state=0)
    found = centred(lengths[:, None] * rotation[:5], center).lengths  # type: ignore[arg-type]
    np.testing.assert_allclose(found, lengths, rtol=1e-12)


@settings(deadline=None, max_examples=8)
@given(st.tuples(sizes(8, 15), sizes(2, 40)), st.integers(0, 9), CENTERS, st.floats(1e-3, 1e3))
def test_rotation_and_scale_change_nothing(shape: tuple[int, int], seed: int, center: str, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.linspace(1, 2, shape[1])
    rotation = stats.ortho_group.rvs(shape[1], random_state=seed)
    for name in set(TESTS) - {"wang_yao"}:  # its kurtosis is that of the coordinates as they are
        first, second = run(name, x, center), run(name, scale * x @ rotation, center)
        if first is not None and second is not None:
            assert second.statistic == pytest.approx(first.statistic, rel=1e-6, abs=1e-6)
    a, b = (sphericity.wang_yao(z, center=center).statistic for z in (x, scale * x))  # type: ignore[arg-type]
    assert a == pytest.approx(b, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=8)
@given(st.tuples(sizes(8, 15), sizes(2, 40)), st.integers(0, 9), CENTERS)
def test_order_and_shift_change_nothing(shape: tuple[int, int], seed: int, center: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    moved = x[:, rng.permutation(shape[1])]
    order, shift = rng.permutation(shape[0]), rng.standard_normal(shape[1])
    moved = moved[order] if center == "known" else moved + shift  # differences of pairs depend on the order
    for name in TESTS:
        first, second = run(name, x, center), run(name, moved, center)
        if first is not None and second is not None:
            assert second.statistic == pytest.approx(first.statistic, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("center", ["estimated", "known"])
def test_one_gram_gives_what_the_array_gives(center: str) -> None:
    x = np.random.default_rng(5).standard_normal((30, 12)).astype(np.float32)
    gram = Gram.of(x[:, :5]) + Gram.of(x[:, 5:])
    for name in TESTS:
        first, second = run(name, x, center), run(name, gram, center)  # type: ignore[arg-type]
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert second.statistic == pytest.approx(first.statistic, rel=1e-8)
            assert 0 <= second.pvalue <= 1


def test_pvalues_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(6)
    names = ("john", "ledoit_wolf", "wang_yao", "srivastava", "fisher", "chen_zhang_zhong", "largest_root", "sign_test")
    found: dict[str, list[float]] = {name: [] for name in (*names, "exact_norm_conditional")}
    for i in range(300):
        c = Gram.of(laws.gaussian(rng, 48, 160)).about("known")
        for name in names:
            found[name].append(TESTS[name](c, center="known").pvalue)
        if i < 150:
            small = laws.elliptical(rng, 12, 20, 3)
            found["exact_norm_conditional"].append(TESTS["exact_norm_conditional"](small, center="known", rng=i).pvalue)
    for name, pvalues in found.items():
        assert stats.kstest(pvalues, "uniform").pvalue > 1e-3, name


def test_the_exact_test_repeats_and_counts_its_draws() -> None:
    x = laws.gaussian(np.random.default_rng(0), 20, 8)
    first, second = (sphericity.exact_norm_conditional(x) for _ in range(2))
    assert first == second
    spiked = sphericity.exact_norm_conditional(x * np.array([30, *[1] * 7]), replicates=99)
    assert (spiked.pvalue, spiked.extras["replicates"]) == (0.01, 99)
    assert first.extras["replicates"] < 999  # fifty exceedances end it
    with pytest.raises(ValueError, match="replicates"):
        sphericity.exact_norm_conditional(x, replicates=0)


@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize("block", [1, 7 * 24, 50 * 24, 10**9])
def test_fifty_exceedances_end_the_exact_test_in_whatever_blocks(
    block: int, center: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted one redrawn set after the other."""
    for seed in range(3):
        x = laws.gaussian(np.random.default_rng(seed), 6, 5)
        c = centred(x, center)  # type: ignore[arg-type]
        sums = []
        for uniform in wishart.directions(6, 5, 400, np.random.default_rng(seed)):
            for rows in c.redrawn(uniform):
                gram = rows @ rows.T
                sums.append(np.square(gram).sum() / np.trace(gram) ** 2)
        observed = np.square(c.rows @ c.rows.T).sum() / c.square_norms.sum() ** 2
        reached = np.cumsum(np.array(sums) >= observed)
        drawn = int(np.searchsorted(reached, 50)) + 1 if reached[-1] >= 50 else 400
        wanted = 50 / drawn if reached[-1] >= 50 else (1 + reached[-1]) / 401
        monkeypatch.setattr(wishart, "_BLOCK", block)
        found = sphericity.exact_norm_conditional(
            x,
            center=center,
            replicates=400,
            rng=np.random.default_rng(seed),  # type: ignore[arg-type]
        )
        assert (found.pvalue, found.extras["replicates"]) == (pytest.approx(wanted), drawn)


def test_tracy_widom_quantiles() -> None:
    for quantile, level in ((0.4501, 0.1), (0.9793, 0.05), (2.0234, 0.01), (3.2724, 0.001)):
        assert tracy_widom.survival(quantile) == pytest.approx(level, rel=1e-3)
    # Mean of TW1, Bornemann (2010); 1 - F integrates to it.
    grid = np.linspace(-8, 8, 1601)
    tail = np.array([tracy_widom.survival(s) for s in grid])
    assert tail.sum() * 0.01 - 8 == pytest.approx(-1.2065335745820, abs=6e-3)
    # Far in the tail 1 - F is half the integral of the Airy function.
    from scipy.integrate import quad
    from scipy.special import airy

    for s in (8.0, 11.9, 12.1, 20.0, 60.0, 100.0):
        assert tracy_widom.survival(s) == pytest.approx(
            quad(lambda t: airy(t)[0], s, s + 20, epsabs=0)[0] / 2, rel=1e-5, abs=0
        )
    assert [tracy_widom.survival(s) for s in (119.0, 1e3, 1e9)] == [0, 0, 0]
    values = [tracy_widom.survival_without_trace(s, 0.3) for s in np.linspace(-12, 60, 200)]
    assert (np.diff(values) < 1e-9).all()  # rounding where the value is 1
    assert (np.diff(values[40:]) < 0).all()


@pytest.mark.parametrize(("n", "p"), [(41, 60), (61, 20), (30, 500)])
@pytest.mark.parametrize("excess", [0.0, 3.0])
def test_the_largest_root_is_standardised_and_the_trace_s_share_taken_off(n: int, p: int, excess: float) -> None:
    x, m = laws.planted(np.random.default_rng(5), n, p, 1, excess), n - 1
    roots = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    a, b = np.sqrt(m - 0.5), np.sqrt(p - 0.5)
    mu, s = (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)
    found = sphericity.largest_root(x)
    assert found.statistic == pytest.approx((m * p * roots[0] / roots.sum() - mu) / s)
    assert found.extras["share"] == pytest.approx(roots[0] / roots.sum())
    assert found.extras["tracy_widom_pvalue"] == pytest.approx(tracy_widom.survival(found.statistic))
    variance = 2 / (m * p) * (mu / s) ** 2
    assert variance < 0.5
    assert found.pvalue == pytest.approx(tracy_widom.survival_without_trace(found.statistic, variance))


@pytest.mark.parametrize(("n", "p"), [(4, 3), (9, 10), (30, 200), (400, 5)])
def test_largest_root_holds_its_level_from_tiny_to_large(n: int, p: int) -> None:
    rng = np.random.default_rng(7)
    pvalues = [sphericity.largest_root(laws.gaussian(rng, n, p)).pvalue for _ in range(600)]
    assert np.mean(np.array(pvalues) <= 0.05) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 600))


@pytest.mark.parametrize(("n", "p"), [(5, 300), (6, 2), (40, 3)])
def test_sign_test_holds_small_levels_with_few_rows_or_coordinates(n: int, p: int) -> None:
    rng = np.random.default_rng(8)
    results = [sphericity.sign_test(laws.elliptical(rng, n, p, 2), center="known") for _ in range(3000)]
    pvalues, normal = (
        np.array([f(r) for r in results]) for f in (lambda r: r.pvalue, lambda r: r.extras["normal_pvalue"])
    )
    assert np.mean(pvalues <= 0.01) == pytest.approx(0.01, abs=4 * np.sqrt(0.01 / 3000))
    assert np.mean(normal <= 0.01) > 0.015


@pytest.mark.parametrize("n", [3, 4, 9, 40])
@pytest.mark.parametrize("p", [2, 3, 11, 200])
def test_the_sign_test_has_the_variance_and_the_skewness_of_random_directions(n: int, p: int) -> None:
    """Of all pairs, each a Beta law, and of all triangles: given two sides' ends, the mean of both is the third's."""
    square = stats.beta(1 / 2, (p - 1) / 2)
    variance, third = (square.expect(lambda b, k=k: (p * b - 1) ** k) for k in (2, 3))
    pairs, triangles = n * (n - 1) / 2, n * (n - 1) * (n - 2) / 6
    skewness = (pairs * third + 6 * triangles * variance**2 / (p - 1)) / (pairs * variance) ** 1.5
    x = laws.elliptical(np.random.default_rng([n, p]), n, p) * np.linspace(1, 2, p)
    found = sphericity.sign_test(x, center="known")
    assert found.statistic == pytest.approx(found.extras["Q"] / np.sqrt(variance / pairs), rel=1e-6)
    assert found.pvalue == pytest.approx(stats.pearson3(skewness).sf(found.statistic), rel=1e-5)
    assert found.extras["normal_pvalue"] == pytest.approx(stats.norm.sf(found.statistic))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([4, 5]), sizes(2, 9), st.integers(0, 999))
def test_of_two_rows_the_sign_test_has_the_law_of_one_angle(n: int, p: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, p))
    found = sphericity.sign_test(x)
    assert found.n == 2
    one, other = x[1] - x[0], x[3] - x[2]
    cosine = abs(one @ other) / np.linalg.norm(one) / np.linalg.norm(other)
    density = lambda angle: np.sin(angle) ** (p - 2)  # noqa: E731 - of the angle between random directions
    wanted = integrate.quad(density, 0, np.arccos(cosine))[0] / integrate.quad(density, 0, np.pi / 2)[0]
    assert found.pvalue == pytest.approx(wanted, rel=1e-6)
    assert isotropy(x).verdict in ("isotropic", "anisotropic", "undecided")


def test_peers_of_the_benchmark_agree() -> None:
    x = np.random.default_rng(9).standard_normal((12, 40))
    for name, expected in peers.statistics(peers.gram(x), 40).items():
        assert TESTS[name](x, center="known").statistic == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [40, 200])  # whose redrawn directions are kept, and are not
def test_a_seed_and_its_generator_draw_the_same(n: int) -> None:
    x = laws.gaussian(np.random.default_rng(3), n, 300) * np.linspace(1, 1.3, 300)
    for known in ("known", "estimated"):
        once, again, other = (
            sphericity.exact_norm_conditional(x, center=known, rng=rng) for rng in (5, 5, np.random.default_rng(5))
        )
        assert once == again == other
        first, second, third = (
            alignment.explained_shares(x, center=known, rng=rng).baseline for rng in (5, 5, np.random.default_rng(5))
        )
        assert first.tobytes() == second.tobytes()
        np.testing.assert_allclose(third, first, rtol=1e-6)  # of a seed inner products are kept, in float32


@pytest.mark.parametrize(("n", "p"), [(4, 9), (31, 31), (64, 300)])
@pytest.mark.parametrize("tail", [1.0, 30.0])
def test_inner_products_of_directions_serve_as_the_directions_do(
    n: int, p: int, tail: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(3).standard_t(tail, (n, p)) * np.linspace(1, 1.5, p)
    for known in ("known", "estimated"):
        calls = partial(sphericity.exact_norm_conditional, x), partial(alignment.explained_shares, x, (1, 2))
        kept = [call(center=known) for call in calls]
        with monkeypatch.context() as patch:
            patch.setattr(wishart, "cosines", lambda *size: None)
            plain = [call(center=known) for call in calls]
        assert kept[0] == plain[0]
        for name in ("baseline", "baseline_high"):
            np.testing.assert_allclose(getattr(kept[1], name), getattr(plain[1], name), rtol=1e-5)


@pytest.mark.parametrize("b", [-1.2, 0.7, 6.0])
def test_the_fourth_moment_shifts_the_corrected_likelihood_ratio_by_its_share(b):
    n, p = 60, 23
    x = np.random.default_rng(0).normal(size=(n, p))
    ratio = p / (n - 1)
    scale = np.sqrt(-2 * np.log(1 - ratio) - 2 * ratio)
    gaussian, other = (sphericity.corrected_lrt(x, excess_kurtosis=kurtosis) for kurtosis in (0.0, b))
    np.testing.assert_allclose(other.statistic - gaussian.statistic, -b * ratio / 2 / scale, rtol=1e-10)


@pytest.mark.parametrize("b", [None, -1.2, 0.0, 6.0])
def test_the_fourth_moment_shifts_john_s_and_the_likelihood_ratio_of_many_coordinates(b: float | None) -> None:
    x = np.random.default_rng(1).laplace(size=(12, 40))
    own = centred(x, "estimated").excess_kurtosis if b is None else b
    found = sphericity.wang_yao(x, excess_kurtosis=b)
    assert found.statistic == pytest.approx(sphericity.ledoit_wolf(x).statistic - own / 2)
    found = sphericity.quasi_lrt(x, excess_kurtosis=b)
    assert found.statistic == pytest.approx(reference.quasi_lrt(x) - own / 2)
    assert found.extras["excess_kurtosis"] == own
    assert ("Gaussian" in found.assumptions) == (b == 0)
    x = x.T
    own = centred(x, "estimated").excess_kurtosis if b is None else b
    given, gaussian = sphericity.corrected_lrt(x, excess_kurtosis=b), sphericity.corrected_lrt(x)
    ratio = 12 / 39
    assert given.statistic - gaussian.statistic == pytest.approx(
        -own * ratio / 2 / np.sqrt(-2 * np.log(1 - ratio) - 2 * ratio)
    )
    assert ("Gaussian" in given.assumptions) == (b == 0)


@pytest.mark.parametrize("center", ["known", "estimated"])
def test_sizes_at_which_a_test_begins(center: str) -> None:
    x = np.random.default_rng(2).standard_normal((9, 9))
    known = {"center": center}
    m = 9 - (center == "estimated")
    for p in range(m - 1, m + 2):
        wide = np.c_[x, x[:, :1] ** 2][:, :p]
        for name, works in (("mauchly", p < m), ("corrected_lrt", p < m), ("quasi_lrt", p > m)):
            if works:
                assert np.isfinite(TESTS[name](wide, **known).statistic)
            else:
                with pytest.raises(ValueError, match=rf"{name} needs p [<>] m, got x of shape \(9, {p}\), m = {m}"):
                    TESTS[name](wide, **known)
    for n in (3, 4, 5, 6):
        m = n - (center == "estimated")
        if m > 3:
            assert np.isfinite(sphericity.fisher(x[:n], **known).statistic)  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=rf"fisher needs m >= 4, got x of shape \({n}, 9\), m = {m}"):
                sphericity.fisher(x[:n], **known)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [3, 50, 3000])
def test_differences_of_equal_draws_have_no_direction_and_are_left_out(p: int) -> None:
    """Whether they are zero, or rounding of the roots of a Gram matrix."""
    x = np.random.default_rng(0).standard_normal((8, p))
    x[1] = x[0]
    wanted = sphericity.sign_test(x[2:])
    for given_as in (x, Gram.of(x)):
        assert centred(given_as, "estimated").centre_free.n == 3
        found = sphericity.sign_test(given_as)
        assert (found.statistic, found.pvalue) == pytest.approx((wanted.statistic, wanted.pvalue), rel=1e-9)
