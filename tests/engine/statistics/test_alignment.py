"""Spectra, subspaces and covariances beside closed forms, simulation and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from featdyn.statistics import Gram, alignment
from tests.engine.statistics import laws, reference


def basis(rng: np.random.Generator, p: int, k: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((p, k)))[0]


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(4, 15), st.integers(2, 30)), st.integers(0, 9), st.sampled_from(["estimated", "known"]))
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
        edge = values.sum() / shape[1] * (1 + np.sqrt(shape[1] / m)) ** 2
        spikes = alignment.spikes(draws, **about)  # type: ignore[arg-type]
        assert spikes.edge == pytest.approx(edge)
        assert spikes.count == (values > edge).sum()


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


def test_spikes_need_an_excess_above_the_transition() -> None:
    rng = np.random.default_rng(1)
    x = laws.planted(rng, 400, 100, 3, 8.0)
    found = alignment.spikes(x)
    assert found.count == 3
    assert found.detectable_excess == pytest.approx(np.sqrt(100 / 399))


def test_principal_directions_are_the_planted_ones() -> None:
    rng = np.random.default_rng(2)
    x = laws.gaussian(rng, 60, 200)
    x[:, 3] *= 50
    x[:, 7] *= 20
    for draws in (x, x.astype(np.float32), x + 100):
        v = alignment.principal_directions(draws, 2)
        assert v.shape == (200, 2)
        np.testing.assert_allclose(v.T @ v, np.eye(2), atol=1e-9)
        assert (np.abs(v[[3, 7], [0, 1]]) > 0.9).all()
    tall = alignment.principal_directions(x.T, 2, center="known")
    _, vectors = np.linalg.eigh(x @ x.T)
    assert np.abs(np.sum(tall * vectors[:, [-1, -2]], axis=0)) == pytest.approx(1)


@pytest.mark.parametrize(("p", "k", "rank"), [(12, 3, 4), (30, 5, 1), (9, 8, 9)])
def test_null_of_drift_share_and_overlap_match_simulation(p: int, k: int, rank: int) -> None:
    rng = np.random.default_rng(p)
    drift = rng.standard_normal((20, rank)) @ (rng.standard_normal((rank, p)) * np.linspace(1, 4, p))
    target = basis(rng, p, 4)
    found = [
        (alignment.drift_share(drift, v), alignment.subspace_overlap(v, target))
        for v in (basis(rng, p, k) for _ in range(1500))
    ]
    for results in zip(*found, strict=True):
        shares = np.array([r.share for r in results])
        null = results[0]
        assert null.null_mean == pytest.approx(k / p)
        error = shares.std() / np.sqrt(len(shares))
        assert abs(shares.mean() - null.null_mean) < 4 * error
        assert shares.var() == pytest.approx(null.null_variance, rel=0.15)
        pvalues = np.array([r.pvalue for r in results])
        # The Beta law has the right first two moments; its range is too wide where k is close to p.
        assert np.mean(pvalues <= 0.05) == pytest.approx(0.05, abs=0.02 if k < p / 2 else 0.05)
    if rank == 1:  # one direction: exactly Beta(k/2, (p-k)/2)
        shares = [r[0].share for r in found]
        assert stats.kstest(shares, stats.beta(k / 2, (p - k) / 2).cdf).pvalue > 1e-3
        assert found[0][0].pvalue == pytest.approx(stats.beta.sf(shares[0], k / 2, (p - k) / 2))


def test_overlap_and_angles() -> None:
    rng = np.random.default_rng(3)
    v, w = basis(rng, 20, 3), basis(rng, 20, 3)
    assert alignment.subspace_overlap(v, v).share == pytest.approx(1)
    np.testing.assert_allclose(alignment.principal_angles(v, v @ basis(rng, 3, 3)), 0, atol=1e-7)
    angles = alignment.principal_angles(v, w)
    np.testing.assert_allclose(angles, np.arccos(linalg.svdvals(v.T @ w)), atol=1e-10)
    assert alignment.subspace_overlap(v, w).share == pytest.approx(np.mean(np.cos(angles) ** 2))


def test_split_halves_agree_only_where_there_are_directions() -> None:
    rng = np.random.default_rng(4)
    planted = alignment.split_half_overlap(laws.planted(rng, 200, 60, 3, 40.0), 3)
    plain = alignment.split_half_overlap(laws.gaussian(rng, 200, 60), 3)
    assert planted.share > 0.9
    assert planted.pvalue < 1e-6
    assert plain.pvalue > 1e-3


@pytest.mark.parametrize(("n", "m", "p"), [(7, 9, 30), (40, 15, 6)])
@pytest.mark.parametrize("center", ["estimated", "known"])
@pytest.mark.parametrize("isotropic", [False, True])
def test_covariance_cosine_is_that_of_the_matrices(n: int, m: int, p: int, center: str, isotropic: bool) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((n, p)) + 1, rng.standard_normal((m, p)) * np.linspace(1, 3, p)
    matrices = []
    for z in (x, y):
        rows, degrees = reference.centred(z, center)
        s = rows.T @ rows / degrees
        matrices.append(s - isotropic * np.trace(s) / p * np.eye(p))
    a, b = matrices
    expected = np.trace(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
    found = alignment.covariance_cosine(x, y, center=center, remove_isotropic=isotropic)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=1e-9)
    same = alignment.covariance_cosine(x, 3 * x, center=center, remove_isotropic=isotropic)  # type: ignore[arg-type]
    assert same == pytest.approx(1)


def test_refusals() -> None:
    rng = np.random.default_rng(6)
    x, v = rng.standard_normal((8, 10)), basis(rng, 10, 3)
    for call, message in (
        (lambda: alignment.explained_shares(x, (0,)), "from 1 to p = 10"),
        (lambda: alignment.explained_shares(x, (11,)), "from 1 to p = 10"),
        (lambda: alignment.effective_rank(x, of="rows"), "matrix"),
        (lambda: alignment.principal_directions(x, 8), "between 1 and 7"),
        (lambda: alignment.drift_share(x, 2 * v), "orthonormal"),
        (lambda: alignment.drift_share(x[:, :5], v), "share p"),
        (lambda: alignment.drift_share(np.zeros((3, 10)), v), "is zero"),
        (lambda: alignment.drift_share(x, np.eye(10)), "captures everything"),
        (lambda: alignment.subspace_overlap(v, np.eye(9)[:, :2]), "share p"),
        (lambda: alignment.covariance_cosine(x, x[:, :4]), "share their columns"),
        (lambda: alignment.covariance_cosine(x, np.ones((4, 10))), "vary"),
        (lambda: alignment.covariance_cosine(np.full((4, 10), np.nan), x), "finite"),
        (
            lambda: alignment.covariance_cosine(
                np.vstack([v.T, basis(rng, 10, 10).T])[3:], x, center="known", remove_isotropic=True
            ),
            "isotropic",
        ),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()  # type: ignore[no-untyped-call]
        assert "\n" not in str(error.value)
