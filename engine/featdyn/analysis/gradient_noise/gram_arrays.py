"""Gram matrices in results: :class:`featdyn.statistics.Gram` as arrays, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.statistics import Gram

DIMS = {"centred": ("draw", "draw2"), "along_mean": ("draw",)}
STORED = [field.name for field in fields(Gram) if field.name != "n"]
"""All but the number of draws, which the shape of the others tells."""


def gram_of(draws: NDArray[np.float64]) -> Gram:
    """Return the Gram matrix of draws ``(n, p)``; all NaN where they are not finite."""
    if np.isfinite(draws).all():
        return Gram.of(draws)
    n, p = draws.shape
    return Gram(n, p, np.full((n, n), np.nan), np.full(n, np.nan), *[np.nan] * 3)


def to_arrays(prefix: str, gram: Gram) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return a Gram matrix as arrays ``<prefix>_<field>``."""
    return {f"{prefix}_{name}": (DIMS.get(name, ()), getattr(gram, name)) for name in STORED}


def stacked(prefix: str, grams: Sequence[Gram]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return the Gram matrices of several probes, along a dimension ``probe``."""
    each = [to_arrays(prefix, gram) for gram in grams]
    return {name: (("probe", *dims), np.stack([one[name][1] for one in each])) for name, (dims, _) in each[0].items()}


def of(result: xr.Dataset, prefix: str) -> Gram:
    """Return the Gram matrix that a cell of a result holds."""
    cell = {name: result[f"{prefix}_{name}"].values for name in STORED}
    scalars = {name: value.item() for name, value in cell.items() if value.ndim == 0}
    return Gram(**{"n": len(cell["along_mean"]), **cell, **scalars, "p": int(scalars["p"])})
