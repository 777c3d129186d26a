"""Laws whose covariance is a multiple of the identity and which a test for spherical laws calls anisotropic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from featdyn.statistics import Gram, group_means, isotropy
from featdyn.statistics.assumptions import _fourth, assumptions
from featdyn.statistics.gram import centred
from tests.engine.statistics import laws, reference

Array = np.ndarray


def sparse(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.02)


def lognormal(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.lognormal(size=(n, p)) - np.exp(0.5)


def exponential(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.exponential(size=(n, p)) - 1


def autoregressive(rng: np.random.Generator, n: int, p: int) -> Array:
    x = rng.standard_normal((n, p))
    for i in range(1, n):
        x[i] = 0.3 * x[i - 1] + np.sqrt(1 - 0.09) * x[i]
    return x


# Law, n, p; how often the tests that take it as spherical reject at 5 %, measured with the centre known.
WORLDS: list[tuple[Callable[..., Array], int, int, float]] = [
    (sparse, 64, 512, 0.36),
    (lognormal, 256, 10, 1.0),
    (exponential, 256, 10, 0.2),
    (lognormal, 64, 3, 0.41),
    (autoregressive, 64, 512, 0.99),
]


def rejected(found: object) -> bool:
    pvalues = sorted(found[name].result.pvalue for name in ("sign_test", "exact_norm_conditional"))  # type: ignore[index]
    return min(2 * pvalues[0], pvalues[1]) <= 0.05


@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w[0].__name__}-{w[1]}x{w[2]}")
def test_isotropic_laws_that_are_not_spherical_are_not_called_anisotropic(
    world: tuple[Callable[..., Array], int, int, float], center: str
) -> None:
    law, n, p, wrong = world
    rng, repeats = np.random.default_rng(0), 6 if law is autoregressive else 12
    results = [isotropy(law(rng, n, p), center=center, rng=i) for i in range(repeats)]  # type: ignore[arg-type]
    found = Counter(result.verdict for result in results)
    assert found["anisotropic"] <= 3, found  # 0.6 expected at 5 %
    if center == "known" and wrong >= 0.36:
        assert sum(map(rejected, results)) >= 2  # what the verdict was before
    if law is autoregressive:
        assert all("neighbours" in result.reason for result in results)
    if law is lognormal and center == "known" and n == 256:
        assert all("symmetric" in result.reason for result in results)


@pytest.mark.parametrize("law", ["rectified", "lognormal"])
def test_few_coordinates_that_are_alike_are_not_called_anisotropic(law: str) -> None:
    """Of 120 samples of 32 x 2; 0.15 and 0.12 of them by the tests for spherical laws alone."""
    rng, found = np.random.default_rng(6), Counter[str]()
    for i in range(120):
        x = rng.standard_normal((32, 2))
        result = isotropy(np.maximum(x - 1, 0) if law == "rectified" else np.exp(x), rng=i)
        found[result.verdict] += 1
        found["before"] += rejected(result) and result.checks.spherical and not result.checks.broken
    assert found["before"] >= 11
    assert found["anisotropic"] <= 8, found  # 6 expected at 5 %


@pytest.mark.parametrize(("n", "p", "excess", "least"), [(32, 2, 3, 0.55), (32, 3, 3, 0.7), (128, 2, 1, 0.7)])
def test_a_direction_among_few_is_found(n: int, p: int, excess: float, least: float) -> None:
    rng = np.random.default_rng(7)
    found = [isotropy(laws.planted(rng, n, p, 1, excess), rng=i).verdict == "anisotropic" for i in range(40)]
    assert np.mean(found) >= least


@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize("df", [None, 3])
def test_power_is_kept_where_the_assumptions_hold(df: float | None, center: str) -> None:
    rng = np.random.default_rng(1)
    excess = 12.0 if df is None else 25.0
    found = Counter(
        isotropy(laws.planted(rng, 64, 512, 1, excess, df), center=center, rng=i).verdict  # type: ignore[arg-type]
        for i in range(8)
    )
    assert found["anisotropic"] >= 6, found


def test_one_weak_direction_is_found_about_an_estimated_centre() -> None:
    """Excess 8 in 64 x 512: differences of pairs reject in 0.37 of data sets, all draws given their lengths in 0.87."""
    rng = np.random.default_rng(2)
    found = [isotropy(laws.planted(rng, 64, 512, 1, 8.0), rng=i).verdict == "anisotropic" for i in range(14)]
    assert np.mean(found) >= 0.6


@pytest.mark.parametrize("df", [None, 3, 1.5])
@pytest.mark.parametrize("scale", ["isotropic", "one direction", "axes"])
def test_checks_hold_their_level_under_any_covariance(df: float | None, scale: str) -> None:
    rng = np.random.default_rng(3)
    sizes = {"isotropic": np.ones(40), "one direction": np.r_[8.0, np.ones(39)], "axes": np.linspace(0.2, 3, 40)}[scale]
    order, centre, kinds = [], [], []
    for _ in range(300):
        x = (laws.gaussian(rng, 30, 40) if df is None else laws.elliptical(rng, 30, 40, df)) * sizes
        seen = assumptions(centred(x, "known"))
        order.append(seen.order_pvalue)
        centre.append(seen.centre_pvalue)
        kinds.append(seen.spherical)
    limit = stats.binom.isf(1e-4, 300, 0.05)
    assert sum(p <= 0.05 for p in order) <= limit
    assert sum(p <= 0.05 for p in centre) <= limit
    if scale == "isotropic":
        assert np.mean(kinds) > 0.95


def test_the_orders_of_few_draws_are_enumerated() -> None:
    """Mean and variance of the sum over neighbours, against all orders."""
    from itertools import permutations

    x = np.random.default_rng(4).standard_normal((8, 3)) + 0.4
    s = x / np.linalg.norm(x, axis=1, keepdims=True)
    c = s @ s.T
    orders = np.array(list(permutations(range(8))))
    sums = c[orders[:, :-1], orders[:, 1:]].sum(1)
    z = (sums[0] - sums.mean()) / sums.std()
    assert assumptions(centred(x, "known")).order_pvalue == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    with_zeros = np.insert(x, [0, 3, 8], 0, axis=0)  # which have no direction
    assert assumptions(centred(with_zeros, "known")).order_pvalue == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert np.isnan(assumptions(centred(x[1:], "known")).order_pvalue)


def test_the_signs_of_few_draws_are_enumerated() -> None:
    """Three moments of the squared sum over all signs, and the gamma law that has them."""
    from itertools import product

    x = np.random.default_rng(7).standard_normal((9, 4)) + 0.4
    s = x / np.linalg.norm(x, axis=1, keepdims=True)
    sums = np.square(np.array(list(product([-1, 1], repeat=9))) @ s).sum(1)
    skewness, z = stats.skew(sums), (np.square(s.sum(0)).sum() - sums.mean()) / sums.std()
    expected = stats.pearson3(skewness).sf(z)
    assert assumptions(centred(x, "known")).centre_pvalue == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [2, 3, 7])
def test_fourth_powers_are_beside_their_moments_given_lengths(p: int) -> None:
    """Of a uniform direction, whose squares have a Dirichlet law."""
    from scipy.special import gamma

    def moment(*powers: int) -> float:
        of_each = np.prod([gamma(0.5 + power) / gamma(0.5) for power in powers])
        return float(gamma(p / 2) / gamma(p / 2 + sum(powers)) * of_each)

    x = np.random.default_rng(8).standard_t(3, (20, p))
    mean, fourths = p * moment(2), np.square(np.square(x).sum(1))
    variance = p * moment(4) + p * (p - 1) * moment(2, 2) - mean**2
    expected = ((x**4).sum() - mean * fourths.sum()) / np.sqrt(variance * np.square(fourths).sum())
    assert assumptions(centred(x, "known")).fourth_excess == pytest.approx(expected, rel=1e-9)


def test_products_of_directions_are_studentised_by_their_own_squares() -> None:
    x = np.random.default_rng(9).standard_normal((15, 6)) * np.linspace(1, 2, 6)
    s = x / np.linalg.norm(x, axis=1, keepdims=True)
    above = (6 * np.square(s @ s.T) - 1)[~np.eye(15, dtype=bool)]
    expected = stats.norm.sf(above.sum() / np.sqrt(2 * np.square(above).sum()))
    assert assumptions(centred(x, "known")).variance_pvalue == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "p"), [(4, 3), (5, 2), (12, 7), (13, 30)])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_about_an_estimated_centre_differences_and_deviations_are_studentised(n: int, p: int, spread: float) -> None:
    """The smaller p-value of both, doubled: that of squared products of directions, and of what is unbiased of all."""
    x = np.random.default_rng([n, p]).standard_normal((n, p)) * np.linspace(1, spread, p) + 2

    def above(rows: Array) -> Array:
        return (p * np.square(rows @ rows.T) - 1)[~np.eye(len(rows), dtype=bool)]

    pairs = x[: n // 2 * 2 : 2] - x[1 : n // 2 * 2 : 2]
    of_pairs = above(pairs / np.linalg.norm(pairs, axis=1, keepdims=True))
    t1, t2 = reference.czz_sums(x)
    deviations = above((x - x.mean(0)) / np.sqrt(t1))
    total = (p * t2 / t1**2 - 1) * n * (n - 1)
    z = max(s / np.sqrt(2 * np.square(a).sum()) for s, a in ((of_pairs.sum(), of_pairs), (total, deviations)))
    found = assumptions(centred(x, "estimated"))
    assert found.variance_pvalue == pytest.approx(min(1, 2 * stats.norm.sf(z)), rel=1e-8)
    assert np.isnan(found.centre_pvalue)


@pytest.mark.parametrize("center", ["known", "estimated"])
def test_one_direction_says_nothing_of_the_variance(center: str) -> None:
    x = np.random.default_rng(2).standard_normal((3, 4))
    if center == "known":
        x[1:] = 0
    assert assumptions(centred(x, center)).variance_pvalue == 1.0  # type: ignore[arg-type]
    two = np.zeros((3, 4))
    two[:2] = np.eye(2, 4) + 0.3
    cosine = 2 * 0.3 * 1.3 + 2 * 0.09
    q = 4 * (cosine / (1.3**2 + 3 * 0.09)) ** 2 - 1
    expected = stats.norm.sf(2 * q / np.sqrt(2 * 2 * q**2))
    assert assumptions(centred(two, "known")).variance_pvalue == pytest.approx(expected)


def test_a_known_centre_that_is_not_is_seen() -> None:
    rng = np.random.default_rng(5)
    x = laws.gaussian(rng, 64, 100) + 0.15
    assert "centre" in isotropy(x, center="known").reason
    assert isotropy(x, center=np.full(100, 0.15)).verdict == "isotropic"
    assert isotropy(x).verdict != "anisotropic"


def test_copies_are_one_draw() -> None:
    """64 images x 2 with correlation 0.25 within an image, isotropic."""
    rng, groups = np.random.default_rng(6), np.repeat(np.arange(64), 2)
    wrong = 0
    for i in range(3):
        own = rng.standard_normal((64, 1, 300)) + np.sqrt(3) * rng.standard_normal((64, 2, 300))
        x = own.reshape(128, 300)
        found = isotropy(x, center="known", groups=groups, rng=i)
        assert (found.n, found.verdict) == (64, "isotropic")
        wrong += rejected(isotropy(x, center="known", rng=i))
    assert wrong == 3
    np.testing.assert_allclose(group_means([[1.0, 2], [3, 4], [5, 8]], ["b", "a", "b"]), [[3, 5], [3, 4]])
    with pytest.raises(TypeError, match="draws themselves"):
        isotropy(Gram.of(x), groups=groups)


@pytest.mark.parametrize("p", [2, 3])
def test_fourth_powers_of_a_uniform_direction_have_mean_0_and_deviation_1(p: int) -> None:
    """Over all directions of the plane and of space, by rules that are exact for polynomials of degree 8."""
    around = np.arange(16) * np.pi / 8
    heights, weights = np.polynomial.legendre.leggauss(6) if p == 3 else (np.zeros(1), np.full(1, 2.0))
    flat = np.sqrt(1 - heights**2)[:, None]
    x = np.stack([flat * np.cos(around), flat * np.sin(around), heights[:, None] + 0 * around], -1)[..., :p]
    lengths = np.array([3.0, 1e-4, 1e-4])[:, None]  # three draws at least, of which one counts
    found = [[_fourth(centred(lengths * row, "known")) for row in rows] for rows in x]
    assert weights @ np.mean(found, 1) / 2 == pytest.approx(0, abs=1e-12)
    assert weights @ np.mean(np.square(found), 1) / 2 == pytest.approx(1)


def test_draws_of_which_no_order_and_no_sign_can_be_told() -> None:
    """Of draws along one line all orders give the same sum, of orthogonal ones all signs the same length."""
    lengths = np.random.default_rng(0).uniform(1, 2, 12)
    line = assumptions(centred(np.outer(lengths, np.arange(1.0, 6)), "known"))
    assert line.order_pvalue == 1.0
    assert line.centre_pvalue < 1e-3
    apart = assumptions(centred(np.diag(lengths), "known"))
    assert (apart.order_pvalue, apart.centre_pvalue) == (1.0, 1.0)
