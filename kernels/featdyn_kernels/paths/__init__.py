"""Paths: how far each sample's features are apart between all pairs of times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require_ndim
from featdyn_kernels._dispatch import choose, implementation, is_tensor, kind_of, like, to_device, to_numpy

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

__all__ = ["squared_distances"]


def squared_distances(paths: Array, *, backend: Backend | None = None) -> Array:
    """Return the squared Euclidean distances between all points of each path.

    Differences are taken before they are squared, so points that lie close together far from the origin lose nothing
    to cancellation, which the form ``|x|^2 + |y|^2 - 2xy`` does.

    Parameters
    ----------
    paths : array, shape (N, T, F)
        N paths of T points in F dimensions; float16, bfloat16, float32 or float64, numpy or torch.

    Returns
    -------
    array, shape (N, T, T)
        float64, the kind of array that ``paths`` is, on its device; symmetric, zero on the diagonal.

    Raises
    ------
    ValueError
        ``paths`` does not have three axes.
    TypeError
        Numbers of another kind than those above.

    Notes
    -----
    For input of up to 32 bits within ``4e-6`` of the float64 value, relatively: differences and short sums of squares
    are float32, longer sums float64. Differences beyond 1e19 become infinite and those below 1e-19 vanish, as float32
    has it. NaN and infinity stay with the pairs that they are in; a point that holds one is at NaN from itself.
    """
    require_ndim(paths, "paths", 3, "(N, T, F)")
    chosen = choose(backend, paths)
    values = _floating(to_device(paths) if chosen == "gpu" else to_numpy(paths, "paths"))
    found: Array = like(implementation("paths", "squared_distances", chosen)(values), paths)
    return found


def _floating(values: Any) -> Any:
    """Return contiguous float32 or float64."""
    kind = kind_of(values)
    if kind not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"paths must be float16, bfloat16, float32 or float64, got {kind}")
    if is_tensor(values):
        return (values if kind == "float64" else values.float()).contiguous()
    return np.ascontiguousarray(values, np.float64 if kind == "float64" else np.float32)
