"""Eigenpairs against LAPACK in float64: easy and hard spectra, every size of batch, NaN, threads, forks."""

import multiprocessing
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels import _threads, eigh, set_threads
from featdyn_kernels.eigh import cholesky_qr, cpu
from tests.kernels.peers import eigh as peers

LARGE = 131


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def with_spectrum(rng, values):
    basis = orthogonal(rng, len(values))
    return basis * values @ basis.T


SPECTRA = {
    "random": lambda rng, n: (lambda x: x + x.T)(rng.standard_normal((n, n))),
    "low rank": lambda rng, n: (lambda x: x @ x.T)(rng.standard_normal((n, max(1, n // 5)))),
    "graded": lambda rng, n: with_spectrum(rng, np.logspace(0, -12, n)),
    "clusters": lambda rng, n: with_spectrum(rng, np.repeat([1.0, 1.0 + 1e-9, -1.0, 0.5], -(-n // 4))[:n]),
    "equal": lambda rng, n: 3.0 * np.eye(n),
    "zero": lambda rng, n: np.zeros((n, n)),
    "diagonal": lambda rng, n: np.diag(rng.standard_normal(n)),
    "wilkinson": lambda rng, n: np.diag(np.abs(np.arange(n) - n // 2.0)) + np.eye(n, k=1) + np.eye(n, k=-1),
    "hilbert": lambda rng, n: 1.0 / (1.0 + np.arange(n)[:, None] + np.arange(n)),
    "huge": lambda rng, n: 1e36 * with_spectrum(rng, rng.uniform(-1, 1, n)),
    "tiny": lambda rng, n: 1e-33 * with_spectrum(rng, rng.uniform(-1, 1, n)),
    "rotated pair": lambda rng, n: np.ones((n, n)),
}


def stack(spectrum, batch, n, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    matrices = np.array([SPECTRA[spectrum](rng, n) for _ in range(batch)]).reshape(batch, n, n)
    return ((matrices + matrices.swapaxes(-1, -2)) / 2).astype(dtype)


def tolerance(a):
    """Backward errors of LAPACK and of Jacobi stay below a few sqrt(n) roundings; ten leave room for luck."""
    return 10 * np.finfo(a.dtype).eps * np.sqrt(a.shape[-1])


def assert_eigenpairs(a, values, vectors, allowed=None):
    allowed = tolerance(a) if allowed is None else allowed
    k = vectors.shape[-1]
    residual, distance = peers.errors(a, values, vectors)
    assert residual <= allowed
    assert distance <= allowed
    assert vectors.shape == (*a.shape[:-1], k)
    assert_eigenvalues(a, values, allowed)


def assert_eigenvalues(a, values, allowed=None):
    allowed = tolerance(a) if allowed is None else allowed
    n, k = a.shape[-1], values.shape[-1]
    assert values.shape == (*a.shape[:-2], k)
    assert np.all(np.diff(values, axis=-1) >= 0)
    expected = np.linalg.eigvalsh(np.asarray(a, np.float64))
    scale = np.abs(expected).max(-1, keepdims=True)
    assert np.all(np.abs(values - expected[..., n - k :]) <= allowed * scale)


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


BATCHES = {
    "spectrum": st.sampled_from(sorted(SPECTRA)),
    "n": st.integers(1, 45),
    "batch": st.integers(0, 36),
    "dtype": st.sampled_from(["float32", "float64"]),
}


@settings(deadline=None, max_examples=60)
@given(**BATCHES, seed=st.integers(0, 1000))
def test_any_batch_of_any_spectrum(spectrum, n, batch, dtype, seed):
    a = stack(spectrum, batch, n, dtype, seed)
    values, vectors = eigh.eigh(a)
    assert values.dtype == vectors.dtype == a.dtype
    assert_eigenpairs(a, values, vectors)


@settings(deadline=None, max_examples=100)
@given(**BATCHES, data=st.data())
def test_values_alone_of_any_batch(spectrum, n, batch, dtype, data):
    a, k = stack(spectrum, batch, n, dtype), data.draw(st.integers(1, n))
    values = eigh.eigvalsh(a, k)
    assert values.shape == (batch, k)
    assert values.dtype == a.dtype
    assert_eigenvalues(a, values)
    assert_eigenvalues(a.astype(np.float64), eigh.eigvalsh(a, k, backend="reference"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [128, cpu.LARGEST, cpu.LARGEST + 1])
@pytest.mark.parametrize("spectrum", ["random", "graded", "clusters", "wilkinson", "huge"])
def test_values_alone_of_middling_size(spectrum, n, dtype):
    a = np.repeat(stack(spectrum, 2, n, dtype), 8, axis=0)
    for k in (10, n // 2, n):
        assert_eigenvalues(a, eigh.eigvalsh(a, k))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_of_a_matrix_do_not_depend_on_its_neighbours(dtype):
    each = {name: stack(name, 5, 9, dtype) for name in SPECTRA}
    a = np.concatenate(list(each.values()))
    a[3, 2, 1], a[17, 8, 8] = np.nan, -np.inf
    a[:, 0, 8] = np.nan  # not in the lower triangle
    values = eigh.eigvalsh(a, 4)
    assert np.isnan(values[[3, 17]]).all()
    for start in (0, 7, 40):
        some = slice(start, start + 19)
        assert np.array_equal(eigh.eigvalsh(a[some], 4), values[some], equal_nan=True)
    rest = np.delete(np.arange(len(a)), [3, 17])
    lower = np.tril(a[rest])
    assert_eigenvalues(lower + np.tril(lower, -1).swapaxes(1, 2), values[rest])


@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize("n", [67])
def test_hard_spectra_of_middling_size(spectrum, n):
    a = stack(spectrum, 16, n, "float32")
    assert_eigenpairs(a, *eigh.eigh(a))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [40, 129])
@pytest.mark.parametrize("spectrum", ["random", "low rank"])
def test_around_the_change_of_method(n, dtype, spectrum):
    a = stack(spectrum, 2, n, dtype)
    for k in (n // cpu.FEW, n // cpu.FEW + 1):
        assert_eigenpairs(a, *eigh.eigh(a, k))


@pytest.mark.slow
@pytest.mark.parametrize("n", [1024, 2047, 4096])
@pytest.mark.parametrize("spectrum", ["random", "low rank"])
def test_large(n, spectrum):
    a = stack(spectrum, 1, n, "float32") if n < 4096 else stack("hilbert", 1, n, "float32")
    assert_eigenpairs(a, *eigh.eigh(a))
    assert_eigenpairs(a, *eigh.eigh(a, k=20))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), batch=st.sampled_from([1, 16]), data=st.data())
def test_the_largest_k(n, batch, data):
    k = data.draw(st.integers(1, n))
    a = stack("random", batch, n)
    values, vectors = eigh.eigh(a, k)
    assert vectors.shape == (batch, n, k)
    assert_eigenpairs(a, values, vectors)


@pytest.mark.parametrize("spectrum", ["random", "low rank", "clusters"])
@pytest.mark.parametrize("k", [1, 7, 90])
def test_the_largest_k_of_a_large_matrix(spectrum, k):
    a = stack(spectrum, 1, LARGE, "float32")
    assert_eigenpairs(a, *eigh.eigh(a, k))


@pytest.mark.parametrize("n", [5, LARGE])
def test_reference_agrees(n):
    a = stack("random", 3, n, "float32").reshape(3, 1, n, n)
    values, vectors = eigh.eigh(a, k=4, backend="reference")
    assert values.dtype == np.float64
    assert vectors.shape == (3, 1, n, 4)
    assert_eigenpairs(a.astype(np.float64), values, vectors)
    np.testing.assert_allclose(eigh.eigh(a, k=4)[0], values, atol=tolerance(a) * np.abs(values).max())


def test_only_the_lower_triangle_is_read():
    for n in (6, LARGE):
        a = stack("random", 16 if n == 6 else 1, n)
        expected = eigh.eigh(a)
        a[..., np.triu_indices(n, 1)[0], np.triu_indices(n, 1)[1]] = np.nan
        for found in (eigh.eigh(a), eigh.eigh(a, backend="reference")):
            np.testing.assert_allclose(found[0], expected[0], atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [7, 64, LARGE])
def test_bad_numbers_stay_in_their_matrix(bad, n):
    batch = 3 if n == LARGE else 20
    a = stack("random", batch, n, "float32")
    a[2, n - 1, 0] = bad
    for k in (None, 2):
        values, vectors = eigh.eigh(a, k)
        assert np.isnan(values[2]).all()
        assert np.isnan(vectors[2]).all()
        rest = np.arange(batch) != 2
        assert_eigenpairs(a[rest], values[rest], vectors[rest])
    reference = eigh.eigh(a, backend="reference")
    assert np.array_equal(np.isnan(reference[0]), np.isnan(eigh.eigh(a)[0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_kinds_of_input(dtype):
    whole = np.round(stack("random", 3, 9) * 4)
    tensor = torch.from_numpy(whole).to(getattr(torch, dtype))
    values, vectors = eigh.eigh(tensor.transpose(1, 2))  # not contiguous
    assert isinstance(vectors, torch.Tensor)
    assert values.dtype == vectors.dtype == (torch.float64 if dtype in ("float64", "int64") else torch.float32)
    a = whole.transpose(0, 2, 1).astype("float64" if dtype in ("float64", "int64") else "float32")
    assert_eigenpairs(a, values.numpy(), vectors.numpy())
    if dtype != "bfloat16":
        assert np.array_equal(eigh.eigh(whole.astype(dtype).transpose(0, 2, 1))[0], values.numpy())


@pytest.mark.parametrize("n", [8, LARGE])
def test_the_input_stays_as_it_is(n):
    a = stack("random", 16 if n == 8 else 1, n)
    before = a.copy()
    a.flags.writeable = False
    eigh.eigh(a)
    assert np.array_equal(a, before)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_lists_of_mixed_sizes(kind):
    shapes = [(3, 3), (4, 70, 70), (2, 5, 3, 3), (1, 1), (70, 70), (17, 3, 3), (0, 4, 4), (LARGE, LARGE)]
    rng = np.random.default_rng(0)
    arrays = [(lambda x: x + x.swapaxes(-1, -2))(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    arrays[5] = arrays[5].astype(np.float64)
    for k in (None, 2):
        values, vectors = eigh.eigh([kind(a) for a in arrays], k)
        assert isinstance(values, list)
        assert isinstance(vectors, list)
        for a, w, v in zip(arrays, values, vectors, strict=True):
            assert type(w) is type(kind(a))
            assert v.shape == (*a.shape[:-1], a.shape[-1] if k is None else min(k, a.shape[-1]))
            assert_eigenpairs(a, np.asarray(w), np.asarray(v))
    assert eigh.eigh([]) == ([], [])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_make_no_difference(threads):
    rng = np.random.default_rng(0)
    many, lone = stack("random", 70, 20, "float32"), stack("random", 1, cpu.LONE)
    tall, wide = rng.standard_normal((3000, 20)), rng.standard_normal((20, 3 * cpu.PIECE))
    calls = [lambda: eigh.eigh(many), lambda: eigh.eigh(lone), lambda: eigh.eigh(lone, 5)]
    calls += [lambda: (eigh.eigvalsh(many), eigh.eigvalsh(many.astype(np.float64), 3), eigh.eigvalsh(lone))]
    calls += [lambda: eigh.gram_eigh(tall), lambda: eigh.gram_eigh(wide)]
    set_threads(1)
    expected = [call() for call in calls]
    set_threads(threads)
    for call, wanted in zip(calls, expected, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(call(), wanted, strict=True))


def test_no_bit_changes_from_call_to_call():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 20))
    expected = eigh.gram_eigh(x)
    for shift in (0, 8, 16, 40):  # wherever the memory lies
        raw = np.empty(x.nbytes + 64, np.uint8)
        moved = raw[shift : shift + x.nbytes].view(np.float64).reshape(x.shape)
        moved[...] = x
        found = eigh.gram_eigh(moved)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_lone_large_matrix_is_as_precise_on_any_threads():
    a = stack("random", 1, cpu.LONE + 1)
    for threads in (1, 2):
        set_threads(threads)
        assert_eigenpairs(a, *eigh.eigh(a))


def _in_a_child(queue):
    queue.put(eigh.eigh(stack("random", 1, 300))[0])
    queue.put(eigh.gram_eigh(stack("random", 1, 40)[0])[0])


def test_a_forked_child_of_a_parent_that_used_it():
    set_threads(2)
    a = stack("random", 1, cpu.LONE + 8)
    torch.mm(torch.ones(600, 600), torch.ones(600, 600))  # a parent whose OpenMP has threads
    eigh.eigh(a)
    eigh.gram_eigh(a[0])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: that is what is tried here
        child.start()
    try:
        assert np.array_equal(queue.get(timeout=240), eigh.eigh(stack("random", 1, 300))[0])
        assert np.array_equal(queue.get(timeout=240), eigh.gram_eigh(stack("random", 1, 40)[0])[0])
    finally:
        child.kill()


def test_blas_has_its_threads_back_when_the_last_user_leaves():
    blas = [i for i in _threads.controller().info() if i["user_api"] == "blas"]
    before = [i["num_threads"] for i in blas]
    first, second = _threads.one_blas_thread(), _threads.one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # in the order in which two threads may leave
    assert all(i["num_threads"] == 1 for i in _threads.controller().info() if i["user_api"] == "blas")
    second.__exit__(None, None, None)
    assert [i["num_threads"] for i in _threads.controller().info() if i["user_api"] == "blas"] == before


def test_under_dask_threads():
    a = stack("random", 40, 30, "float32")
    expected = eigh.eigh(a)[0]
    tasks = [dask.delayed(eigh.eigh)(a) for _ in range(12)]
    for values, _ in dask.compute(*tasks, scheduler="threads", num_workers=4):
        assert np.array_equal(values, expected)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(v, expected) for v in pool.map(lambda _: eigh.eigh(a)[0], range(12)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (1, 7), (7, 1), (3, 2, 30, 41), (LARGE, 150), (17, 17)])
@pytest.mark.parametrize("rank", ["full", "low", "none"])
def test_gram_matrices(shape, dtype, rank, monkeypatch):
    monkeypatch.setattr(cpu, "PIECE", 16)  # so that products are sums of several
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    if rank == "low":
        x[..., shape[-2] // 3 :, :] = x[..., :1, :]
    x = (x * (rank != "none")).astype(dtype)
    values, vectors = eigh.gram_eigh(x)
    wide = x.astype(np.float64)
    gram = wide.swapaxes(-1, -2) @ wide
    most = min(shape[-2:])
    assert values.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert np.all(values >= 0)
    allowed = 10 * np.finfo(values.dtype).eps * np.sqrt(max(shape[-2:]))
    assert vectors.shape == (*shape[:-2], shape[-1], most)
    assert_eigenpairs(gram, values, vectors, allowed)
    top = max(1, most // 2)
    assert_eigenpairs(gram, *eigh.gram_eigh(x, top), allowed)
    assert_eigenpairs(gram, *eigh.gram_eigh(x, top, backend="reference"), allowed)


@pytest.mark.parametrize("decay", ["flat", "power", "exponential", "centred"])
@pytest.mark.parametrize("rounds", [0, cholesky_qr.ROUNDS])  # 0: by a QR decomposition
def test_gram_of_decaying_spectra(decay, rounds, monkeypatch):
    monkeypatch.setattr(cholesky_qr, "ROUNDS", rounds)
    rng = np.random.default_rng(0)
    place = np.arange(40)
    sizes = {"power": (1.0 + place) ** -2, "exponential": np.exp(-place / 2)}.get(decay, np.ones(40))
    x = orthogonal(rng, 40) * sizes @ orthogonal(rng, 71)[:40]
    x = (x - x.mean(0) * (decay == "centred")).astype(np.float32)
    gram = x.astype(np.float64).T @ x.astype(np.float64)
    assert_eigenpairs(gram, *eigh.gram_eigh(x), 10 * np.finfo(np.float32).eps * np.sqrt(71))


def test_gram_of_tensors_and_of_bad_numbers():
    x = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0))
    values, vectors = eigh.gram_eigh(x, 3)
    assert isinstance(vectors, torch.Tensor)
    assert_eigenpairs((x.mT @ x).double().numpy(), values.numpy(), vectors.numpy(), 1e-5)
    x[1, 2, 3] = float("nan")
    values, vectors = eigh.gram_eigh(x, 3)
    assert values[1].isnan().all()
    assert vectors[1].isnan().all()
    assert values[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("name", sorted(peers.PEERS))
def test_peers(name):
    a = stack("random", 6, 40, "float32")
    values, vectors = peers.PEERS[name](torch.from_numpy(a))
    assert_eigenpairs(a, values.numpy(), vectors.numpy())


@pytest.mark.parametrize("name", sorted(peers.VALUES))
def test_peers_of_values(name):
    a = stack("random", 6, 40, "float32")
    assert_eigenvalues(a, peers.VALUES[name](torch.from_numpy(a), 7).numpy())


@pytest.mark.parametrize("name", sorted(peers.GRAM))
def test_gram_peers(name):
    x = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    values, vectors = peers.GRAM[name](x)
    assert_eigenpairs((x.mT @ x).numpy(), values.numpy(), vectors.numpy(), 1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eigh.eigh(np.zeros((3, 4))), r"a must have shape \(\.\.\., n, n\), got \(3, 4\)"),
        (lambda: eigh.eigvalsh(np.zeros((3, 4))), r"a must have shape \(\.\.\., n, n\), got \(3, 4\)"),
        (lambda: eigh.eigh(np.zeros(3)), r"a must have shape \(\.\.\., n, n\), got \(3,\)"),
        (lambda: eigh.eigh(np.zeros((2, 0, 0))), r"a must have shape .* got \(2, 0, 0\)"),
        (lambda: eigh.eigh([np.eye(2), np.zeros((2, 3))]), r"a\[1\] must have shape .* got \(2, 3\)"),
        (lambda: eigh.eigh(np.eye(3), k=4), r"k must be at most n = 3, got 4 for a of shape \(3, 3\)"),
        (lambda: eigh.eigh(np.eye(3), k=0), "k must be at least 1, got 0"),
        (lambda: eigh.eigh([np.eye(3)], k=0), "k must be at least 1, got 0"),
        (lambda: eigh.eigvalsh(np.eye(3), 4), r"k must be at most n = 3, got 4 for a of shape \(3, 3\)"),
        (lambda: eigh.eigvalsh(np.eye(3), 0), "k must be at least 1, got 0"),
        (lambda: eigh.gram_eigh(np.zeros(3)), r"x must have shape \(\.\.\., N, F\), got \(3,\)"),
        (lambda: eigh.gram_eigh(np.zeros((0, 3))), r"x must have shape \(\.\.\., N, F\), got \(0, 3\)"),
        (lambda: eigh.gram_eigh(np.zeros((2, 3)), k=3), r"k must be in 1\.\.2 for x of shape \(2, 3\), got 3"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="a matrix must hold real numbers, got complex128"):
        eigh.eigh(np.eye(2, dtype=complex))


def test_the_import_is_light():
    code = (
        "import sys; from featdyn_kernels import eigh; print({'numba', 'triton', 'torch', 'scipy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
