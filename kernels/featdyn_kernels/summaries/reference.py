"""What the operations mean, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._dispatch import to_numpy


def rounded(values: Any, out: Any) -> np.ndarray[Any, Any]:
    """See :func:`featdyn_kernels.summaries.rounded`; rows are (N, F)."""
    x = to_numpy(values)
    with np.errstate(over="ignore", invalid="ignore"):
        to_numpy(out)[...] = x
    found = np.abs(x.astype(np.float64))
    found[np.isinf(found)] = 0.0
    largest: np.ndarray[Any, Any] = found.max(axis=1, initial=0.0)
    return largest


def summarise(stored: Any, before: Any, slots: Any, width: int) -> tuple[np.ndarray[Any, Any] | None, ...]:
    """See :func:`featdyn_kernels.summaries.summarise`; rows are (N, F)."""
    x = to_numpy(stored).astype(np.float64)
    product = before_squares = sketch = None
    with np.errstate(over="ignore", invalid="ignore"):
        if before is not None:
            y = to_numpy(before).astype(np.float64)
            product, before_squares = (x * y).sum(1), (y * y).sum(1)
        if slots is not None:
            sketch = np.zeros((len(x), width))
            np.add.at(sketch.T, slots % max(1, width), (x * np.where(slots < width, 1.0, -1.0)).T)
        return x.sum(1), (x * x).sum(1), (x != 0).sum(1).astype(np.float64), product, before_squares, sketch
