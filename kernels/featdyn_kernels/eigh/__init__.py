"""Eigenpairs of symmetric matrices, of one size or mixed sizes, and of Gram matrices through their smaller side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, converted, implementation, kind_of, like, namespace, to_device, to_numpy
from featdyn_kernels.eigh.warning import PrecisionWarning

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

__all__ = ["PrecisionWarning", "eigh", "eigvalsh", "gram_eigh"]


@overload
def eigh(
    a: list[Array], k: int | None = None, *, backend: Backend | None = None
) -> tuple[list[Array], list[Array]]: ...
@overload
def eigh(a: Array, k: int | None = None, *, backend: Backend | None = None) -> tuple[Array, Array]: ...
def eigh(a: Any, k: int | None = None, *, backend: Backend | None = None) -> tuple[Any, Any]:
    """Return eigenvalues, ascending, and orthonormal eigenvectors of symmetric matrices.

    Parameters
    ----------
    a : array, shape (..., n, n), or a list of such arrays of any sizes
        Only lower triangles are read. Values and vectors are float64 for float64 and integers, else float32, which is
        also what a GPU computes in; the CPU computes pairs in float64.
    k : int, optional
        Only the k largest eigenvalues (of every matrix of a list: at most k) and their vectors, still ascending.

    Returns
    -------
    values : array, shape (..., k), or a list of them
    vectors : array, shape (..., n, k), or a list of them
        ``a @ vectors = vectors * values``; column j belongs to ``values[..., j]``. Errors are a small multiple of the
        rounding error of the dtype times the largest eigenvalue, whatever the condition or the rank of the matrix.

    Raises
    ------
    ValueError
        Matrices that are not square, or ``k`` outside ``1..n``.
    numpy.linalg.LinAlgError
        A matrix did not converge in float64 (none is known).

    Warns
    -----
    PrecisionWarning
        On a GPU: a matrix did not converge in its own precision and was solved again in float64.

    Notes
    -----
    A matrix with NaN or infinity in its lower triangle has NaN for all its values and vectors; others are untouched.
    On the CPU the number of threads changes no bit, but of a lone matrix of more than 512 rows, which LAPACK spreads
    over its own: such results agree within the errors above (vectors: their residuals do).
    """
    if isinstance(a, list):
        require(k is None or k >= 1, f"k must be at least 1, got {k}")
        return _eigh_list(a, k, backend)
    n = _check_square(a, k)
    chosen = choose(backend, a)
    given = to_device(a) if chosen == "gpu" else to_numpy(a, "a")
    batch = _in_working_precision(given).reshape(-1, n, n)
    values, vectors = implementation("eigh", "eigh", chosen)(batch, k or n)
    shape = tuple(a.shape[:-2])
    return like(values.reshape(*shape, k or n), a), like(vectors.reshape(*shape, n, k or n), a)


def eigvalsh(a: Array, k: int | None = None, *, backend: Backend | None = None) -> Array:
    """Return the eigenvalues of symmetric matrices ``a`` (..., n, n), or the k largest, ascending: shape (..., k).

    On the CPU a batch of 16 or more float32 matrices, 8 of float64, of up to 256 rows is computed in its own precision,
    a register's lanes at once; all else is as in :func:`eigh`, in half of its time or less.
    """
    n = _check_square(a, k)
    chosen = choose(backend, a)
    given = _in_working_precision(to_device(a) if chosen == "gpu" else to_numpy(a, "a"))
    found = implementation("eigh", "eigvalsh", chosen)(given.reshape(-1, n, n), k or n)
    values: Array = like(found.reshape(*a.shape[:-2], k or n), a)
    return values


def gram_eigh(x: Array, k: int | None = None, *, backend: Backend | None = None) -> tuple[Array, Array]:
    """Return the largest eigenpairs of ``x^T x`` (the right singular pairs of x), through the smaller side of x.

    Parameters
    ----------
    x : array, shape (..., N, F)
        Kinds of numbers, precision, warnings, NaN, infinity and ``backend`` as in :func:`eigh`; squares must be
        representable too.
    k : int, optional
        How many, at most and by default ``r = min(N, F)``: the other F - r eigenvalues are zero.

    Returns
    -------
    values : array, shape (..., k)
        Ascending, never negative. As of any Gram matrix, their errors are relative to the largest one.
    vectors : array, shape (..., F, k)
        Orthonormal, also those of zero eigenvalues.

    Raises
    ------
    ValueError
        x with fewer than two axes or no elements, or ``k`` outside ``1..r``.
    """
    require(x.ndim >= 2 and min(x.shape[-2:]) > 0, f"x must have shape (..., N, F), got {tuple(x.shape)}")
    most = min(x.shape[-2:])
    require(k is None or 1 <= k <= most, f"k must be in 1..{most} for x of shape {tuple(x.shape)}, got {k}")
    chosen = choose(backend, x)
    given = _in_working_precision(to_device(x) if chosen == "gpu" else to_numpy(x, "x"))
    values, vectors = implementation("eigh", "gram_eigh", chosen)(given, k or most)
    return like(values.clip(0), x), like(vectors, x)


def _eigh_list(arrays: list[Any], k: int | None, backend: Backend | None) -> tuple[list[Any], list[Any]]:
    """Solve all arrays of one size, dtype and device together."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, a in enumerate(arrays):
        _check_square(a, None, f"a[{i}]")
        alike.setdefault((a.shape[-1], a.dtype, getattr(a, "device", None)), []).append(i)
    values: list[Any] = [None] * len(arrays)
    vectors: list[Any] = [None] * len(arrays)
    for (n, *_), members in alike.items():
        stacks = [arrays[i].reshape(-1, n, n) for i in members]
        whole = stacks[0] if len(stacks) == 1 else namespace(stacks[0]).concatenate(stacks)
        together = eigh(whole, None if k is None else min(k, n), backend=backend)
        start = 0
        for i, stack in zip(members, stacks, strict=True):
            for found, out in zip(together, (values, vectors), strict=True):
                part = found[start : start + len(stack)]
                out[i] = part.reshape(*arrays[i].shape[:-2], *part.shape[1:])
            start += len(stack)
    return values, vectors


def _check_square(a: Any, k: int | None, name: str = "a") -> int:
    """Return the rows of matrices, of which k values are asked."""
    square = a.ndim >= 2 and a.shape[-1] == a.shape[-2] and a.shape[-1] > 0
    require(square, f"{name} must have shape (..., n, n), got {tuple(a.shape)}")
    n = int(a.shape[-1])
    require(k is None or k >= 1, f"k must be at least 1, got {k}")
    require(k is None or k <= n, f"k must be at most n = {n}, got {k} for {name} of shape {tuple(a.shape)}")
    return n


def _in_working_precision(a: Any) -> Any:
    """Return ``a`` in float32 or float64."""
    kind = kind_of(a)
    if kind in ("float32", "float64"):
        return a
    wanted = {"float16": "float32", "bfloat16": "float32"}.get(kind, "float64" if "int" in kind else None)
    if wanted is None:
        raise TypeError(f"a matrix must hold real numbers, got {kind}")
    return converted(a, wanted)
