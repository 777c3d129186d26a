"""Spectra, subspaces and covariances beside closed forms, simulation and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from featdyn.statistics import Gram, alignment
from tests.engine.statistics import laws, reference
from tests.strategies import sizes


@settings(deadline=None, max_examples=25)
@given(st.tuples(sizes(4, 15), sizes(2, 30)), st.integers(0, 9), st.sampled_from(["estimated", "known"]))
def test_spectral_summaries_are_those_of_the_covariance(shape: tuple[int, int], seed: int, center: str) -> None:
    x = np.random.default_rng(seed).standard_normal(shape) * np.linspace(1, 3, shape[1])
    rows, m = reference.centred(x, center)
    values = np.linalg.eigvalsh(rows.T @ rows / m)[::-1].clip(0)
    about = {"center": center}
    for draws in (x, Gram.of(x)):
        shares = alignment.explained_shares(draws, (1, 2), replicates=5, **about)  # type: ignore[arg-type]
        np.testing.assert_allclose(shares.share, np.cumsum(values)[[0, 1]] / values.sum(), rtol=1e-9)
        ratio = alignment.participation_ratio(draws, **about)  # type: ignore[arg-type]
        assert ratio == pytest.approx(values.sum() ** 2 / (values**2).sum())
        assert alignment.stable_rank(draws, **about) == pytest.approx(values.sum() / values[0])  # type: ignore[arg-type]
        for of, weights in (("covariance", values), ("matrix", np.sqrt(values))):
            q = weights / weights.sum()
            q = q[q > 1e-7]
            found = alignment.effective_rank(draws, of=of, **about)  # type: ignore[arg-type]
            assert found == pytest.approx(np.exp(stats.entropy(q)), rel=1e-4)


def test_isotropic_baselines_at_65_draws() -> None:
    """The note: 65 draws of 512 coordinates show s_10 = 0.247 and an unbiased participation ratio near 512."""
    rng = np.random.default_rng(0)
    found = [Gram.of(laws.gaussian(rng, 65, 512)) for _ in range(60)]
    shares = alignment.explained_shares(found[0], (1, 10, 64, 512))
    assert shares.baseline[1] == pytest.approx(0.247, abs=2e-3)
    assert np.mean([alignment.explained_shares(g, (10,), replicates=1).share[0] for g in found]) == pytest.approx(
        shares.baseline[1], abs=2e-3
    )
    assert shares.share[-1] == pytest.approx(1.0)
    assert (shares.baseline <= shares.baseline_high + 1e-12).all()
    unbiased = [alignment.participation_ratio(g, unbiased=True) for g in found]
    assert np.median(unbiased) == pytest.approx(512, rel=0.03)
    capped = np.mean([alignment.participation_ratio(g) for g in found])
    assert capped == pytest.approx(512 / (1 + 513 / 64), rel=0.01)


@pytest.mark.parametrize("center", ["known", "estimated"])
@pytest.mark.parametrize("df", [1.5, 3, None])
def test_the_baseline_has_the_lengths_of_the_draws(df: float | None, center: str) -> None:
    """Isotropic draws of any tail lie on their own baseline; Gaussian lengths would put t(1.5) far above."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(30):
        x = laws.gaussian(rng, 64, 400) if df is None else laws.elliptical(rng, 64, 400, df)
        found.append(alignment.explained_shares(Gram.of(x), (1, 10), center=center, replicates=40))  # type: ignore[arg-type]
    share, baseline, high = (np.array([getattr(f, n) for f in found]) for n in ("share", "baseline", "baseline_high"))
    assert np.abs(np.median(share - baseline, axis=0)).max() < 0.01
    assert (np.mean(share > high, axis=0) <= 0.27).all()  # 0.05 expected of 30
    if df == 1.5:
        assert baseline[:, 1].mean() > 0.5  # Gaussian lengths: 0.22


