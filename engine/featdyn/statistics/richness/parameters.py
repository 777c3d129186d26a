"""How large parameters are, and how far from others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def parameter_norm(parameters: Mapping[str, Any]) -> float:
    """Return the length of all parameters, arrays or tensors by name, in float64; Nam et al. take its square."""
    # Exact, as the order of names is not always the same.
    return math.sqrt(math.fsum(float(np.square(_plain(value)).sum()) for value in parameters.values()))


def parameter_distance(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> float:
    """Return the distance between two networks' parameters.

    Raises
    ------
    ValueError
        Names or shapes that differ.
    """
    if parameters.keys() != others.keys():
        names = ", ".join(sorted(parameters.keys() ^ others.keys()))
        raise ValueError(f"parameters must have the same names, these are on one side only: {names}")
    squares = []
    for name, value in parameters.items():
        one, other = _plain(value), _plain(others[name])
        if one.shape != other.shape:
            raise ValueError(f"{name} must have one shape, got {one.shape} and {other.shape}")
        squares.append(float(np.square(one - other).sum()))
    return math.sqrt(math.fsum(squares))


def _plain(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    held = value.detach().cpu().double().numpy() if hasattr(value, "detach") else value
    return np.asarray(held, np.float64)
