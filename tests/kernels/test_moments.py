"""Moments against two passes in float64, whatever the shapes, dtypes, means, blocks and threads."""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add

import dask
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import moments, set_threads
from tests.kernels.peers import moments as peers

DTYPES = ("float16", "bfloat16", "float32", "float64")


def sample(n, width, dtype="float32", mean=0.0, seed=0):
    """Correlated columns of different scale around ``mean``; bfloat16 is a tensor, the rest numpy."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)) + 0.5 * rng.standard_normal((n, 1))
    x = mean + x * np.exp(rng.uniform(-2, 2, width))
    if dtype == "bfloat16":
        return torch.from_numpy(x).bfloat16()
    return x.astype(dtype)


def assert_close(found, expected, tolerance):
    """Scatter to ``tolerance`` of sqrt(s_ii s_jj), the issue's promise; sums and means to float64's rounding."""
    found, expected = found.to_dict(), expected.to_dict()
    assert found.keys() == expected.keys()
    scales = {"scatter": ("scatter", "scatter"), "output_scatter": ("output_scatter", "output_scatter")}
    scales["cross_scatter"] = ("scatter", "output_scatter")
    for name, value in expected.items():
        assert np.shape(found[name]) == np.shape(value), name
        if name in scales:
            left, right = (np.sqrt(np.diag(expected[scale])) for scale in scales[name])
            allowed = tolerance * np.outer(left, right)
            assert np.all(np.abs(found[name] - value) <= allowed), (name, np.max(np.abs(found[name] - value)))
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12 * np.max(np.abs(value), initial=0))


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 420),
    width=st.integers(1, 130),
    outputs=st.none() | st.integers(1, 60),
    classes=st.none() | st.integers(1, 12),
    dtype=st.sampled_from(DTYPES),
    mean=st.sampled_from([0.0, 3.0, -100.0]),
)
def test_matches_the_reference(n, width, outputs, classes, dtype, mean):
    x = sample(n, width, dtype, mean)
    f = None if outputs is None else sample(n, outputs, dtype, mean, seed=1)
    labels = None if classes is None else np.random.default_rng(2).integers(0, classes, n)
    found = moments.accumulate(x, f, labels, classes=classes)
    expected = moments.accumulate(x, f, labels, classes=classes, backend="reference")
    assert_close(found, expected, 1e-11 if dtype == "float64" else 1e-6)


def maps(n, width, positions, *args, **kwargs):
    """A :func:`sample` of ``n * positions`` rows as maps, channels first, each sample around a mean of its own."""
    x = torch.as_tensor(sample(n * positions, width, *args, **kwargs)).reshape(n, positions, width)
    shift = torch.arange(n).reshape(n, 1, 1) % 3
    return (x + shift.to(x.dtype)).swapaxes(1, 2).contiguous()


def rows_of(x):
    return x.swapaxes(1, 2).reshape(-1, x.shape[1])


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 70),
    width=st.integers(1, 140),
    positions=st.integers(0, 90) | st.sampled_from([256, 1024, 1100]),
    dtype=st.sampled_from(DTYPES),
    mean=st.sampled_from([0.0, 3.0, -100.0]),
)
def test_maps_are_rows_of_positions(n, width, positions, dtype, mean):
    x = maps(n % 9 if positions > 90 else n, width, positions, dtype, mean)
    found = moments.accumulate(x)
    assert found.count == len(x) * positions
    assert_close(found, moments.accumulate(rows_of(x), backend="reference"), 1e-11 if dtype == "float64" else 1e-6)
    assert_close(moments.accumulate(x, backend="reference"), moments.accumulate(rows_of(x), backend="reference"), 0)


@pytest.mark.parametrize("shape", [(300, 16, 1024), (1500, 18, 49), (37, 7, 5000)])
def test_maps_sum_alike_on_any_number_of_threads(shape):
    x = maps(*shape, "float16", 3.0).numpy()
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        found.append(moments.accumulate(x))
    assert_close(found[0], moments.accumulate(rows_of(x), backend="reference"), 1e-6)
    for other in found[1:]:
        assert np.array_equal(found[0].scatter, other.scatter)
        assert np.array_equal(found[0].mean, other.mean)


@pytest.mark.parametrize("scale", [1e-30, 2e-21, 1e-18, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("offset", [0, 1e4, 1e6])
def test_maps_of_any_size_around_any_mean(scale, offset):
    x = (maps(20, 6, 300, "float32", offset).numpy() * np.float32(scale)).astype(np.float32)
    assert_close(moments.accumulate(x), moments.accumulate(rows_of(x), backend="reference"), 1e-6)


def test_maps_of_few_distinct_values():
    values = np.random.default_rng(0).standard_normal((30, 16, 1024))
    x = (np.round(16 * values + 1600) / 16).astype(np.float16)
    assert_close(moments.accumulate(x), moments.accumulate(rows_of(x), backend="reference"), 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_numbers_stay_in_their_channel(bad):
    x = maps(20, 5, 70).numpy()
    good = moments.accumulate(x)
    x[7, 3, 69] = bad
    found, reference = (moments.accumulate(x, backend=backend) for backend in ("cpu", "reference"))
    assert np.array_equal(np.isnan(reference.scatter), np.isnan(found.scatter))
    assert np.array_equal(np.isfinite(found.mean), np.arange(5) != 3)
    others = np.ix_(np.arange(5) != 3, np.arange(5) != 3)
    assert np.array_equal(found.scatter[others], good.scatter[others])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1300, 601), (20011, 33)])  # tiles shared out, and rows shared out
def test_large_shapes(shape, dtype, threads):
    set_threads(threads)
    x, f = sample(*shape, dtype, 5.0), sample(shape[0], 7, dtype, seed=1)
    labels = np.arange(shape[0]) % 5
    expected = moments.accumulate(x, f, labels, backend="reference")
    found = moments.accumulate(x, f, labels)
    assert_close(found, expected, 1e-11 if dtype == "float64" else 1e-6)
    again = moments.accumulate(x, f, labels)
    assert all(np.array_equal(value, again.to_dict()[name]) for name, value in found.to_dict().items())


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
def test_large_means_cost_no_digits(ratio):
    """float32 values with a mean of ``ratio`` standard deviations: x.T @ x in float32 loses everything at 1e4."""
    x = (ratio + np.random.default_rng(0).standard_normal((3001, 40))).astype(np.float32)
    expected = moments.accumulate(x, backend="reference")
    assert_close(moments.accumulate(x), expected, 1e-6)
    drifting = x + np.linspace(0, 50 * ratio, len(x), dtype=np.float32)[:, None]
    assert_close(moments.accumulate(drifting), moments.accumulate(drifting, backend="reference"), 1e-6)
    parts = [moments.accumulate(part) for part in np.array_split(x, 7)]
    assert_close(reduce(add, parts), expected, 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_squares_outside_float32(scale):
    x = (sample(500, 20) * np.float32(scale)).astype(np.float32)
    assert_close(moments.accumulate(x), moments.accumulate(x, backend="reference"), 1e-6)


def test_few_distinct_values_do_not_round_the_same_way():
    x = (np.round(16 * np.random.default_rng(0).standard_normal((3000, 50)) + 1600) / 16).astype(np.float16)
    assert_close(moments.accumulate(x), moments.accumulate(x, backend="reference"), 1e-6)


def test_a_constant_column_has_no_scatter():
    x = sample(1000, 5)
    x[:, 2] = 1234.5678
    found = moments.accumulate(x)
    assert np.all(found.scatter[2] == 0)
    assert np.all(found.scatter[:, 2] == 0)
    assert found.mean[2] == x[0, 2]


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 300), max_size=5),
    order=st.randoms(use_true_random=False),
    labelled=st.booleans(),
    with_outputs=st.booleans(),
)
def test_blocks_merge_in_any_order(cuts, order, labelled, with_outputs):
    x, f = sample(300, 9, "float64", 4.0), sample(300, 4, "float64", seed=1)
    labels = np.sort(np.random.default_rng(3).integers(0, 6, 300))  # sorted: blocks see different numbers of classes
    limits = [0, *sorted(cuts), 300]

    def block(start, stop):
        rows = slice(start, stop)
        return moments.accumulate(x[rows], f[rows] if with_outputs else None, labels[rows] if labelled else None)

    parts = [block(start, stop) for start, stop in itertools.pairwise(limits)]
    order.shuffle(parts)
    assert_close(reduce(add, parts), block(0, 300), 1e-11)


def test_merging_leaves_its_operands_alone():
    a, b = (moments.accumulate(sample(20, 3, seed=s), labels=np.full(20, s)) for s in (0, 1))
    before = {name: np.copy(value) for name, value in (a.to_dict() | {"b": b.class_sum}).items()}
    assert (a + b).count == 40
    after = a.to_dict() | {"b": b.class_sum}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with pytest.raises(AttributeError):
        a.count = 3


def test_dictionary_round_trip_under_dask_threads():
    x, f = sample(4000, 30, mean=7.0), sample(4000, 5, seed=1)
    labels = np.arange(4000) % 3

    @dask.delayed
    def block(start):
        rows = slice(start, start + 500)
        return moments.accumulate(x[rows], f[rows], labels[rows]).to_dict()

    @dask.delayed
    def merge(parts):
        return reduce(add, map(moments.Moments.from_dict, parts)).to_dict()

    parts = [block(start) for start in range(0, 4000, 500)]
    tree = merge([merge(parts[:4]), merge(parts[4:])])
    found = moments.Moments.from_dict(tree.compute(scheduler="threads", num_workers=4))
    assert_close(found, moments.accumulate(x, f, labels, backend="reference"), 1e-6)


def test_many_threads_at_once():
    x = sample(6000, 40, mean=2.0)
    expected = moments.accumulate(x)
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: moments.accumulate(x), range(24)):
            assert np.array_equal(found.scatter, expected.scatter)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("width", [5, 601])
def test_bad_numbers_stay_in_their_column(bad, width):
    x = sample(700, width)
    good = moments.accumulate(x)
    x[650, 3] = bad
    found = moments.accumulate(x, labels=(np.arange(700) == 650).astype(int))
    others = np.arange(width) != 3
    assert np.all(np.isnan(found.scatter[3]))
    assert np.all(np.isnan(found.scatter[:, 3]))
    assert np.array_equal(found.mean[3], np.float64(bad), equal_nan=True)
    np.testing.assert_allclose(found.scatter[np.ix_(others, others)], good.scatter[np.ix_(others, others)], rtol=1e-5)
    assert np.isfinite(found.class_sum[0]).all()
    assert found.count == 700
    reference = moments.accumulate(x, backend="reference")
    assert np.array_equal(np.isnan(reference.scatter), np.isnan(found.scatter))


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_and_kind_of_the_input(dtype):
    x = torch.as_tensor(sample(90, 14, dtype, 1.0))
    strided = torch.stack([x, x], dim=2)[:, :, 1].T.contiguous().T
    assert not strided.is_contiguous()
    found, expected = moments.accumulate(strided), moments.accumulate(x, backend="reference")
    assert isinstance(found.scatter, torch.Tensor)
    assert found.scatter.dtype == torch.float64
    assert_close(found, expected, 1e-6)
    if dtype != "bfloat16":
        reversed_rows = x.numpy()[::-1, ::2]
        found = moments.accumulate(reversed_rows)
        assert isinstance(found.scatter, np.ndarray)
        assert_close(found, moments.accumulate(reversed_rows, backend="reference"), 1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_what_follows_from_the_moments(kind):
    x, f = sample(400, 6, "float64", 2.0), sample(400, 3, "float64", seed=1)
    labels = np.random.default_rng(0).integers(0, 4, 400)
    labels[labels == 2] = 3  # class 2 stays empty
    found = moments.accumulate(kind(x), kind(f), kind(labels), classes=5)
    np.testing.assert_allclose(found.sum, x.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found.output_sum, f.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found.second, x.T @ x, rtol=1e-12)
    np.testing.assert_allclose(found.output_second, f.T @ f, rtol=1e-12)
    np.testing.assert_allclose(found.cross, x.T @ f, rtol=1e-10, atol=1e-9)
    both = np.cov(x.T, f.T)
    np.testing.assert_allclose(found.covariance(ddof=1), both[:6, :6], rtol=1e-10)
    np.testing.assert_allclose(found.cross_covariance(ddof=1), both[:6, 6:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.output_covariance(ddof=1), both[6:, 6:], rtol=1e-10)
    np.testing.assert_array_equal(found.class_count, [*(np.sum(labels == c) for c in range(4)), 0])
    for c in (0, 1, 3):
        np.testing.assert_allclose(found.class_mean[c], x[labels == c].mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.class_output_mean[c], f[labels == c].mean(0), rtol=1e-12)
    assert np.isnan(np.asarray(found.class_mean)[[2, 4]]).all()
    within = sum(
        (x[labels == c] - x[labels == c].mean(0)).T @ (x[labels == c] - x[labels == c].mean(0)) for c in (0, 1, 3)
    )
    np.testing.assert_allclose(found.within_scatter, within, rtol=1e-10)
    np.testing.assert_allclose(found.within_scatter + found.between_scatter, found.scatter, rtol=1e-12)
    assert repr(found) == "Moments(count=400, features=6, outputs=3, classes=5)"


@pytest.mark.parametrize("name", [*peers.RAW, *peers.SCATTER])
def test_peers(name):
    x = sample(2000, 60)
    reference = moments.accumulate(x, backend="reference")
    expected = reference.second if name in peers.RAW else reference.scatter
    assert peers.error((peers.RAW | peers.SCATTER)[name](torch.from_numpy(x)), expected) < 1e-6


@pytest.mark.parametrize("name", peers.MAPS)
def test_peers_of_maps(name):
    x = maps(20, 8, 49, "float16")
    assert peers.error(peers.MAPS[name](x), moments.accumulate(x, backend="reference").scatter.numpy()) < 1e-6


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": np.zeros(3)}, r"features must have shape \(N, F\) or \(N, F, P\), got \(3,\)"),
        ({"features": np.zeros((3, 2, 4)), "outputs": X}, r"features \(N, F, P\) go without outputs and labels"),
        ({"features": X, "outputs": np.zeros(3)}, r"outputs must have shape \(N, C\), got \(3,\)"),
        ({"features": X, "outputs": np.zeros((4, 1))}, r"outputs must have 3 rows .* got shape \(4, 1\)"),
        ({"features": X, "labels": np.zeros((3, 1), int)}, r"labels must have shape \(N,\), got \(3, 1\)"),
        ({"features": X, "labels": np.zeros(2, int)}, r"labels must have 3 elements .* got shape \(2,\)"),
        ({"features": X, "labels": np.array([0, -1, 0])}, "labels must not be negative, got -1"),
        ({"features": X, "labels": np.array([0, 4, 0]), "classes": 4}, "labels must be below classes=4, got 4"),
        ({"features": X, "classes": 4}, "classes needs labels"),
        ({"features": X, "backend": "tpu"}, "backend must be one of reference, cpu, gpu, got 'tpu'"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        moments.accumulate(**arguments)


def test_type_errors():
    with pytest.raises(TypeError, match="labels must be integers, got float64"):
        moments.accumulate(np.zeros((2, 2)), labels=np.zeros(2))
    with pytest.raises(TypeError, match="features must be float16, bfloat16, float32 or float64, got int64"):
        moments.accumulate(np.zeros((2, 2), np.int64))


def test_moments_that_do_not_fit():
    x, f, labels = np.ones((4, 2)), np.ones((4, 3)), np.zeros(4, int)
    plain = moments.accumulate(x)
    with pytest.raises(ValueError, match="cannot add moments: only one of them has outputs"):
        plain + moments.accumulate(x, f)
    with pytest.raises(ValueError, match="cannot add moments: only one of them has labels"):
        plain + moments.accumulate(x, labels=labels)
    with pytest.raises(ValueError, match="cannot add moments of 2 and 3 features"):
        plain + moments.accumulate(f)
    with pytest.raises(TypeError):
        plain + 1
    with pytest.raises(ValueError, match="accumulated without outputs"):
        plain.cross  # noqa: B018
    with pytest.raises(ValueError, match="accumulated without labels"):
        plain.class_mean  # noqa: B018
    with pytest.raises(ValueError, match="ddof=4 needs more than 4 samples, got 4"):
        plain.covariance(ddof=4)


def test_the_import_is_light():
    code = "import sys; from featdyn_kernels import moments; print({'numba', 'triton', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