def test_held_out_halves_have_a_baseline_that_no_length_moves() -> None:
    rng = np.random.default_rng(8)
    for law in (laws.gaussian, lambda r, n, p: laws.elliptical(r, n, p, 1.5)):
        found = [alignment.split_halves(law(rng, 64, 300), (1, 10), rng=i) for i in range(60)]
        held = np.array([f.held_out for f in found])
        np.testing.assert_allclose(found[0].random, [1 / 300, 10 / 300])
        error = held.std(axis=0) / np.sqrt(60)
        assert (np.abs(held.mean(axis=0) - found[0].random) < 4 * error).all()
        assert (np.mean(held > [f.held_out_high for f in found], axis=0) <= 0.18).all()  # both ways: below 5 %
    spiked = alignment.split_halves(laws.planted(rng, 64, 300, 1, 300.0), (1,))
    assert spiked.held_out[0] > 0.3 > 10 * spiked.held_out_high[0]
    assert spiked.overlap[0] > 0.9


@settings(deadline=None, max_examples=20)
@given(sizes(12, 40), st.sampled_from([8, 60]), st.integers(0, 99))
def test_halves_and_drift_are_those_of_the_directions(n: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, d, ks = rng.standard_normal((n, p)) * np.linspace(3, 1, p) + 2, rng.standard_normal(p), (1, 3)
    order = np.random.default_rng(seed).permutation(n)
    one, two = x[order[: n // 2]], x[order[n // 2 :]]
    for draws in (x, Gram.of(x)):
        halves = alignment.split_halves(draws, ks, rng=seed)
        drift = alignment.drift_share(draws, x @ d, d @ d, ks, rng=seed)
        for i, k in enumerate(ks):
            v, w = (reference.directions(z, k) for z in (one, two))
            assert halves.overlap[i] == pytest.approx(np.mean(np.cos(linalg.subspace_angles(v, w)) ** 2), rel=1e-6)
            parts = [
                np.square((z - z.mean(0)) @ u).sum() / np.square(z - z.mean(0)).sum() for z, u in ((one, w), (two, v))
            ]
            assert halves.held_out[i] == pytest.approx(np.mean(parts), rel=1e-6)
            share = np.square(reference.directions(x, k).T @ d).sum() / (d @ d)
            assert drift.share[i] == pytest.approx(share, rel=1e-6)
            assert drift.random[i] == k / p
            assert drift.pvalue[i] == pytest.approx(stats.beta(k / 2, (p - k) / 2).sf(share), rel=1e-5)
            halved = [np.square(u.T @ d).sum() / (d @ d) for u in (v, w)]
            np.testing.assert_allclose(drift.halves[:, i], halved, rtol=1e-6)


@pytest.mark.parametrize("center", ["known", "estimated"])
def test_drift_along_as_many_directions_as_there_are(center: str) -> None:
    rng = np.random.default_rng(3)
    x, d = rng.standard_normal((9, 4)) + 1, rng.standard_normal(4)
    found = alignment.drift_share(x, x @ d, d @ d, (1, 3, 4, 7), center=center)  # type: ignore[arg-type]
    rows = x - x.mean(0) if center == "estimated" else x
    v = np.linalg.svd(rows)[2]
    shares = np.cumsum(np.square(v @ d)) / (d @ d)
    np.testing.assert_allclose(found.share, [shares[0], shares[2], 1, 1])
    np.testing.assert_allclose(found.random, [0.25, 0.75, 1, 1])
    assert np.isnan(found.pvalue).tolist() == [False, False, True, True]
    assert found.pvalue[1] == pytest.approx(stats.beta(1.5, 0.5).sf(shares[2]))
    for power in (-150, 150):
        far = np.ldexp(x, power)
        other = alignment.drift_share(far, far @ d, d @ d, (1, 3, 4, 7), center=center)  # type: ignore[arg-type]
        np.testing.assert_allclose(other.share, found.share)
    few = alignment.drift_share(x[:3], x[:3] @ d, d @ d, (1, 2, 3, 4), center=center)  # type: ignore[arg-type]
    held = np.linalg.svd(x[:3] - (x[:3].mean(0) if center == "estimated" else 0))[2]
    rank = 2 if center == "estimated" else 3
    parts = np.cumsum(np.square(held[:rank] @ d))[np.minimum(range(4), rank - 1)] / (d @ d)
    np.testing.assert_allclose(few.share, parts)
    assert (few.halves[0] == 0).all() == (center == "estimated"), "one draw about its own mean has no direction"
    assert alignment.drift_beside(few, [few, few]).pvalue.tolist() == [1.0] * 4


def test_drift_is_put_beside_directions_of_other_draws() -> None:
    """A sum of mini-batch gradients lies in their span: far above a random subspace, and not above other batches'."""
    rng = np.random.default_rng(9)
    scale = np.r_[np.full(20, 10.0), np.ones(480)]
    sets = [rng.standard_normal((24, 500)) * scale for _ in range(12)]
    drift = (rng.standard_normal((30, 500)) * scale).sum(0)
    own, *others = (alignment.drift_share(x, x @ drift, drift @ drift, (5,)) for x in sets)
    assert own.pvalue[0] < 1e-6
    beside = alignment.drift_beside(own, others)
    assert beside.pvalue[0] > 0.08
    assert beside.others[0] == pytest.approx(np.mean([o.share[0] for o in others]))
    assert beside.most[0] == max(o.share[0] for o in others)
    along = sets[0][0] * 5 + drift * 0.01
    own, *others = (alignment.drift_share(x, x @ along, along @ along, (23,)) for x in sets)
    assert alignment.drift_beside(own, others).pvalue[0] == 1 / 12


def test_refusals() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((8, 10))
    shares = alignment.drift_share(x, x[:, 0], 1.0), alignment.drift_share(x[:6], x[:6, 0], 1.0)
    for call, message in (
        (lambda: alignment.explained_shares(x, (0,)), "from 1 to p = 10"),
        (lambda: alignment.explained_shares(x, (11,)), "from 1 to p = 10"),
        (lambda: alignment.effective_rank(x, of="rows"), "matrix"),
        (lambda: alignment.drift_share(x, x[0], 1.0), r"dots must have shape \(8,\)"),
        (lambda: alignment.drift_beside(shares[0], []), "one or more"),
        (lambda: alignment.drift_beside(shares[0], [shares[1]]), "in 8 draws each"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()  # type: ignore[no-untyped-call]
        assert "\n" not in str(error.value)
    assert np.isnan(alignment.drift_share(x, np.zeros(8), 0.0).share).all()
    assert np.isnan(alignment.split_halves(x, (1, 4)).overlap).tolist() == [False, True]


@pytest.mark.parametrize("center", ["estimated", "known"])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_halves_of_so_few_draws_that_one_holds_no_direction(n: int, center: str) -> None:
    x = np.random.default_rng(0).standard_normal((n, 5))
    found = alignment.split_halves(x, (1, 2, 9), center=center)  # type: ignore[arg-type]
    most = n // 2 - (center == "estimated")
    for values in (found.overlap, found.held_out, found.held_out_high):
        assert np.isnan(values).tolist() == [most < 1, most < 2, True]
    np.testing.assert_allclose(found.random, [0.2, 0.4, 1.0])
    alike = np.ones((6, 5))
    alike[5] = 2
    assert np.isnan(alignment.split_halves(alike, (1,)).held_out).all()


@settings(deadline=None, max_examples=40)
@given(sizes(3, 9), sizes(2, 6), st.integers(0, 999))
def test_shares_of_all_directions_are_no_more_than_one(n: int, p: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, p)).astype(np.float32)
    drift = x[0] - x[1]
    found = alignment.drift_share(x, x @ drift, float(drift @ drift), (n, p))
    assert found.share.max() <= 1
    assert found.share == pytest.approx(1, abs=1e-3)  # the drift is a difference of draws
    assert found.halves.max() <= 1
    halves = alignment.split_halves(x, (1, p - 1))
    assert not (halves.overlap > 1).any()
    assert not (halves.held_out > 1).any()
