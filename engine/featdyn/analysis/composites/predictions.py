"""Predictions that may lack: of logits that hold NaN no class follows, and such a probe is neither right nor wrong."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.class_labels import class_count
from featdyn.statistics.resampling import Interval
from featdyn.store import Run

NO_PREDICTION = "no_probe_has_a_prediction"
NO_COMMON_PREDICTION = "no_probe_has_both_predictions"
OUTPUTS = 6
"""So many copies of outputs are held while predictions are read off them, at most."""

Mask = NDArray[np.bool_]


def outputs_bytes(run: Run, samples: int) -> int:
    """Return the bytes of one network's outputs of so many samples while predictions are read off them."""
    return OUTPUTS * 4 * samples * prod(run.schema["outputs/logits"].shape[1:])


def dtype_of(run: Run) -> np.dtype[Any]:
    """Return the smallest type that holds every class of a run, and the -1 of no prediction."""
    return np.min_scalar_type(-class_count(run, by_position=True))


def share(hits: Mask, known: Mask) -> NDArray[np.float64]:
    """Return the share of ``hits (..., N)`` among the probes that are known, NaN where none is."""
    number = known.sum(-1)
    return np.asarray(np.where(number > 0, (hits & known).sum(-1) / np.maximum(number, 1), np.nan))


def interval_of(
    interval: Callable[..., Interval], known: Mask, origins: NDArray[np.int64], *values: NDArray[Any]
) -> Interval:
    """Return ``interval(*values, groups=origins)`` of values ``(..., N)``, in each cell of the probes known there.

    NaN where none is.
    """
    if known.all():
        return interval(*values, groups=origins)
    values = tuple(np.broadcast_to(v, known.shape) for v in values)
    found = np.full((3, *known.shape[:-1]), np.nan)
    for cell in np.ndindex(known.shape[:-1]):
        mine = known[cell]
        if mine.any():
            one = interval(*(v[cell][mine] for v in values), groups=origins[mine])
            found[(slice(None), *cell)] = one.estimate, one.low, one.high
    return Interval(*found)
