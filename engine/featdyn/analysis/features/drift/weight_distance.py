"""How far the trained parameters of the two halves of a network move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import NOT_FINITE, Status
from featdyn.networks import Cut, is_skeleton
from featdyn_kernels.paths import squared_distances

DIMS, HALVES = ("cut", "t1", "t2"), ("prefix", "suffix")
NO_PARAMETERS, WEIGHTS_ARE_ZERO = "no_parameters", "weights_are_zero"
NO_HALVES = "the_network_is_not_taken_apart"
SQUARED = 40  # exponents up to which squares of differences, down to their last bit, fit float32
HELD = 2**27  # bytes of parameters at all checkpoints that are compared at a time, if it is more than one of them


def groups(parts: Stitchable) -> list[list[str]]:
    """Return the names of all trained parameters, in groups that are compared together."""
    sizes, found = parts.states.sizes, [list[str]()]
    for name in sorted(set().union(*(_names(parts, cut, half) for cut in parts.cuts for half in HALVES))):
        if found[-1] and sum(sizes[n] for n in (*found[-1], name)) * len(parts.states) > HELD:
            found.append([])
        found[-1].append(name)
    return [names for names in found if names]


def task_bytes(parts: Stitchable) -> int:
    """Return the bytes of one group at all checkpoints, and of what is compared at a time, at most.

    Of networks larger than memory no more is read than what is compared.
    """
    steps, sizes = len(parts.states), list(parts.states.sizes.values())
    largest = max(sizes, default=0)
    if is_skeleton(parts.model):  # rows, what they are stacked into, and a part while it is read
        return 3 * min(HELD, (steps + 1) * largest)
    return min(steps * sum(sizes), max(HELD, steps * largest)) + min(HELD, steps * largest)


def weight_distance(parts: Stitchable, each: Mapping[str, NDArray[np.float64]]) -> xr.Dataset:
    """Return ``prefix_distance`` and ``suffix_distance`` of parameters, from what :func:`squared` gives of ``each``."""
    result: dict[str, Any] = {}
    for half in HALVES:
        names = [sorted(_names(parts, cut, half)) for cut in parts.cuts]
        values = np.stack([_relative([each[n] for n in mine], len(parts.states)) for mine in names])
        status = Status(DIMS, values.shape).mark(NO_HALVES, np.full(values.shape, not parts.halves))
        status.mark(NO_PARAMETERS, [not mine for mine in names])
        lost = np.isnan(np.einsum("cii->ci", values))  # at either of the two
        status.mark(NOT_FINITE, lost[:, :, None] | lost[:, None]).mark(WEIGHTS_ARE_ZERO, ~np.isfinite(values))
        result[f"{half}_distance"] = DIMS, np.where(status.computed, values, np.nan)
        result[f"{half}_status"] = status.variable()
    return xr.Dataset(result)


def _names(parts: Stitchable, cut: Cut, half: str) -> set[str]:
    return {name for name, _ in getattr(cut, half).named_parameters()} if parts.halves else set()


def squared(parts: Stitchable, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return the squared distances ``(T + 1, T + 1)`` of some parameters between checkpoints, and last from zero.

    Every state is read once.
    """
    steps, found = range(len(parts.states)), dict[str, NDArray[np.float64]]()
    if is_skeleton(parts.model):
        for name in names:
            every = [partial(parts.states.part, t, name) for t in steps]
            found[name] = _squared(every, parts.model.get_parameter(name).numel())
        return found
    states = [{name: state[name].flatten() for name in names} for state in parts.states]
    for name in names:
        found[name] = _squared([partial(_rows, state[name]) for state in states], len(states[0][name]))
    return found


def _rows(values: Tensor, first: int, stop: int) -> Tensor:
    return values[first:stop]


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def beyond_squares(values: Tensor) -> bool:
    """Whether squares of the largest entries along the last axis leave the range of float32, or come near its ends."""
    peak = torch.linalg.vector_norm(values, torch.inf, dim=-1)
    exponent = torch.frexp(peak[peak.isfinite() & (peak > 0)]).exponent
    return bool((exponent.abs() > SQUARED).any())


def _squared(values: Sequence[Callable[[int, int], Tensor]], size: int) -> NDArray[np.float64]:
    """Return the squared distances of tensors of so many values, each known by what gives some of them in a row."""
    total = np.zeros((len(values) + 1, len(values) + 1))
    step = max(1, HELD // (4 * len(total)))
    for start in range(0, size, step):
        rows = [_real(part(start, start + step)).flatten() for part in values]
        piece = torch.stack([*rows, torch.zeros_like(rows[0])])
        piece = piece.double() if beyond_squares(piece) else piece
        total += torch.as_tensor(squared_distances(piece[None])[0]).cpu().numpy()
    return total


def _relative(squared: Iterable[NDArray[np.float64]], steps: int) -> NDArray[np.float64]:
    """Return distances over norms; at t1 = t2 they are 0, whatever the norm."""
    distance = np.sqrt(sum(squared, np.zeros((steps + 1, steps + 1))))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: NDArray[np.float64] = distance[:steps, :steps] / distance[:steps, steps:]
    own = np.arange(steps)
    relative[own, own] = np.where(np.isfinite(distance[:steps, steps]), 0.0, np.nan)
    return relative
