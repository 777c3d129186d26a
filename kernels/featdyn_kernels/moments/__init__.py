"""Moments of features, outputs and labels in one pass over the samples, mergeable over blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn_kernels._check import require, require_ndim
from featdyn_kernels._dispatch import choose, implementation, is_tensor, like, to_numpy
from featdyn_kernels._versions import simd
from featdyn_kernels.moments.result import Moments

if TYPE_CHECKING:
    from featdyn_kernels._dispatch import Array, Backend

__all__ = ["Moments", "accumulate"]


def accumulate(
    features: Array,
    outputs: Array | None = None,
    labels: Array | None = None,
    *,
    classes: int | None = None,
    backend: Backend | None = None,
) -> Moments:
    """Return the moments of one block of samples; ``accumulate(a) + accumulate(b)`` are those of both blocks.

    Parameters
    ----------
    features : array, shape (N, F) or (N, F, P)
        float16, bfloat16, float32 or float64; numpy or torch. With a third axis, as maps have whose channels come
        first, every position of a sample is an observation of its own, and neither outputs nor labels go with it.
    outputs : array, shape (N, C), optional
        The same kinds of numbers. Any second set of variables will do, such as the features of another checkpoint.
    labels : integer array, shape (N,), optional
        The class of each sample, from 0.
    classes : int, optional
        Number of classes, at least ``labels.max() + 1``, which is the default. Blocks need not agree on it.

    Returns
    -------
    Moments
        In float64, as the kind of array that ``features`` is, on its device.

    Raises
    ------
    ValueError
        Shapes that do not fit, or labels outside ``range(classes)``.
    TypeError
        Labels that are not integers, or numbers of another kind than those above.

    Notes
    -----
    For input of up to 32 bits, element (i, j) of a scatter matrix is within ``1e-6 * sqrt(s_ii * s_jj)`` of its float64
    value, whatever the means, and sums and means agree to the rounding of float64; for float64 input everything does.
    NaN and infinity are propagated: a column that holds one has NaN in its row and column of every scatter matrix, and
    the other columns are untouched. No sample is ever dropped.
    """
    if features.ndim == 3:
        require(outputs is None and labels is None, "features (N, F, P) go without outputs and labels")
        return _maps(features, choose(backend, features))
    require_ndim(features, "features", 2, "(N, F) or (N, F, P)")
    n = features.shape[0]
    if outputs is not None:
        require_ndim(outputs, "outputs", 2, "(N, C)")
        require(outputs.shape[0] == n, f"outputs must have {n} rows like features, got shape {tuple(outputs.shape)}")
    found = 0
    if labels is not None:
        found = _check_labels(labels, n, classes)
    elif classes is not None:
        raise ValueError("classes needs labels")
    chosen = choose(backend, features, outputs, labels)
    return _like(implementation("moments", "accumulate", chosen)(features, outputs, labels, found), features)


def _maps(features: Array, backend: Any) -> Moments:
    """Return the moments of maps; as rows, unless the CPU takes them as they are."""
    if backend == "cpu" and simd():
        from featdyn_kernels.moments import maps  # only now: it loads Numba

        result = maps.accumulate(features)
        if result is not None:
            return _like(result, features)
    n, width, positions = features.shape
    return accumulate(features.swapaxes(1, 2).reshape(n * positions, width), backend=backend)


def _like(result: Moments, features: Array) -> Moments:
    """Return moments as the kind of array that the features are."""
    return Moments(**{k: v if k == "count" else like(v, features) for k, v in vars(result).items() if v is not None})


def _check_labels(labels: Any, n: int, classes: int | None) -> int:
    """Return the number of classes."""
    require_ndim(labels, "labels", 1, "(N,)")
    require(labels.shape[0] == n, f"labels must have {n} elements like features, got shape {tuple(labels.shape)}")
    integer = not labels.is_floating_point() if is_tensor(labels) else np.issubdtype(labels.dtype, np.integer)
    if not integer:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if n == 0:
        return classes or 0
    smallest, largest = (int(f(to_numpy(labels))) for f in (np.min, np.max))
    require(smallest >= 0, f"labels must not be negative, got {smallest}")
    if classes is None:
        return largest + 1
    require(largest < classes, f"labels must be below classes={classes}, got {largest}")
    return classes
