"""What the operation means, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np


def squared_distances(paths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """See :func:`featdyn_kernels.paths.squared_distances`."""
    x = paths.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack([((x - x[:, t, None]) ** 2).sum(-1) for t in range(x.shape[1])], axis=1, dtype=np.float64)
