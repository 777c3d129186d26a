"""The GPU's eigenpairs against LAPACK in float64: on a GPU, or under Triton's interpreter on small odd shapes."""

import numpy as np
import pytest
import torch

from featdyn_kernels import eigh
from featdyn_kernels._dispatch import interpreting
from tests.kernels.interpreted import sized
from tests.kernels.test_eigh import SPECTRA, assert_eigenpairs, stack

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"
)


@pytest.fixture
def gpu():
    from featdyn_kernels.eigh import gpu

    return gpu


@pytest.fixture
def always_jacobi(gpu, monkeypatch):
    """Small matrices too, which torch would solve: the interpreter takes seconds for one of n = 33."""
    monkeypatch.setattr(gpu, "SMALL", 1)
    monkeypatch.setattr(gpu, "FEWEST", 1)


@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize(("n", "dtype"), [(2, "float32"), (3, "float64"), (sized(11, 7), "float32")])
def test_any_spectrum(spectrum, n, dtype, always_jacobi):
    a = stack(spectrum, sized(2, 1), n, dtype)
    values, vectors = eigh.eigh(a, backend="gpu")
    assert values.dtype == vectors.dtype == a.dtype
    assert_eigenpairs(a, values, vectors)


def test_a_mixed_batch(always_jacobi):
    n = sized(33, 17)
    a = np.concatenate([stack(spectrum, 1, n, "float32") for spectrum in ("random", "low rank", "clusters", "graded")])
    values, vectors = eigh.eigh(a, backend="gpu")
    assert_eigenpairs(a, values, vectors)
    # Two hundred rotations a row: in the textbook form, lengths would be off by forty roundings.
    lengths = np.square(vectors.astype(np.float64)).sum(1)
    assert np.abs(lengths - 1).max() < 8 * np.finfo(np.float32).eps


@pytest.mark.parametrize(
    ("batch", "n", "dtype", "ours"),
    [
        (9, 32, "float32", False),  # torch is batched
        (9, 33, "float32", True),
        (9, 128, "float32", True),
        (3, 64, "float32", False),
        (9, 129, "float32", False),
        (9, 64, "float64", True),
        (9, 65, "float64", False),
        (0, 40, "float32", False),
    ],
)
def test_who_solves_what(batch, n, dtype, ours, gpu, monkeypatch):
    solved = []
    monkeypatch.setattr(gpu, "_jacobi", lambda a: solved.append(len(a)) or gpu._torch(a))
    a = stack("random", batch, n, dtype)
    assert_eigenpairs(a, *eigh.eigh(a, backend="gpu"))
    assert solved == [batch] * ours


@pytest.mark.parametrize("k", [1, 4])
def test_the_largest_k(k, always_jacobi):
    a = stack("random", 2, 7)
    values, vectors = eigh.eigh(a, k, backend="gpu")
    assert vectors.shape == (2, 7, k)
    assert_eigenpairs(a, values, vectors)


def test_lists_of_mixed_sizes(always_jacobi):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(3, 3), (2, 5, 5), (1, 1), (3, 3), (0, 4, 4)]]
    tensors = [torch.from_numpy(a + a.swapaxes(-1, -2)) for a in arrays]
    values, vectors = eigh.eigh(tensors, 2, backend="gpu")
    for a, w, v in zip(tensors, values, vectors, strict=True):
        assert isinstance(v, torch.Tensor)
        assert v.shape == (*a.shape[:-1], min(2, a.shape[-1]))
        assert_eigenpairs(a.numpy(), w.numpy(), v.numpy())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_stay_in_their_matrix(bad, always_jacobi):
    a = stack("random", 3, 6, "float32")
    a[:, 0, 5] = np.nan  # not read
    a[1, 5, 0] = bad
    values, vectors = eigh.eigh(a, 2, backend="gpu")
    assert np.isnan(values[1]).all()
    assert np.isnan(vectors[1]).all()
    a[:, 0, 5] = a[:, 5, 0]
    assert_eigenpairs(a[::2], values[::2], vectors[::2])


@pytest.mark.parametrize("spectrum", ["tiny", "huge"])
def test_float64_beyond_float32(spectrum, always_jacobi):
    a = stack(spectrum, 1, 5) * {"tiny": 1e-250, "huge": 1e250}[spectrum]
    scale = np.abs(a).max()
    values, vectors = eigh.eigh(a, backend="gpu")
    assert_eigenpairs(a / scale, values / scale, vectors)


def test_what_does_not_converge_is_solved_again_in_float64_and_says_so(always_jacobi, gpu, monkeypatch):
    a = stack("random", 3, 5, "float32")
    monkeypatch.setattr(gpu, "LIMIT", 1)
    message = r"3 of 3 matrices of shape \(5, 5\) did not converge in float32: solved again in float64"
    with pytest.warns(eigh.PrecisionWarning, match=message) as caught:
        values, vectors = eigh.eigh(a, backend="gpu")
    assert caught[0].filename == __file__  # the warning points at the caller
    assert values.dtype == np.float32
    assert_eigenpairs(a, values, vectors)


@pytest.mark.parametrize("precisions", [("float32",), ("float32", "float64")])  # both: only the CPU is left
def test_torch_failures_are_not_errors(precisions, monkeypatch):
    solve = torch.linalg.eigh

    def fail(a):
        if str(a.dtype).removeprefix("torch.") in precisions and bool((a[..., 0, 0] > 50).any()):
            raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")
        return solve(a)

    a = stack("random", 3, 12, "float32")
    a[1, 0, 0] = 100
    before = a.copy()
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.warns(eigh.PrecisionWarning, match="1 of 3 matrices"):
        assert_eigenpairs(a, *eigh.eigh(a, backend="gpu"))
    with pytest.warns(eigh.PrecisionWarning, match="1 of 1 matrices"):
        assert_eigenpairs(a[1], *eigh.eigh(a[1], backend="gpu"))
    assert np.array_equal(a, before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 13), (13, 5), (2, 7, 11), (1, 7)])
@pytest.mark.parametrize("rank", ["full", "low", "none"])
def test_gram_matrices(shape, dtype, rank):
    x = np.random.default_rng(0).standard_normal(shape)
    if rank == "low":
        x[..., shape[-2] // 3 :, :] = x[..., :1, :]
    x = (x * (rank != "none")).astype(dtype)
    values, vectors = eigh.gram_eigh(x, backend="gpu")
    wide = x.astype(np.float64)
    assert values.dtype == vectors.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert vectors.shape == (*shape[:-2], shape[-1], min(shape[-2:]))
    assert np.all(values >= 0)
    allowed = 10 * np.finfo(values.dtype).eps * np.sqrt(max(shape[-2:]))
    assert_eigenpairs(wide.swapaxes(-1, -2) @ wide, values, vectors, allowed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="opcheck traces compiled kernels: needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    from featdyn_kernels.eigh.gpu import eigh_jacobi

    x = torch.randn(5, 37, 37, device="cuda", dtype=dtype)
    torch.library.opcheck(eigh_jacobi, (x @ x.mT, 30))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: hours under the interpreter")
@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize(("n", "dtype"), [(64, "float32"), (127, "float32"), (128, "float32"), (64, "float64")])
def test_every_spectrum_at_full_size(spectrum, n, dtype):
    a = stack(spectrum, 40, n, dtype)
    assert_eigenpairs(a, *eigh.eigh(a, backend="gpu"))
