"""How unequal magnitudes are: 0 where all are equal, 1 where one holds everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def gini(x: ArrayLike) -> Any:
    """Return the Gini index ``(...)`` of magnitudes ``(..., n)`` (Hurley and Rickard 2009), NaN where all are zero.

    ``1 - 2 sum_k |x|_k (n - k + 1/2) / (n |x|_1)``, sorted ascending; at most ``1 - 1/n``.
    """
    size = np.sort(np.abs(np.asarray(x, np.float64)), axis=-1)
    n = size.shape[-1]
    with np.errstate(invalid="ignore"):
        share = size / size.sum(-1, keepdims=True)
    return 1 - 2 * (share * (n - np.arange(1, n + 1) + 0.5)).sum(-1) / n


def hoyer(x: ArrayLike) -> Any:
    """Return ``(sqrt n - |x|_1 / |x|_2) / (sqrt n - 1)`` (Hoyer 2004) over the last axis; NaN of zeros and of n = 1.

    Examples
    --------
    >>> float(hoyer([1.0, 0.0, 0.0, 0.0])), float(hoyer([1.0, 1.0, 1.0, 1.0]))
    (1.0, 0.0)
    """
    size = np.abs(np.asarray(x, np.float64))
    n = size.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        size = size / size.max(-1, keepdims=True)  # squares stay within range
        ratio = size.sum(-1) / np.sqrt(np.square(size).sum(-1))
        return (np.sqrt(n) - ratio) / (np.sqrt(n) - 1)
