"""Positions of tokens: which of them are padding, so that it takes no part in any number.

Of a run whose probes have a mask, features with positions are seen in two ways (our own choice). How far the features
of one probe move is asked over its positions that are no padding: the others are 0 at every checkpoint. What compares
probes with each other (similarity, densities, linear probes, isotropy) takes of each the mean over its own positions,
as probes have different numbers of them. Spectra take each position for an observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featdyn.store import ArraySpec, Run

if TYPE_CHECKING:
    from featdyn.networks import Cut

MASK = "inputs/mask"
SEEN = "of each probe those that are no padding: motion over all of them, else their mean"


def mask_of(run: Run) -> NDArray[np.bool_] | None:
    """Return which positions are no padding, ``(probe, position)``; None where the run has no mask."""
    return run.values(MASK).astype(bool) if MASK in run.nodes else None


def has_positions(spec: ArraySpec) -> bool:
    """Whether a recorded array is ``(sample, position, ...)``."""
    return spec.dims[:2] == ("sample", "position")


def padding_of(run: Run, spec: ArraySpec) -> NDArray[np.bool_] | None:
    """Return the mask of a recorded array, ``(probe, position)``; None where it has no padding."""
    if has_positions(spec) and "mask" in spec.attrs:
        return run.values(f"inputs/{spec.attrs['mask']}").astype(bool)
    return mask_of(run) if has_positions(spec) else None


def padded_cuts(run: Run, cuts: Sequence[Cut], sources: Mapping[str, str]) -> dict[str, NDArray[np.bool_]]:
    """Return the masks ``(probe, position)`` of those cuts that have positions: their own, or the run's.

    Raises ValueError for one of which it is not known, as its features have several axes that are not those.
    """
    held, found = {spec.path: spec for spec in run.schema.arrays}, dict[str, NDArray[np.bool_]]()
    for cut in cuts:
        spec = held.get(f"layers/{cut.name}/activation")
        mask = mask_of(run) if spec is None or "mask" not in spec.attrs else padding_of(run, spec)
        if mask is None:
            continue
        if spec is not None and sources[cut.name] == "stored":
            if has_positions(spec):
                found[cut.name] = mask
        elif len(cut.shape) == 2 and cut.shape[0] == mask.shape[1]:
            found[cut.name] = mask
        elif len(cut.shape) > 1:
            raise ValueError(f"its features at {cut.name} {cut.shape} do not have the positions of the mask")
    return found


def mean_of_real(values: NDArray[Any], real: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of ``values (n, position, ...)`` over the positions that are ``real (n, position)``."""
    mine = real.reshape(*real.shape, *(1,) * (values.ndim - 2))
    return np.asarray(np.where(mine, values, 0).sum(1, dtype=np.float64) / mine.sum(1))
