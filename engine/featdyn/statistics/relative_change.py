"""How far something moved, as a fraction of what it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def relative_change(distance: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return distances over reference lengths, broadcast; NaN where the reference has no length: it has no such share.

    Averages leave those out and say how many they are, so that one zero feature does not make a mean infinite.
    """
    moved, length = np.broadcast_arrays(np.asarray(distance, np.float64), np.asarray(reference, np.float64))
    found = np.full(moved.shape, np.nan)
    with np.errstate(invalid="ignore"):  # infinite both: no such share either
        np.divide(moved, length, out=found, where=length != 0)
    return found
