"""Input checks: one line that names the argument and its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def matrix(x: Any, name: str, *, rows: int, columns: int, shape: str = "(n, p)") -> NDArray[Any]:
    """Return ``x`` as a real matrix of at least that many rows and columns; values are not looked at."""
    array = np.asarray(x)
    if array.ndim != 2 or array.shape[0] < rows or array.shape[1] < columns:
        wanted = f"{shape} with at least {rows} rows and {columns} column{'s' if columns > 1 else ''}"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array


def finite(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return ``array``, all of whose values are finite."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name} {array.shape} must be finite, it holds NaN or infinity")
    return array


def fraction(value: float, name: str) -> float:
    """Return ``value``, which lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return value


def choice(value: Any, name: str, *allowed: str) -> None:
    """Raise ValueError unless ``value`` is one of these words: another must not pass for the last of them."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def gram(array: NDArray[Any], size: int) -> None:
    """Raise ValueError unless these are finite inner products ``(size, size)`` of more than one sample."""
    if size < 2 or array.shape != (size, size) or not np.isfinite(array).all():
        raise ValueError(f"gram must be a finite matrix of {size} > 1 samples, got shape {array.shape}")


def groups(found: Any, size: int) -> NDArray[np.intp]:
    """Return the number of each of ``size`` samples' group, 0 upwards; each is its own where there are none."""
    if found is None:
        return np.arange(size)
    array = np.asarray(found)
    if array.shape != (size,):
        raise ValueError(f"groups must have shape ({size},), got {array.shape}")
    return np.unique(array, return_inverse=True)[1]


def exponent(array: NDArray[Any]) -> int:
    """Return the e for which the largest magnitude of ``array`` lies in [2^(e-1), 2^e); 0 where all is zero."""
    return int(np.frexp(np.abs(array).max(initial=0))[1])
