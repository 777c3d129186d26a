"""The low-rank measure: three ways to one number, what it must not see, and what is known of its values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.statistics.richness import isotropic_reference, low_rank_measure, low_rank_of_moments
from featdyn_kernels.moments import accumulate
from tests.strategies import sizes

CENTRINGS = ("outputs", "projector")


def draw(seed, n, p, c, *, shift=1.0):
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((n, p)) @ rng.standard_normal((p, p)), 0) + shift
    return x, x @ rng.standard_normal((p, c)) + rng.standard_normal((n, c)) + 3 * rng.standard_normal(c)


def brute_force(x, f, centring):
    """N x N kernels written out."""
    n = len(x)
    h = np.eye(n) - 1 / n
    f = h @ f if centring == "outputs" else f
    k, projection = h @ x @ x.T @ h, h @ (f @ np.linalg.pinv(f, rcond=1e-6)) @ h
    return 1 - np.trace(k @ projection) / np.linalg.norm(k) / np.linalg.norm(projection)


def from_blocks(x, f, cuts, **options):
    total = None
    for a, b in zip(np.split(x, cuts), np.split(f, cuts), strict=True):
        part = accumulate(a, b)
        total = part if total is None else total + part
    return low_rank_of_moments(total, **options)


@pytest.mark.parametrize("centring", CENTRINGS)
@settings(deadline=None, max_examples=25)
@given(n=sizes(9, 41), p=sizes(1, 30), c=sizes(1, 6), seed=st.integers(0, 999))
def test_direct_moments_and_brute_force_agree(centring, n, p, c, seed):
    x, f = draw(seed, n, p, c)
    wanted = brute_force(x, f, centring)
    direct = low_rank_measure(x, f, centring=centring)
    merged = from_blocks(x, f, [1, n // 2, n - 2], centring=centring)
    assert direct.value == pytest.approx(wanted, abs=1e-10)
    assert merged.value == pytest.approx(wanted, abs=1e-10)
    assert (direct.rank, direct.features, direct.samples) == (merged.rank, p, n)
    assert direct.reference == merged.reference or np.isnan([direct.reference, merged.reference]).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), scale=st.floats(1e-30, 1e30))
def test_what_it_must_not_see(seed, scale):
    rng = np.random.default_rng(seed)
    x, f = draw(seed, 37, 9, 4)
    wanted = low_rank_measure(x, f).value
    rotation = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    mixing = rng.standard_normal((4, 4)) + 4 * np.eye(4)
    for features, outputs in ((scale * x @ rotation, f), (x, f @ mixing), (x + 5, scale * (f - 7))):
        assert low_rank_measure(features, outputs).value == pytest.approx(wanted, abs=1e-8)


def test_the_order_of_centring_matters_only_where_the_constant_lies_askew():
    x, f = draw(1, 60, 12, 3)
    one, other = (low_rank_measure(x, f, centring=c).value for c in CENTRINGS)
    assert abs(one - other) > 1e-3
    held = np.hstack([f, np.ones((60, 1))])  # the span holds the constant
    one, other = (low_rank_measure(x, held, centring=c).value for c in CENTRINGS)
    assert one == pytest.approx(other, abs=1e-10)


def collapsed(n=4000, p=64, classes=10):
    rng = np.random.default_rng(0)
    means = np.sqrt(classes) * np.linalg.qr(rng.standard_normal((p, classes)))[0].T
    labels = np.arange(n) % classes
    return means[labels], np.eye(classes)[labels], rng


def test_it_is_zero_at_collapse_and_climbs_the_ladder_of_noise():
    x, f, rng = collapsed()
    exact = low_rank_measure(x, f)
    assert exact.value < 1e-14
    assert exact.rank == 9  # one-hot outputs sum to a constant
    noise = rng.standard_normal(x.shape)
    for size, wanted, within in ((0.01, 0.0001, 2e-5), (0.1, 0.010, 5e-4), (0.3, 0.102, 3e-3), (1.0, 0.683, 5e-3)):
        assert low_rank_measure(x + size * noise, f).value == pytest.approx(wanted, abs=within)


def test_means_of_unequal_length_are_no_collapse():
    x, f, _ = collapsed(400)
    assert low_rank_measure(x * (1 + np.arange(10))[f.argmax(1)][:, None], f).value > 0.05


@pytest.mark.parametrize(("p", "c", "n"), [(64, 5, 512), (128, 10, 256), (256, 4, 512)])
def test_the_reference_is_that_of_isotropic_features(p, c, n):
    rng = np.random.default_rng(2)
    found = []
    for _ in range(20):
        x = rng.standard_normal((n, p))
        found.append(low_rank_measure(x, x @ rng.standard_normal((p, c))))
    assert np.mean([f.value for f in found]) == pytest.approx(found[0].reference, abs=1e-2)


def test_the_numbers_of_the_reference():
    assert isotropic_reference(512, 10**9, 10) == pytest.approx(0.860, abs=1e-3)
    assert isotropic_reference(512, 10**9, 100) == pytest.approx(0.558, abs=1e-3)
    for n, value in ((128, 0.695), (512, 0.803), (1024, 0.827), (2048, 0.844), (8192, 0.856)):
        assert isotropic_reference(512, n, 10) == pytest.approx(value, abs=8e-3)
    assert np.isnan(isotropic_reference(5, 3, 3))
    assert np.isnan(isotropic_reference(5, 30, 0))


@pytest.mark.parametrize("centring", CENTRINGS)
@pytest.mark.parametrize(("tolerance", "rank"), [(3e-2, 1), (3e-3, 2), (3e-4, 3)])
def test_directions_of_outputs_below_the_tolerance_count_for_none(centring, tolerance, rank):
    x, _ = draw(5, 50, 8, 1)
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.standard_normal((50, 3)) - (centring == "outputs") * 0.5)[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0] if centring == "outputs" else basis
    f = basis * [1, 1e-2, 1e-3] @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    wanted = low_rank_measure(x, basis[:, :rank], centring=centring)
    for found in (
        low_rank_measure(x, f, centring=centring, tolerance=tolerance),
        from_blocks(x, f, [9], centring=centring, tolerance=tolerance),
    ):
        assert (found.rank, found.value) == (rank, pytest.approx(wanted.value, rel=1e-6))
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match="tolerance must lie between 0 and 1"):
            low_rank_measure(x, f, tolerance=wrong)


@pytest.mark.parametrize(("n", "p", "r"), [(60, 30, 10), (30, 12, 10), (50, 64, 20), (100, 30, 29), (40, 5, 2)])
def test_the_reference_is_right_at_any_rank(n, p, r):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(120):
        x = rng.standard_normal((n, p))
        found.append(low_rank_measure(x, x @ rng.standard_normal((p, r))).value)
    error = np.std(found) / np.sqrt(len(found))
    assert isotropic_reference(p, n, r) == pytest.approx(np.mean(found), abs=0.003 + 3 * error)


@pytest.mark.parametrize(
    ("features", "samples", "rank", "holds"),
    [(4, 4, 3, True), (4, 4, 4, False), (3, 7, 3, True), (3, 7, 4, False), (2, 2, 1, True), (9, 1, 1, False)],
)
def test_the_reference_holds_where_features_and_samples_have_that_rank(features, samples, rank, holds):
    assert np.isfinite(isotropic_reference(features, samples, rank)) == holds


def test_what_does_not_vary_has_none():
    x, f = draw(3, 20, 4, 2)
    for features, outputs in ((np.ones_like(x), f), (x, np.full_like(f, 1 / 3)), (0 * x, f), (x[:1], f[:1])):
        assert np.isnan(low_rank_measure(features, outputs).value)
        assert np.isnan(low_rank_of_moments(accumulate(features, outputs)).value)


@pytest.mark.parametrize(("step", "seen"), [(1e-9, True), (1e-11, True), (1e-14, False)])
def test_what_varies_by_rounding_alone_does_not_vary(step, seen):
    x, f = draw(7, 30, 4, 3, shift=0.0)
    x, f = x / np.abs(x).max(), f / np.abs(f).max()
    for features, outputs in ((1 + step * x, f), (x, 1 + step * f)):
        for found in (low_rank_measure(features, outputs), low_rank_of_moments(accumulate(features, outputs))):
            assert np.isfinite(found.value) == seen
            assert found.rank == 3 * seen
            assert np.isfinite(found.reference) == seen


def test_bad_input_is_one_line():
    x, f = draw(4, 20, 4, 2)
    with pytest.raises(ValueError, match="outputs must have 20 rows"):
        low_rank_measure(x, f[:9])
    with pytest.raises(ValueError, match="must be finite"):
        low_rank_measure(np.where(x > 2, np.nan, x), f)
    with pytest.raises(ValueError, match="must be finite"):
        low_rank_of_moments(accumulate(np.where(x > 2, np.inf, x), f))
    with pytest.raises(ValueError, match="must be finite"):
        low_rank_of_moments(accumulate(x, np.where(f > 2, np.nan, f)))
    with pytest.raises(ValueError, match="of features and outputs"):
        low_rank_of_moments(accumulate(x))
