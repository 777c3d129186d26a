"""The verdict: heavy tails do not fool it, planted directions are found and counted, adjustments are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featdyn.statistics import Gram, count_directions, isotropy, multiplicity, tail_shape
from featdyn.statistics.assumptions import LEVEL, Assumptions
from featdyn.statistics.family import FAMILY, ROBUST, run_family
from featdyn.statistics.gram import centred
from featdyn.statistics.tails import Tail
from tests.engine.statistics import laws, reference

NULLS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "gaussian": lambda rng: laws.gaussian(rng, 64, 256),
    "gaussian, n > p": lambda rng: laws.gaussian(rng, 100, 10),
    "elliptical t3": lambda rng: laws.elliptical(rng, 64, 256, 3),
    "elliptical t1.5": lambda rng: laws.elliptical(rng, 64, 256, 1.5),
    "elliptical t5, n > p": lambda rng: laws.elliptical(rng, 80, 40, 5),
    "t5 coordinates": lambda rng: laws.heavy_coordinates(rng, 64, 256, 5),
    "t3 coordinates": lambda rng: laws.heavy_coordinates(rng, 64, 256, 3),
    "few draws": lambda rng: laws.elliptical(rng, 10, 256, 3),
}
REPEATS = 10  # of a rate of false verdicts the slow test says more


@pytest.mark.parametrize(
    ("law", "center"), [*((law, "known") for law in NULLS), ("elliptical t3", "estimated"), ("few draws", "estimated")]
)
def test_isotropic_noise_is_not_called_anisotropic(law: str, center: str) -> None:
    rng = np.random.default_rng(len(law))
    found = Counter(isotropy(NULLS[law](rng), center=center, rng=i).verdict for i in range(REPEATS))  # type: ignore[arg-type]
    assert found["anisotropic"] <= stats.binom.isf(1e-4, REPEATS, 0.05)
    if center == "known":
        assert found["undecided" if law == "few draws" else "isotropic"] >= REPEATS * 0.6


@pytest.mark.slow
@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize("law", NULLS)
def test_rate_of_false_verdicts(law: str, center: str) -> None:
    rng = np.random.default_rng(len(law))
    found = Counter(isotropy(NULLS[law](rng), center=center, rng=i).verdict for i in range(500))  # type: ignore[arg-type]
    print(law, center, dict(found))
    assert found["anisotropic"] <= stats.binom.isf(1e-4, 500, 0.05)


def test_gaussian_theory_alone_would_call_it_so() -> None:
    x = laws.elliptical(np.random.default_rng(1), 128, 64)
    found = isotropy(x, center="known")
    assert found["john"].result is not None
    assert found["john"].result.pvalue < 1e-6
    assert not found["john"].valid
    assert "lengths" in found["john"].reason
    assert np.isnan(found["john"].holm)
    assert found.verdict == "isotropic"


@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize(
    ("n", "p", "k", "excess", "df"),
    [
        (128, 512, 1, 60, None),
        (128, 512, 3, 60, None),
        (128, 512, 5, 200, 3),
        (128, 512, 10, 300, 5),
        (128, 512, 3, 1e5, None),
        (128, 4096, 2, 1600, 3),
        (200, 12, 2, 20, None),
        (200, 12, 2, 20, 3),
    ],
)
def test_planted_directions_are_found_and_counted(
    n: int, p: int, k: int, excess: float, df: float | None, center: str
) -> None:
    rng = np.random.default_rng([n, p, k])
    found = isotropy(laws.planted(rng, n, p, k, excess, df), center=center)  # type: ignore[arg-type]
    assert found.verdict == "anisotropic"
    more = (laws.planted(rng, n, p, k, excess, df) for _ in range(5))
    counts = [found.directions, *(count_directions(x, center=center).count for x in more)]  # type: ignore[arg-type]
    assert counts.count(k) >= 4, counts  # each step's level is 5 %
    assert min(c for c in counts if c is not None) >= k


def test_noise_of_unequal_and_of_no_bulk() -> None:
    rng = np.random.default_rng(1)
    x = laws.gaussian(rng, 100, 300)
    x[:, 0] *= 60
    x[:, 1] *= 20
    x[:, 2] *= 8
    assert isotropy(x, center="known").directions == 3
    assert isotropy(laws.planted(rng, 60, 200, 4, 1.0, bulk=0.0), center="known").directions == 4
    spread = isotropy(laws.planted(rng, 64, 512, 200, 1.0, bulk=0.0), center="known")  # more directions than draws
    assert spread.verdict == "anisotropic"
    assert spread.directions is None
    assert spread.participation_ratio == pytest.approx(200, rel=0.2)


def test_isotropic_verdict_needs_enough_draws() -> None:
    rng = np.random.default_rng(2)
    few, many = (isotropy(laws.gaussian(rng, n, 200), center="known") for n in (12, 100))
    assert (few.verdict, many.verdict) == ("undecided", "isotropic")
    assert few.participation_ratio_least < 180 <= many.participation_ratio_least


@pytest.mark.parametrize(
    ("law", "kind"),
    [
        (laws.gaussian, "gaussian"),
        (lambda rng, n, p: rng.laplace(size=(n, p)), "independent"),
        (lambda rng, n, p: rng.uniform(-1, 1, (n, p)), "independent"),
        (laws.elliptical, "elliptical"),
        (lambda rng, n, p: laws.planted(rng, n, p, 2, 500.0), "gaussian"),
    ],
)
def test_kinds_of_tail(law: Callable[..., np.ndarray], kind: str) -> None:
    rng = np.random.default_rng(3)
    kinds = Counter(tail_shape(law(rng, 120, 200), center="known").kind for _ in range(20))
    assert kinds[kind] >= 18, kinds


def test_table_and_records() -> None:
    x = laws.gaussian(np.random.default_rng(4), 40, 30)
    found = isotropy(Gram.of(x), rng=1)
    assert [e.name for e in found.tests] == list(FAMILY)
    assert found == isotropy(x, rng=1) or found.verdict == isotropy(x, rng=1).verdict
    text = str(found)
    assert text.startswith(found.verdict)
    assert all(name in text for name in FAMILY)
    assert [r["test"] for r in found.records()] == list(FAMILY)
    assert found["quasi_lrt"].result is None
    assert "needs p > m" in found["quasi_lrt"].reason
    assert found.summary()["tail_kind"] == found.tail.kind
    with pytest.raises(KeyError, match="no test"):
        found["pearson"]
    with pytest.raises(ValueError, match="alpha"):
        isotropy(x, alpha=1.5)
    with pytest.raises(ValueError, match="at least 4 rows"):
        isotropy(x[:3])
    assert isotropy(x[:4]).verdict in ("isotropic", "anisotropic", "undecided")
    valid = [e for e in found.tests if e.valid]
    raw = [e.result.pvalue for e in valid if e.result is not None]
    np.testing.assert_allclose([e.benjamini_hochberg for e in valid], stats.false_discovery_control(raw))
    np.testing.assert_allclose([e.holm for e in valid], multiplicity.holm(raw))


@pytest.mark.parametrize("tail", ["gaussian", "independent", "elliptical"])
@pytest.mark.parametrize(
    ("n", "p", "computed", "accurate"),
    [
        # Beside those of any size (john from m = 10 on, largest root, sign test, given the lengths): those of m, p of
        # at least 10; mauchly, of p < m and up to m / 5; corrected_lrt, of p < m; quasi_lrt, of p > m and from 5 m on.
        (3, 2, {"mauchly", "corrected_lrt", "large"}, set()),
        (4, 4, {"fisher", "large"}, set()),
        (9, 2, {"fisher", "mauchly", "corrected_lrt", "large"}, set()),
        (10, 2, {"fisher", "mauchly", "corrected_lrt", "large"}, {"john", "mauchly"}),
        (10, 3, {"fisher", "mauchly", "corrected_lrt", "large"}, {"john"}),
        (10, 10, {"fisher", "large"}, {"john", "fisher", "large"}),
        (11, 10, {"fisher", "mauchly", "corrected_lrt", "large"}, {"john", "fisher", "corrected_lrt", "large"}),
        (12, 9, {"fisher", "mauchly", "corrected_lrt", "large"}, {"john"}),
        (9, 45, {"fisher", "quasi_lrt", "large"}, {"quasi_lrt"}),
        (9, 44, {"fisher", "quasi_lrt", "large"}, set()),
        (10, 11, {"fisher", "quasi_lrt", "large"}, {"john", "fisher", "large"}),
    ],
)
def test_which_tests_are_computed_and_which_hold(
    n: int, p: int, computed: set[str], accurate: set[str], tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The largest root of few coordinates is simulated, which is not asked about here.
    monkeypatch.setitem(FAMILY, "largest_root", replace(FAMILY["largest_root"], test=FAMILY["john"].test))
    always, large = {"john", "largest_root", *ROBUST}, {"ledoit_wolf", "wang_yao", "srivastava", "chen_zhang_zhong"}
    computed = always | computed - {"large"} | large
    accurate = (always - {"john"}) | accurate - {"large"} | (large if "large" in accurate else set())
    allowed = {
        "gaussian": computed,
        "independent": {"wang_yao", "chen_zhang_zhong", *ROBUST},
        "elliptical": set(ROBUST),
    }
    entries = run_family(centred(laws.gaussian(np.random.default_rng(0), n, p), "known"), tail, 0)
    assert {e.name for e in entries if e.result is not None} == computed
    assert {e.name for e in entries if e.valid} == accurate & allowed[tail]
    for e in entries:
        assert (e.reason == "") == e.valid
        assert np.isnan([e.holm, e.benjamini_hochberg]).tolist() == [not e.valid] * 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_the_step_down_rejects(pvalues: list[float], alpha: float) -> None:
    rejected = np.zeros(len(pvalues), dtype=bool)
    for step, i in enumerate(np.argsort(pvalues, kind="stable")):
        if pvalues[i] * (len(pvalues) - step) > alpha:
            break
        rejected[i] = True
    np.testing.assert_array_equal(multiplicity.holm(pvalues) <= alpha, rejected)
    adjusted = multiplicity.benjamini_hochberg([*pvalues, np.nan])
    assert np.isnan(adjusted[-1])
    np.testing.assert_allclose(adjusted[:-1], stats.false_discovery_control(pvalues))


@pytest.mark.parametrize("two_sided", [False, True])
def test_westfall_young_is_the_step_down_of_maxima(two_sided: bool) -> None:
    rng = np.random.default_rng(6)
    values = rng.standard_normal((200, 5)) * [1, 10, 0.1, 3, 1] + [0, 5, 1, 0, 0]
    values[0] = [4.5, 7, 1.3, -9 if two_sided else 0, 1]
    adjusted = multiplicity.westfall_young(values[0], values[1:], two_sided=two_sided)
    z = (values - values.mean(0)) / values.std(0)
    z = np.abs(z) if two_sided else z
    smallest = 0.0
    for left, j in enumerate(np.argsort(-z[0])):
        rest = np.argsort(-z[0])[left:]
        smallest = max(smallest, np.mean(z[:, rest].max(1) >= z[0, j]))
        assert adjusted[j] == pytest.approx(smallest)


def test_a_family_of_permutation_tests_can_reject_and_keeps_its_level() -> None:
    """24 tests at the smallest p-value: Holm leaves 0.12, their maximum 0.005; and 5 % of null families reject."""
    rng, signs = np.random.default_rng(7), np.where(np.random.default_rng(8).random((199, 40)) < 0.5, -1, 1)
    scales = np.geomspace(1e-3, 1e3, 24)
    x = (rng.standard_normal((40, 24)) + 1.5) * scales
    observed, null = x.mean(0), signs @ x / 40
    raw = (1 + (null >= observed).sum(0)) / 200
    assert (raw == 0.005).all()
    assert multiplicity.holm(raw).min() == pytest.approx(0.12)
    assert (multiplicity.westfall_young(observed.reshape(4, 6), null.reshape(199, 4, 6)) == 0.005).all()
    hits = 0
    for _ in range(200):
        common = rng.standard_normal((40, 1))
        x = (rng.standard_normal((40, 24)) + common) * scales
        hits += multiplicity.westfall_young(x.mean(0), signs @ x / 40).min() <= 0.05
    assert hits <= stats.binom.isf(1e-4, 200, 0.05)
    null = np.random.default_rng(0).standard_normal((9, 2))
    for observed, of_null, name in (
        ([np.inf, 2.0], null, "observed"),
        ([1.0, 2.0], np.where([[False, True]], np.inf, null), "null"),
    ):
        with pytest.raises(ValueError, match=rf"{name} .* must be finite"):
            multiplicity.westfall_young(observed, of_null)
    with pytest.raises(ValueError, match=r"null .* must be finite"):
        multiplicity.westfall_young([1.0, 2.0], np.where(null == null[3, 1], np.nan, null))
    missing = multiplicity.westfall_young([np.nan, 1.0, 2.0], np.c_[np.zeros((19, 2)), np.arange(19) / 100.0])
    assert np.isnan(missing[0])
    assert missing[1:].tolist() == [0.05, 0.05]
    assert multiplicity.westfall_young([1.0], np.ones((19, 1))).tolist() == [1.0]
    with pytest.raises(ValueError, match="null must have shape"):
        multiplicity.westfall_young([1.0, 2.0], np.ones((19, 3)))


def test_multiplicity_of_a_grid_and_refusals() -> None:
    grid = np.array([[0.01, 0.02], [np.nan, 0.5]])
    assert multiplicity.holm(grid).shape == (2, 2)
    assert multiplicity.holm(grid)[0, 0] == pytest.approx(0.03)
    assert np.isnan(multiplicity.holm([np.nan])).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        multiplicity.holm([1.5])


def test_a_level_that_is_a_p_value_rejects_and_one_below_does_not() -> None:
    """The rule written out, at levels that are p-values of the tests and just below."""
    reached = Counter[str]()
    for seed, (n, p, excess) in enumerate(
        [(40, 30, 1.0), (30, 120, 2.0), (80, 20, 0.6), (12, 60, 0.0), (60, 3, 0.8), (60, 4, 0.8)] * 2
    ):
        ask = partial(isotropy, laws.planted(np.random.default_rng(seed), n, p, 1, excess), center="known", rng=0)
        tests, seen = ask().tests, ask().checks
        robust = min(multiplicity.holm([e.result.pvalue for e in tests if e.name in ROBUST and e.result is not None]))
        pvalues = {robust, *(e.holm for e in tests if e.valid)}
        for level in {float(each) for pvalue in pvalues for each in (pvalue, np.nextafter(pvalue, 0)) if 0 < each < 1}:
            found, rejecting = ask(alpha=level), [e.name for e in tests if e.valid and e.holm <= level]
            if seen.broken:
                expected = "undecided"
            elif robust <= level:
                expected = "anisotropic" if (seen.spherical and p > 3) or seen.variance_pvalue <= level else "undecided"
            elif rejecting:
                expected = "undecided"
                assert found.reason.startswith(f"{', '.join(rejecting)} reject")
                reached["rejecting"] += 1
            else:
                expected = "isotropic" if found.participation_ratio_least >= 0.9 * p else "undecided"
                assert found.reason.startswith("nothing rejects")
            reached[expected] += 1
            assert found.verdict == expected
    assert set(reached) == {"anisotropic", "isotropic", "undecided", "rejecting"}


@pytest.mark.parametrize("seed", range(4))
def test_directions_are_counted_while_p_values_are_at_most_the_level(seed: int) -> None:
    x = laws.planted(np.random.default_rng(seed), 40, 60, 3, 3.0)
    for level in {float(each) for p in count_directions(x).pvalues for each in (p, np.nextafter(p, 0))} - {0.0, 1.0}:
        found = count_directions(x, alpha=level)
        beyond = [k for k, p in enumerate(found.pvalues) if p > level]
        assert (found.count, len(found.pvalues)) == (beyond[0], beyond[0] + 1)


@pytest.mark.parametrize(
    ("order", "centre", "said"),
    [
        (LEVEL, 1.0, "depend on their neighbours"), (np.nextafter(LEVEL, 1), 1.0, ""), (np.nan, np.nan, ""),
        (1.0, LEVEL, "not symmetric"), (1.0, np.nextafter(LEVEL, 1), ""),
    ],
)  # fmt: skip
def test_draws_break_what_tests_need_at_a_level(order: float, centre: float, said: str) -> None:
    broken = Assumptions(order, centre, 0.0, 1.0).broken
    assert said in broken
    assert bool(broken) == bool(said)


@pytest.mark.parametrize(
    ("excess", "spherical"), [(3.0, True), (-3.0, True), (np.nextafter(3, 4), False), (-3.1, False)]
)
def test_fourth_powers_are_spherical_within_three_deviations(excess: float, spherical: bool) -> None:
    assert Assumptions(1.0, 1.0, float(excess), 1.0).spherical == spherical


def test_counting_has_its_level() -> None:
    rng = np.random.default_rng(5)
    counts = [count_directions(laws.elliptical(rng, 60, 200, 3), center="known").count for _ in range(60)]
    assert sum(c != 0 for c in counts) <= stats.binom.isf(1e-4, 60, 0.05)


@pytest.mark.parametrize(("n", "p"), [(6, 2), (20, 7), (9, 30)])
@pytest.mark.parametrize("center", ["known", "estimated"])
def test_a_tail_is_told_by_moments_of_lengths_and_entries(n: int, p: int, center: str) -> None:
    x = np.random.default_rng([n, p]).standard_t(4, (n, p)) * np.linspace(1, 2, p)
    found = tail_shape(x, center=center)  # type: ignore[arg-type]
    rows = x - x.mean(0) if center == "estimated" else x
    squares = np.square(rows).sum(1)
    products = rows @ rows.T
    t1, t2 = reference.czz_sums(x)
    pooled = n * p * (rows**4).sum() / np.square(rows).sum() ** 2 - 3
    if center == "known":
        t1, t2 = squares.mean(), (np.square(products).sum() - np.square(squares).sum()) / (n * (n - 1))
    else:  # the fourth cumulant and the variance of a deviation from a mean of n
        pooled *= (1 - 1 / n) ** 2 / ((1 - 1 / n) ** 4 + (n - 1) / n**4)
    assert found.dispersion == pytest.approx(squares.var(ddof=1) / squares.mean() ** 2)
    assert found.gaussian_dispersion == pytest.approx(2 * max(t2 / t1**2, 1 / p))
    assert found.excess_kurtosis == pytest.approx(pooled)
    assert found.john_shift == pytest.approx(p * (found.dispersion - found.gaussian_dispersion))


@pytest.mark.parametrize(("p", "last"), [(400, 0.05), (30, 1.0), (400, 1.0), (12, 0.001)])
def test_a_tail_is_gaussian_within_three_standard_errors_of_a_quadratic_form(p: int, last: float) -> None:
    """Lengths that spread a little more each time: the kind changes just where the formula, computed anew, says so."""
    base = np.random.default_rng(0).normal(size=(60, p)) * np.geomspace(1, last, p)

    def spread(extra: float) -> tuple[float, str]:
        """Return the deviation in standard errors, and the kind."""
        x = base * (1 + extra * np.sin(np.arange(60)))[:, None]
        c = x - x.mean(0)
        gram = c @ c.T / (len(x) - 1)
        traces = {k: np.trace(np.linalg.matrix_power(gram, k)) for k in (2, 4)}
        found = tail_shape(x)
        error = np.sqrt((2 + 12 * traces[4] / traces[2] ** 2) / len(x))
        return abs(found.dispersion / found.gaussian_dispersion - 1) / error, found.kind

    inside, beyond = 0.0, 2.0
    assert spread(inside)[0] < 3 < spread(beyond)[0]
    while beyond - inside > 1e-5:
        middle = (inside + beyond) / 2
        inside, beyond = (middle, beyond) if spread(middle)[0] < 3 else (inside, middle)
    assert spread(inside)[1] == "gaussian" != spread(beyond)[1]
