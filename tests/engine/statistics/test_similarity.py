"""Measures of two representations: their invariances, known answers, definitions written out, other packages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from featdyn.statistics import similarity as alike
from featdyn.statistics.cka import Grams
from featdyn.statistics.similarity.cca import Basis
from featdyn.statistics.similarity.neighbours import overlap


def draw(seed, n=40, p=5, q=7):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 3))
    make = lambda w: shared @ rng.standard_normal((3, w)) + 0.5 * rng.standard_normal((n, w)) + 3  # noqa: E731
    return make(p), make(q), rng


def turned(x, rng):
    return x @ np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0]


MEASURES = {
    "procrustes": alike.procrustes,
    "angular": alike.angular,
    "mean_cca": alike.mean_cca,
    "svcca": alike.svcca,
    "pwcca": alike.pwcca,
    "jaccard": alike.jaccard,
    "imbalance": alike.information_imbalance,
    "rsa": lambda x, y: alike.rsa(*(alike.dissimilarities(z, of="euclidean") for z in (x, y))),
}


@pytest.mark.parametrize("name", list(MEASURES))
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), p=st.sampled_from([2, 5, 9]))
def test_rotation_scale_and_shift_change_nothing(name, seed, scale, p):
    x, y, rng = draw(seed, p=p)
    wanted = MEASURES[name](x, y)
    other = x if name == "pwcca" else turned(x, rng)  # which weighs the variables of x as they are
    assert MEASURES[name](scale * other - 5, y) == pytest.approx(wanted, abs=1e-7)
    assert MEASURES[name](x, scale * turned(y, rng) + 5) == pytest.approx(wanted, abs=1e-7)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999))
def test_canonical_correlations_see_no_linear_map(seed):
    x, y, rng = draw(seed)
    a, b = (rng.standard_normal((w, w)) + 3 * np.eye(w) for w in (5, 7))
    assert alike.mean_cca(x @ a, y @ b) == pytest.approx(alike.mean_cca(x, y), abs=1e-8)
    assert alike.pwcca(x, y @ b) == pytest.approx(alike.pwcca(x, y), abs=1e-8)
    # From the generalised eigenvalue problem.
    cx, cy = x - x.mean(0), y - y.mean(0)
    m = np.linalg.solve(cx.T @ cx, cx.T @ cy) @ np.linalg.solve(cy.T @ cy, cy.T @ cx)
    assert alike.mean_cca(x, y) == pytest.approx(np.sqrt(np.sort(np.linalg.eigvals(m).real)[::-1][:5]).mean())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999))
def test_the_angle_is_a_metric(seed):
    x, y, rng = draw(seed, n=12)
    z = rng.standard_normal((12, 4))
    a, b, c = alike.angular(x, y), alike.angular(y, z), alike.angular(x, z)
    assert c <= a + b + 1e-9
    assert alike.angular(y, x) == pytest.approx(a)
    assert alike.angular(x, turned(x, rng)) == pytest.approx(0, abs=1e-6)


def test_itself_and_something_else():
    x, _, rng = draw(0, n=300)
    other = rng.standard_normal((300, 5))
    for name, (same, least, most) in {
        "procrustes": (0, 1, 2), "angular": (0, 1, 2), "mean_cca": (1, 0, 0.25), "svcca": (1, 0, 0.25),
        "pwcca": (1, 0, 0.25), "jaccard": (1, 0, 0.05), "imbalance": (2 / 300, 0.85, 1.15), "rsa": (1, -0.1, 0.1),
    }.items():  # fmt: skip
        assert MEASURES[name](x, x) == pytest.approx(same, abs=1e-6), name
        assert least <= MEASURES[name](x, other) <= most, name
    assert alike.jaccard(x, other) == pytest.approx(alike.jaccard_chance(300, 10), abs=0.01)


def test_procrustes_pads_and_wide_features_go_through_their_smaller_side():
    x, y, _ = draw(1, n=9, p=30, q=4)
    padded = np.hstack([y, np.zeros((9, 26))])
    assert alike.procrustes(x, y) == pytest.approx(alike.procrustes(x, padded))
    a, b = (z - z.mean(0) for z in (x, padded))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    u, _, v = np.linalg.svd(a.T @ b)
    assert alike.procrustes(x, y) == pytest.approx(np.linalg.norm(a @ u @ v - b) ** 2)


def test_svcca_and_pwcca_weigh_what_they_say():
    x, y, _ = draw(2, p=4)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = int((np.cumsum(s**2) / (s**2).sum() < 0.99).sum()) + 1
    t = np.linalg.svd(y - y.mean(0), full_matrices=False)
    held = int((np.cumsum(t[1] ** 2) / (t[1] ** 2).sum() < 0.99).sum()) + 1
    rho = np.linalg.svd(u[:, :kept].T @ t[0][:, :held], compute_uv=False)
    assert alike.svcca(x, y) == pytest.approx(rho.mean())
    left, rho, _ = np.linalg.svd(u.T @ t[0], full_matrices=False)
    weight = np.abs((u @ left).T @ (x - x.mean(0))).sum(1)
    assert alike.pwcca(x, y) == pytest.approx((weight * rho).sum() / weight.sum())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_svcca_takes_as_many_directions_as_hold_the_share(share):
    x, y, _ = draw(12, n=60)
    leading = []
    for z in (x, y):
        u, s, _ = np.linalg.svd(z - z.mean(0), full_matrices=False)
        held = np.cumsum(s**2) / (s**2).sum()
        leading.append(u[:, : int((held < share - 1e-12).sum()) + 1])
    rho = np.linalg.svd(leading[0].T @ leading[1], compute_uv=False)
    assert alike.svcca(x, y, share=share) == pytest.approx(rho.mean())


@pytest.mark.parametrize(("n", "defined"), [(12, False), (13, True)])
def test_canonical_correlations_need_more_samples_than_variables(n, defined):
    x, y, _ = draw(6, n=n)
    for measure in (alike.mean_cca, alike.pwcca, lambda x, y: alike.svcca(x, y, share=1.0)):
        assert np.isfinite(measure(x, y)) == defined  # 5 and 7 variables, the mean is one more


@pytest.mark.parametrize("k", [1, 2, 7])
def test_neighbours_of_any_number(k):
    x, y, _ = draw(13, n=15)
    near = []
    for z in (x, y):
        z = (z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=1)[:, None]
        cosine = z @ z.T - 9 * np.eye(15)
        near.append([set(row) for row in np.argsort(-cosine, 1)[:, :k].tolist()])
    wanted = np.mean([len(a & b) / len(a | b) for a, b in zip(*near, strict=True)])
    assert alike.jaccard(x, y, k=k) == pytest.approx(wanted)
    some, room = np.random.default_rng(0), range(1, 15)
    common = [len(set(some.choice(room, k, False)) & set(some.choice(room, k, False))) for _ in range(4000)]
    expected = k**2 / 14
    assert np.mean(common) == pytest.approx(expected, rel=0.12)
    assert alike.jaccard_chance(15, k) == pytest.approx(expected / (2 * k - expected))


@pytest.mark.parametrize("compare", ["spearman", "cosine"])
def test_the_ceiling_is_of_each_subject_with_the_means(compare):
    subjects = np.random.default_rng(5).random((3, 20)) + 0.5
    ready = np.stack([rankdata(row) - 10.5 for row in subjects]) if compare == "spearman" else subjects
    ready = ready / np.linalg.norm(ready, axis=1, keepdims=True)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    lower = np.mean([cosine(ready[i], np.delete(ready, i, 0).mean(0)) for i in range(3)])
    upper = np.mean([cosine(row, ready.mean(0)) for row in ready])
    for unit in (1.0, 1e-3):
        assert alike.noise_ceiling(unit * subjects, compare=compare) == pytest.approx((lower, upper))
        first, second = unit * subjects[:2]
        assert alike.rsa(first, second, compare=compare) == pytest.approx(cosine(*ready[:2]))
    for one in (subjects[:1], subjects[:, :1]):
        with pytest.raises(ValueError, match="at least 2 rows and 2 columns"):
            alike.noise_ceiling(one)


def test_dissimilarities_that_are_not_known_or_of_other_pairs():
    a = np.array([0.5, 1.0, 0.2])
    for unknown in ([0.5, np.nan, 1.0], [np.inf, 1.0, 2.0]):
        assert np.isnan([alike.rsa(a, unknown), alike.rsa(unknown, a)]).all()
    for other in (a[:2], a[None]):
        with pytest.raises(ValueError, match="one shape"):
            alike.rsa(a, other)
    with pytest.raises(ValueError, match="one shape"):
        alike.rsa(a[None], a[None])
    assert np.isnan(alike.rsa(a, np.zeros(3), compare="cosine"))
    x = draw(16, n=4)[0]
    for unit in (1e-20, 1e20):
        np.testing.assert_allclose(alike.dissimilarities(unit * x), alike.dissimilarities(x))
    assert np.isnan(alike.dissimilarities(1 + 1e-14 * x)).all()
    np.testing.assert_allclose(
        alike.dissimilarities(x[:3, :1], of="euclidean"),
        np.abs([x[0, 0] - x[1, 0], x[0, 0] - x[2, 0], x[1, 0] - x[2, 0]]),
    )
    with pytest.raises(ValueError, match="at least 3 rows"):
        alike.dissimilarities(x[:2])
    equal = alike.dissimilarities([[1.0, 2, 3], [5, 5, 5], [3, 1, 4]])
    assert np.isnan(equal).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["procrustes", "angular", "mean_cca", "svcca", "pwcca"])
@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_what_varies_by_rounding_alone_is_still_in_any_unit(name, unit):
    x, y, _ = draw(14)
    x, wanted = x - 3, MEASURES[name](x, y)
    for step, seen in ((1e6, True), (1e-8, True), (1e-14, False)):
        moved = unit * (1 + step * x)
        for found in (MEASURES[name](moved, y), MEASURES[name](y, moved) if name != "pwcca" else None):
            assert found is None or (found == pytest.approx(wanted, abs=1e-3) if seen else np.isnan(found))


@pytest.mark.parametrize("name", ["jaccard", "imbalance", "rsa"])
def test_neighbours_and_distances_see_no_unit_and_no_place(name):
    x, y, _ = draw(15)
    wanted = MEASURES[name](x, y)
    for moved in (1e-20 * x, 1e20 * x, x + 1e7):
        assert MEASURES[name](moved, y) == pytest.approx(wanted, abs=1e-6)


def test_neighbours_are_compared_where_half_of_the_samples_have_some():
    near = np.roll(np.eye(6, dtype=bool), 1, axis=1)
    other = near | np.roll(near, 1, axis=1)
    for defined, wanted in ((6, 0.5), (3, 0.5), (2, np.nan), (0, np.nan)):
        kept = np.arange(6)[:, None] < defined
        assert overlap(near & kept, other) == pytest.approx(wanted, nan_ok=True)
        assert overlap(other, near & kept) == pytest.approx(wanted, nan_ok=True)


def test_imbalance_of_the_fewest_samples():
    x = np.array([[0.0], [1.0], [3.0]])
    # The nearest of each in x are at 1, 0 and 1; in y = (3, 1, 0) these are second, second and first.
    assert alike.information_imbalance(x, x[::-1]) == pytest.approx(2 / 3 * (1 + 2 + 1) / 3)
    assert np.isnan(alike.information_imbalance(x[:2], x[:2]))
    for still in (np.ones((3, 1)), np.ones((3, 2))):
        assert np.isnan([alike.information_imbalance(x, still), alike.information_imbalance(still, x)]).all()


def test_dissimilarities_and_their_ranks():
    x, y, _ = draw(3, n=11)
    a, b = alike.dissimilarities(x), alike.dissimilarities(y)
    np.testing.assert_allclose(a, (1 - np.corrcoef(x))[np.triu_indices(11, 1)])
    assert alike.rsa(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert alike.rsa(a, b, compare="cosine") == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    permuted = np.random.default_rng(0).permutation(5)
    assert alike.rsa(alike.dissimilarities(x[:, permuted]), b) == pytest.approx(alike.rsa(a, b))
    assert np.isnan(alike.rsa(alike.dissimilarities(np.ones((11, 3))), b))


def test_the_ceiling_of_noisy_subjects():
    rng = np.random.default_rng(4)
    truth = rng.random(200)
    subjects = truth + 0.3 * rng.standard_normal((8, 200))
    low, high = alike.noise_ceiling(subjects)
    assert low < high
    assert low - 0.03 < np.mean([alike.rsa(s, truth) for s in subjects]) < high + 0.03


def test_neighbours_and_imbalance_written_out():
    x, y, _ = draw(5, n=25)
    a, b = (z - z.mean(0) for z in (x, y))

    def near(z):
        cosine = z @ z.T / np.linalg.norm(z, axis=1) / np.linalg.norm(z, axis=1)[:, None]
        np.fill_diagonal(cosine, -2)
        return [set(row) for row in np.argsort(-cosine, 1)[:, :10].tolist()]

    wanted = np.mean([len(s & t) / len(s | t) for s, t in zip(near(a), near(b), strict=True)])
    assert alike.jaccard(x, y) == pytest.approx(wanted)
    apart = [np.linalg.norm(z[:, None] - z, axis=2) + np.diag([np.inf] * 25) for z in (x, y)]
    ranks = apart[1].argsort(1).argsort(1) + 1
    assert alike.information_imbalance(x, y) == pytest.approx(2 / 25 * ranks[np.arange(25), apart[0].argmin(1)].mean())


def test_what_is_not_defined():
    x, y, _ = draw(6)
    still = np.ones((40, 3))
    for name in set(MEASURES):
        assert np.isnan(MEASURES[name](x, still)), name
    assert np.isnan(alike.mean_cca(x[:12], y[:12]))  # 5 + 7 variables fit anything
    assert np.isnan(alike.jaccard(x[:10], y[:10]))
    with pytest.raises(ValueError, match="same samples, got 40 and 39"):
        alike.procrustes(x, y[1:])


def test_debiased_cka_is_another_package_s():
    torch, rival = pytest.importorskip("torch"), pytest.importorskip("cka", exc_type=ImportError)
    x, y, _ = draw(7, n=30)
    grams = Grams(2, 30)
    for index, z in enumerate((x, y)):
        grams.put(index, z @ z.T)
    theirs = rival.cka_from_features(torch.from_numpy(x), torch.from_numpy(y))
    assert grams.alignment().debiased[0, 1] == pytest.approx(float(theirs), abs=1e-5)


def test_rsa_is_another_package_s():
    rsatoolbox = pytest.importorskip("rsatoolbox", exc_type=ImportError)
    x, y, _ = draw(8, n=12)
    theirs = [rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(z), method="correlation") for z in (x, y)]
    np.testing.assert_allclose(alike.dissimilarities(x), theirs[0].dissimilarities[0], atol=1e-8)
    found = rsatoolbox.rdm.compare(*theirs, method="spearman")[0, 0]
    assert alike.rsa(alike.dissimilarities(x), alike.dissimilarities(y)) == pytest.approx(found, abs=1e-5)


def test_copies_are_ties_and_not_rounding():
    """Classes in one point each: no order of equal distances may tell a cloud from the same cloud, turned."""
    rng = np.random.default_rng(9)
    x = np.linalg.qr(rng.standard_normal((16, 16)))[0][np.repeat(np.arange(6), 20)]
    y = turned(x, rng)
    for of in ("correlation", "euclidean"):
        own = alike.dissimilarities(x[:, ::-1], of=of)
        assert alike.rsa(alike.dissimilarities(x, of=of), own) == pytest.approx(1, abs=1e-9)
    assert alike.information_imbalance(x, y) == pytest.approx(2 / 120 * 10)  # the mean of ranks 1 to 19
    assert np.isnan(alike.jaccard(x, y))  # which 10 of 19 would be up to rounding


def test_equal_neighbours_do_not_come_first_by_their_place():
    rng = np.random.default_rng(10)
    signs = [rng.standard_normal((200, 1)) for _ in range(2)]  # by cosine one feature is its sign
    assert np.isnan(alike.jaccard(*signs))
    x, y = (np.maximum(rng.standard_normal((200, 12)), 0) for _ in range(2))
    x[:60], y[:60] = 0, 0  # dead at the same probes
    wanted = alike.jaccard_chance(140, 10)  # of those alive
    assert alike.jaccard(x, y) == pytest.approx(wanted, abs=0.015)
    assert alike.information_imbalance(y, rng.standard_normal((200, 5))) == pytest.approx(1, abs=0.15)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        alike.jaccard(x, y, k=0)


def test_what_float16_rounds_is_no_direction():
    rng = np.random.default_rng(11)
    x = (rng.standard_normal((90, 3)) @ rng.standard_normal((3, 20)) + 4).astype(np.float16)
    y = (x.astype(float) @ rng.standard_normal((20, 20))).astype(np.float16)
    for measure in (alike.mean_cca, alike.pwcca, alike.svcca):
        assert measure(x, y) == pytest.approx(1, abs=1e-4)


def test_a_direction_counts_above_a_millionth_of_the_largest_not_at_it():
    kept = set()
    for share in np.array([0.5, 1 - 2**-52, 1, 1 + 2**-51, 2]) * 1e-6:
        x = np.array([[1, 0], [-1, 0], [0, share], [0, -share]])
        s = np.linalg.svd(x / np.linalg.norm(x), compute_uv=False)
        assert len(Basis.of(x).values) == (s > 1e-6 * s[0]).sum()
        kept.add((float(s[1] / s[0]), len(Basis.of(x).values)))
    assert (1e-6, 1) in kept
    assert max(kept)[1] == 2
