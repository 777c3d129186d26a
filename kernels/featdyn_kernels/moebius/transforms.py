"""The public transforms: checks, dispatch, and the caller's kind of array back.

Parameters, results and errors of all four are those of :func:`moebius`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import choose, converted, implementation, is_tensor, kind_of, like, to_device, to_numpy
from featdyn_kernels._versions import simd

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend


def moebius(f: Array, *, out: Array | None = None, backend: Backend | None = None) -> Array:
    """Return the Moebius transform ``sum_{T in S} (-1)**(|S| - |T|) f(T)`` of every subset S (Harsanyi dividends).

    Parameters
    ----------
    f : (..., 2**n)
        One value per subset, bit i of the index being variable i.
    out : (..., 2**n), optional
        Where to write; contiguous, of the result's dtype and kind. May be ``f`` itself.
    backend
        ``"reference"``, ``"cpu"`` or ``"gpu"``; by default the device of ``f`` decides.

    Returns
    -------
    (..., 2**n)
        float32 or float64, the kind of array that ``f`` is. In float32 its error grows as ``2**(|S|/2)`` times that of
        ``f``: about 1e-5 at n = 10 and 1e-3 at n = 20 for ``|f|`` of order 5.

    Raises
    ------
    ValueError
        If the length of the last axis is not a power of two, or ``out`` does not fit.
    TypeError
        If ``f`` is complex or no array of numbers.
    """
    return _transform(f, out, backend, -1.0, False)


def zeta(f: Array, *, out: Array | None = None, backend: Backend | None = None) -> Array:
    """Return the zeta transform ``sum_{T in S} f(T)`` of every subset S, the inverse of :func:`moebius`."""
    return _transform(f, out, backend, 1.0, False)


def moebius_adjoint(f: Array, *, out: Array | None = None, backend: Backend | None = None) -> Array:
    """Return ``sum_{S contains T} (-1)**(|S| - |T|) f(S)`` of every subset T, the adjoint of :func:`moebius`."""
    return _transform(f, out, backend, -1.0, True)


def zeta_adjoint(f: Array, *, out: Array | None = None, backend: Backend | None = None) -> Array:
    """Return ``sum_{S contains T} f(S)`` of every subset T, the adjoint of :func:`zeta`."""
    return _transform(f, out, backend, 1.0, True)


def _transform(f: Array, out: Array | None, backend: str | None, sign: float, adjoint: bool) -> Array:
    chosen = choose(backend, f)
    values = subset_values(f, "f", chosen)
    target = _empty_like(values) if out is None else _checked_out(out, values, f, chosen)
    if 0 < abs(_address(values) - _address(target)) < values.nbytes:  # they overlap
        values = values + 0
    rows = (-1, values.shape[-1])
    implementation("moebius", "transform", chosen)(values.reshape(rows), target.reshape(rows), sign, adjoint)
    result: Array = like(target, f) if out is None else out
    return result


def subset_values(array: Any, name: str, backend: str) -> Any:
    """Return ``array (..., 2**n)`` as contiguous float32 or float64, a tensor for backend ``gpu``, else numpy."""
    values = to_device(array) if backend == "gpu" else to_numpy(array, name)
    shape, kind = tuple(values.shape), kind_of(values)
    size = shape[-1] if shape else 0
    require(size > 0 and not size & (size - 1), f"{name} must have shape (..., 2**n), got {shape}")
    if kind not in {"float32", "float64"}:
        if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
            raise TypeError(f"{name} must hold real numbers, got {kind}")
        values = converted(values, "float32" if kind in {"float16", "bfloat16"} else "float64")
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values.contiguous()


def _empty_like(values: Any) -> Any:
    if not isinstance(values, np.ndarray):
        return values.new_empty(values.shape)
    if not simd():
        return np.empty_like(values)
    from featdyn_kernels._simd import aligned_empty

    return aligned_empty(values.size, values.dtype).reshape(values.shape)


def _checked_out(out: Any, values: Any, f: Any, backend: str) -> Any:
    """Return ``out`` as the backend's kind of array, sharing its memory."""
    if is_tensor(out) != is_tensor(f):
        raise TypeError(f"out must be the same kind of array as f, got {type(out).__name__}")
    target: Any = to_device(out) if backend == "gpu" else to_numpy(out, "out")
    contiguous = target.is_contiguous() if is_tensor(target) else target.flags.c_contiguous
    require(
        contiguous and target.dtype == values.dtype and tuple(target.shape) == tuple(values.shape),
        f"out must be contiguous, {values.dtype} and {tuple(values.shape)}, got {out.dtype} and {tuple(out.shape)}",
    )
    require(_address(target) == _address(out), f"out must be where backend {backend} computes, not a copy away")
    return target


def _address(array: Any) -> int:
    return int(array.data_ptr() if is_tensor(array) else array.ctypes.data)
