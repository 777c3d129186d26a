"""What kde and pairwise accept as points: real, finite, in the kind of array that a backend reads."""

from __future__ import annotations

import math
from typing import Any

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import converted, kind_of, namespace, to_device, to_numpy

# Coordinates of samples, in units of the kernel 2**(-|a - b|^2), beyond which float32 rounding shows: 1e-5 * |a - b|.
SPREAD = 128.0
FAR = 1e15  # coordinates whose squares float32 can still sum


def real(array: Any, name: str, backend: str, ndim: int, meaning: str) -> Any:
    """Return ``array`` as finite float32 or float64, a numpy array or (backend ``gpu``) a tensor.

    float16 and bfloat16 become float32, integers and booleans float64.
    """
    found = to_device(array) if backend == "gpu" else to_numpy(array, name)
    require_ndim(found, name, ndim, meaning)
    kind = kind_of(found)
    if "complex" in kind:
        raise TypeError(f"{name} must be real, got {kind}")
    if kind not in {"float32", "float64"}:
        found = converted(found, "float32" if kind in {"float16", "bfloat16"} else "float64")
    finite = bool(namespace(found).isfinite(found).all())
    require(finite, f"{name} {tuple(found.shape)} must be finite: it holds NaN or infinite values")
    return found


def pair(x: Any, y: Any, names: tuple[str, str], backend: str) -> tuple[Any, Any]:
    """Return two sets of points ``(M, d)`` and ``(N, d)``; the second must not be empty."""
    x, y = real(x, names[0], backend, 2, "(M, d)"), real(y, names[1], backend, 2, "(N, d)")
    require(
        x.shape[1] == y.shape[1] > 0,
        f"{names[0]} and {names[1]} must share their last axis d >= 1, got {tuple(x.shape)} and {tuple(y.shape)}",
    )
    require(len(y) > 0, f"{names[1]} must hold at least one point, got {tuple(y.shape)}")
    return x, y


def unit_of(*arrays: Any) -> float:
    """Return a power of two to divide coordinates by, lest their squares leave the dtype: 1.0 for almost all points."""
    largest = max(max(float(a.max()), -float(a.min())) if len(a) else 0.0 for a in arrays)
    exponent = math.frexp(largest)[1]
    within = 40 if single_precision(*arrays) else 300
    return 1.0 if largest == 0.0 or abs(exponent) < within else math.ldexp(1.0, min(exponent, 1023))


def single_precision(*arrays: Any) -> bool:
    """Whether all arrays are float32."""
    return all(kind_of(a) == "float32" for a in arrays)
