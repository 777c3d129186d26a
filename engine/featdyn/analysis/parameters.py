"""How far the parameters of the two halves of a network move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis.dissect import Dissected
from featdyn_kernels.paths import squared_distances

HELD = 2**27  # bytes of one parameter at all checkpoints that are compared at a time


def names(parts: Dissected) -> list[str]:
    """Return the names of all trained parameters; BatchNorm's running statistics are none."""
    return sorted(set().union(*(_names(half) for cut in parts.cuts for half in (cut.prefix, cut.suffix))))


def parameter_distance(parts: Dissected, each: Mapping[str, NDArray[np.float64]]) -> xr.Dataset:
    """Return ``prefix_distance`` and ``suffix_distance``, ``|p(t2) - p(t1)| / |p(t1)|``, each ``(cut, t1, t2)``.

    Of trained parameters, ``each`` as :func:`squared` gives it. NaN where a half has no parameters.
    """
    halves = {
        "prefix_distance": [_names(cut.prefix) for cut in parts.cuts],
        "suffix_distance": [_names(cut.suffix) for cut in parts.cuts],
    }
    values = {}
    for half, of_cuts in halves.items():
        values[half] = (
            ("cut", "t1", "t2"),
            np.stack([_relative([each[n] for n in sorted(mine)], parts) for mine in of_cuts]),
        )
    return xr.Dataset(values)


def _names(part: nn.Module) -> set[str]:
    return {name for name, _ in part.named_parameters()}


def squared(parts: Dissected, name: str) -> NDArray[np.float64]:
    """Return the squared distances ``(T + 1, T + 1)`` of one parameter between checkpoints, and last from zero."""
    values = [state[name].flatten() for state in parts.states]
    total = np.zeros((len(values) + 1, len(values) + 1))
    step = max(1, HELD // (4 * len(total)))
    for start in range(0, len(values[0]), step):
        piece = torch.stack(
            [*(v[start : start + step] for v in values), torch.zeros_like(values[0][start : start + step])]
        )
        total += torch.as_tensor(squared_distances(piece[None])[0]).cpu().numpy()
    return total


def _relative(squared: Iterable[NDArray[np.float64]], parts: Dissected) -> NDArray[np.float64]:
    steps = len(parts.states)
    distance = np.sqrt(sum(squared, np.zeros((steps + 1, steps + 1))))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: NDArray[np.float64] = distance[:steps, :steps] / distance[:steps, steps:]
    return relative
