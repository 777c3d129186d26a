"""Distances between feature distributions of checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis import analyses
from featdyn.analysis.features.density import DensityOptions, compute
from featdyn.analysis.features.density.basis import WIDTH, Basis, Points
from featdyn.analysis.features.density.compute import MEASURES
from featdyn.analysis.status import DEAD, FEW, NOT_FINITE
from featdyn.statistics import two_sample
from featdyn.store import Run
from tests.engine.on_workers import same_numbers

density = analyses()["density"]


@pytest.fixture(scope="module")
def found(small_store):
    return density(Run(small_store), permutations=39)


def test_every_pair_cut_and_set(found, small_store):
    run = Run(small_store)
    assert found["statistic"].dims == ("measure", "cut", "set", "pair")
    assert found["t1"].values.tolist() == list(range(run.checkpoints - 1))
    assert (found["t2"] == run.checkpoints - 1).all()
    np.testing.assert_allclose(found["excess"], found["statistic"] - found["null_mean"])
    assert (found["adjusted"] >= found["pvalue"] - 1e-12).all()
    assert found["explained"].sum("component").max() <= 1 + 1e-6


def test_features_that_moved_are_told_from_features_that_did_not(found):
    # Between initialisation and the end everything moved; 40 probes tell.
    first = found.sel(set="train").isel(pair=0)
    assert (first["pvalue"].sel(measure="energy") <= 0.05).all()
    assert (first["excess"].sel(measure="total_variation") > 0).all()


def test_distances_are_those_of_the_projected_features(found, small_store):
    run = Run(small_store)
    member = run.coords["split"].values == "test"
    z = [
        run.array("layers/pooled/activation")[t].values[member].reshape(member.sum(), -1)
        for t in range(run.checkpoints)
    ]
    z = [np.asarray(one, np.float64) for one in z]
    x = np.concatenate(z)
    x = x - x.mean(0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    points = [((one - np.concatenate(z).mean(0)) @ axes.T).astype(np.float32) for one in z]
    # Signs of axes do not matter to any of these, nor does the rotation beyond those kept.
    for name in ("mmd", "energy"):
        wanted = getattr(two_sample, name)(points[1][:, :WIDTH], points[-1][:, :WIDTH], paired=True, permutations=39)
        cell = found["statistic"].sel(measure=name, cut="pooled", set="test").isel(pair=1)
        assert float(cell) == pytest.approx(wanted.statistic, rel=1e-3)
    wanted = two_sample.kde_total_variation(
        points[1][:, :2],
        points[-1][:, :2],
        paired=True,
        permutations=39,
        rng=0,
        groups=run.coords["origin"].values[member],
    )
    cell = found["statistic"].sel(measure="total_variation", cut="pooled", set="test").isel(pair=1)
    assert float(cell) == pytest.approx(wanted.statistic, rel=1e-3)


def test_pairs(small_store):
    run = Run(small_store)
    consecutive = density(run, cuts=("pooled",), pairs="consecutive", permutations=19, samples=30)
    assert (consecutive["t2"] == consecutive["t1"] + 1).all()
    assert consecutive["set_size"].max() == 30
    every = density(run, cuts=("pooled",), pairs="all", permutations=19, samples=30)
    assert every.sizes["pair"] == run.checkpoints * (run.checkpoints - 1) // 2


def test_the_basis_is_common_and_fitted_on_all_checkpoints():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.standard_normal((100, 80)) * np.linspace(5, 0.1, 80) + t for t in range(3)])
    basis = Basis.of(z.astype(np.float32))
    np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(WIDTH), atol=1e-6)
    pooled = (z - z.mean(0)) @ basis.axes
    assert pooled.shape == (300, WIDTH)
    variance = pooled.var(0)
    assert (np.diff(variance) <= 1e-6).all()
    assert set(MEASURES) == {"total_variation", "mmd", "energy", "sliced_wasserstein", "classifier"}


def test_the_same_on_workers(small_store, clusters):
    options = {"cuts": ("pooled", "s1b1"), "permutations": 19, "samples": 30, "features": "stored"}
    run = Run(small_store)
    here = density(run, **options)
    found = [density(run, workers=workers, **options) for workers in clusters.values()]
    same_numbers(found[0], found[1])
    xr.testing.assert_allclose(found[0], here, rtol=1e-4, atol=1e-5)  # BLAS sums in another order on two threads


@pytest.mark.parametrize("exponent", [-70, -30, 0, 70])
@pytest.mark.parametrize(("n", "width"), [(5, 3), (4, 9), (2, 4), (1, 3)])
def test_a_basis_is_that_of_a_singular_value_decomposition(n: int, width: int, exponent: int) -> None:
    rows = np.ldexp(np.random.default_rng(n).standard_normal((n, width)).astype(np.float32), exponent)
    lost = np.full((1, width), np.inf, np.float32)
    basis = Basis.of(np.vstack([rows[:1], lost, rows[1:]]))  # what is not finite has no part
    exact = np.ldexp(rows.astype(np.float64), -exponent)
    _, sizes, axes = np.linalg.svd(exact - exact.mean(0), full_matrices=False)
    rank = min(n - 1, width)
    assert basis.axes.shape == (width, max(1, rank))
    assert basis.axes.dtype == np.float32
    np.testing.assert_allclose(basis.explained, sizes[:rank] ** 2 / (sizes**2).sum() if rank else [0.0], rtol=1e-5)
    if rank:
        np.testing.assert_allclose(np.abs((axes[:rank] * basis.axes.T).sum(1)), 1, atol=1e-4)
        np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(rank), atol=1e-6)


def test_what_does_not_vary_has_one_axis_without_variance() -> None:
    last = np.float32(1 + np.finfo(np.float32).eps)
    for rows in (np.zeros((4, 3)), np.full((4, 3), 7.5), np.full((0, 3), 1.0), np.full((4, 3), np.nan),
                 [[1, 2, 1], [last, 2, 1], [1, 2, last]]):  # fmt: skip
        basis = Basis.of(np.asarray(rows, np.float32))
        assert (basis.axes.shape, basis.explained.tolist()) == ((3, 1), [0.0])
        assert not basis.axes.any()
    assert Basis.of(np.array([[1, 2, 1], [last, 1, 1], [1, 2, last]], np.float32)).explained[0] == pytest.approx(1)


def points(z: np.ndarray, *, rounding: float = 0.0, varies: bool = True) -> Points:
    away = (z - z[0]).astype(np.float32)
    return Points(away, z[0].astype(np.float64), np.full(z.shape[1], rounding), varies)


def test_two_checkpoints_are_about_the_middle_of_their_centres() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 6, 3)) + np.array([5.0, -9.0])[:, None, None]
    one, other = points(x).beside(points(y))
    np.testing.assert_allclose(one[:, None] - other, x[:, None] - y, atol=1e-5)
    np.testing.assert_allclose(one[0] + other[0], 0, atol=1e-6)


def measured(
    x: np.ndarray, y: np.ndarray, images: np.ndarray, components: int = 2, *, rounding: float = 0.0,
    varies: tuple[bool, bool] = (True, True),
) -> list[str]:  # fmt: skip
    """Return why each measure cannot be taken, "taken" where it can; ``varies`` may be of each of the two."""
    options = DensityOptions(permutations=19, components=components)
    labels = compute._labels([images], options)[0]
    both = (points(z, rounding=rounding, varies=own) for z, own in zip((x, y), varies, strict=True))
    found = compute._measured(*both, None, labels, images, options)
    return [one if isinstance(one, str) else "taken" for one in found]


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("images", range(1, 8))
def test_each_measure_needs_so_many_images(images: int, components: int) -> None:
    rng, of_image = np.random.default_rng(images), np.arange(12) % images
    x, y = rng.standard_normal((2, 12, 4))
    needs = {"total_variation": 2 * (components + 1), "classifier": 4}
    wanted = [FEW if images < needs.get(name, 2) else "taken" for name in MEASURES]
    assert measured(x, y, of_image, components) == wanted


def test_features_that_do_not_vary_have_no_distance_and_say_why() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 9, 3))
    own, still, no = np.arange(9), np.ones((9, 3)), (False, False)
    assert measured(x, y, own) == ["taken"] * 5
    assert measured(x, np.where(np.eye(9, 3) > 0, np.nan, y), own) == [NOT_FINITE] * 5
    assert measured(still, still, own, varies=no) == [DEAD] * 5
    for beside in ((True, True), (True, False), (False, True)):
        assert measured(still, still, own, varies=beside) == [compute.BESIDE] * 5
    near = still + 0.9e-3 * (np.eye(9, 3) > 0)
    assert measured(near, still, own, rounding=1e-3, varies=no) == [DEAD] * 5
    assert DEAD not in measured(near, still, own, rounding=0.8e-3, varies=no)
    for images in (2, 3):  # too few images are said before features that do not vary
        assert measured(still, still, own % images, varies=no) == [DEAD, DEAD, DEAD, DEAD, FEW]
    assert measured(still, still, own % 4, varies=no) == [DEAD] * 5
    assert measured(still, still, 0 * own, varies=no) == [FEW] * 5


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_total_variation_is_taken_in_the_dimensions_that_points_span(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0][:dimensions]
    x, y = rng.standard_normal((2, 8, dimensions)) @ turn + 3
    one, other = compute._spanned(x.astype(np.float32), y.astype(np.float32))
    assert one.shape == other.shape == (8, dimensions)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)  # noqa: E731
    for found, exact in ((apart(one, other), apart(x, y)), (apart(one, one), apart(x, x))):
        np.testing.assert_allclose(found, exact, atol=1e-4)
    thin = np.c_[rng.standard_normal(8), 1e-4 * rng.standard_normal(8)].astype(np.float32)
    assert compute._spanned(thin, thin)[0].shape == (8, 2)
    assert compute._spanned(thin * [1, 1e-2], thin * [1, 1e-2])[0].shape == (8, 1)


def test_pairs_of_checkpoints() -> None:
    assert compute._pairs(4, "last") == [(0, 3), (1, 3), (2, 3)]
    assert compute._pairs(4, "consecutive") == [(0, 1), (1, 2), (2, 3)]
    assert compute._pairs(4, "all") == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert compute._pairs(1, "last") == compute._pairs(1, "consecutive") == compute._pairs(1, "all") == []


def test_an_image_is_swapped_in_all_sets_or_in_none() -> None:
    origins = [np.array([3, 3, 1, 0]), np.array([1, 3, 7]), np.array([0])]
    found = compute._labels(origins, DensityOptions(permutations=40, seed=2))
    assert [labels.shape for labels in found] == [(41, 8), (41, 6), (41, 2)]
    for labels in found:
        n = labels.shape[1] // 2
        assert labels[0].tolist() == [True] * n + [False] * n
        assert (labels[:, :n] != labels[:, n:]).all()
    first = np.concatenate([labels[:, : labels.shape[1] // 2] for labels in found], 1)
    every = np.concatenate(origins)
    for image in (0, 1, 3, 7):
        own = first[:, every == image]
        assert (own == own[:, :1]).all()
        assert 5 < own[1:, 0].sum() < 35
