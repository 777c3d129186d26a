"""The units in which pairwise sums are taken, for bandwidths or for plain distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._tiles.points import SPREAD

Array = np.ndarray[Any, Any]


def scaling(bandwidths: Array | None, extent: float) -> tuple[float, float, Array, float]:
    """Return the scale of coordinates, their largest spread in float32, the factors, and the unit of the sums.

    With bandwidths the sum over pairs is that of ``sum_f 2**(-f s)``, s the squared scaled distance; without, of the
    root of s times the unit. ``extent`` is some length among the points: it keeps squares of distances within float32.
    """
    if bandwidths is None:
        unit = extent or 1.0
        return 1.0 / unit, np.inf, np.empty(0), unit
    widest = float(bandwidths.max())
    scale = np.sqrt(0.5 / np.log(2.0)) / widest
    return scale, SPREAD * float(bandwidths.min()) / widest, (widest / bandwidths) ** 2, 1.0
