"""The meaning of the moments: two passes in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._dispatch import to_numpy
from featdyn_kernels.moments.result import Moments


def accumulate(features: Any, outputs: Any, labels: Any, classes: int) -> Moments:
    """See :func:`featdyn_kernels.moments.accumulate`; arguments are checked, ``classes`` is known."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are propagated in silence
        x = to_numpy(features).astype(np.float64)
        mean, x0 = _centre(x)
        found: dict[str, Any] = {"count": len(x), "mean": mean, "scatter": x0.T @ x0}
        f = None
        if outputs is not None:
            f = to_numpy(outputs).astype(np.float64)
            found["output_mean"], f0 = _centre(f)
            found["output_scatter"] = f0.T @ f0
            found["cross_scatter"] = x0.T @ f0
        if labels is not None:
            index = to_numpy(labels)
            found["class_count"] = np.array([(index == c).sum() for c in range(classes)], dtype=np.float64)
            found["class_sum"] = _class_sums(x, index, classes)
            if f is not None:
                found["class_output_sum"] = _class_sums(f, index, classes)
        return Moments(**found)


def _centre(x: Any) -> tuple[Any, Any]:
    mean = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
    return mean, x - mean


def _class_sums(x: Any, index: Any, classes: int) -> Any:
    return np.array([x[index == c].sum(axis=0) for c in range(classes)]).reshape(classes, x.shape[1])
