"""The empirical neural tangent kernel of a small set of inputs, and how far it has turned.

Jacot, Gabriel and Hongler 2018: ``K(x, x') = J(x) J(x')^T``, J the gradients of the outputs by all parameters. Apart
from the rest, as it needs a network: of m inputs and C outputs, m C gradients of all P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import jacrev, vmap

from featdyn.functional import functional_call
from featdyn.statistics.richness.low_rank import ROUNDING, Values

BLOCK = 2**28
"""Bytes of gradients that are held at once."""
ENTRY = 16
"""And so many for each: as it comes, beside others, and in float64."""
_Slice: TypeAlias = tuple[str, int, int]  # of a parameter's numbers


def empirical_ntk(
    network: nn.Module,
    inputs: Tensor,
    directions: Tensor | None = None,
    *,
    state: Mapping[str, Tensor] | None = None,
) -> Values:
    """Return the tangent kernel of m inputs under a network in the mode it is in, float64.

    That of all C outputs, ``J J^T (m C, m C)``, or with K ``directions (K, C)`` the mean over them of the kernels
    ``(m, m)`` of the outputs along each: of the unit vectors, the mean over outputs of each one's own kernel. ``state``
    are other parameters and buffers for the network, as of a checkpoint. Gradients are by all parameters that are
    trained, in their type; they are never whole in memory. The network is left as it was. BatchNorm must be in
    evaluation mode, where a sample's output is its own.
    """
    given, parameters = state or {}, dict(network.named_parameters())
    held = {name: given.get(name, own).detach() for name, own in (*parameters.items(), *network.named_buffers())}
    trained = {name: held[name] for name, p in parameters.items() if p.requires_grad}

    def outputs(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(network, tensors, (x[None],))[0]
        return found.flatten()

    with torch.no_grad():
        example = outputs(held, inputs[0])
    ways = torch.eye(len(example)).to(example) if directions is None else directions.to(example)
    size = max(1, len(inputs) * sum(p.numel() for p in trained.values()))
    together = len(ways) if directions is None else min(len(ways), max(1, BLOCK // (ENTRY * size)))
    side = len(inputs) * (together if directions is None else 1)
    kernel = torch.zeros(side, side, dtype=torch.float64, device=example.device)
    for first in range(0, len(ways), together):
        along = partial(_along, outputs, ways[first : first + together])
        for piece in _pieces(trained, len(inputs) * together):
            rows = _gradients(along, held, piece, inputs, together)
            rows = rows.flatten(0, 1) if directions is None else rows.flatten(1)
            kernel += rows @ rows.T
            del rows
    return np.asarray((kernel if directions is None else kernel / len(ways)).cpu().numpy())


def ntk_deviation(first: ArrayLike, kernel: ArrayLike) -> float:
    """Return ``1 - <K0, Kt> / (|K0| |Kt|)`` of two kernels of the same inputs; NaN where one is zero.

    Whether the source centres them is not known to us: they are taken as they are.
    """
    a, b = (np.asarray(k, np.float64) for k in (first, kernel))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"kernels must have one shape (m, m), got {a.shape} and {b.shape}")
    return 1 - _cosine(a, b)


def label_alignment(kernel: ArrayLike, targets: ArrayLike) -> float:
    """Return the centred alignment of a kernel ``(m, m)`` with that of targets ``(m, C)``, 0 to 1.

    ``<H K H, Y Y^T> / (|H K H| |H Y Y^T H|)`` (Cortes, Mohri and Rostamizadeh 2012). NaN where either does not vary.
    """
    k, y = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or y.ndim != 2 or len(y) != len(k):
        raise ValueError(f"a kernel (m, m) and targets (m, C) are needed, got {k.shape} and {y.shape}")
    y = y - y.mean(0)
    centred = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    if np.abs(centred).max(initial=0) <= ROUNDING * np.abs(k).max(initial=0):
        return float("nan")
    return _cosine(centred, y @ y.T)


def _cosine(a: Values, b: Values) -> float:
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return min(float((a * b).sum()) / size, 1.0) if size > 0 else float("nan")


def _along(outputs: Callable[..., Tensor], ways: Tensor, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    return ways @ outputs(tensors, x)


def _gradients(
    read: Callable[..., Tensor], state: dict[str, Tensor], some: list[_Slice], inputs: Tensor, outputs: int
) -> Tensor:
    """Return the gradients of outputs by parts of parameters, float64 ``(m, outputs, numbers)``."""

    def asked(mine: list[Tensor], x: Tensor) -> Tensor:
        return read(state | {name: _put(state[name], start, part) for (name, start, _), part in named(mine)}, x)

    named = partial(zip, some, strict=True)
    parts = [state[name].flatten()[start:stop] for name, start, stop in some]
    whole = 4 * outputs * max(state[name].numel() for name, _, _ in some)  # of a part, autograd makes that of the whole
    few, at_once = max(1, BLOCK // whole), max(1, outputs * BLOCK // whole)
    try:
        found: Any = vmap(jacrev(asked, chunk_size=at_once), (None, 0), chunk_size=few)(parts, inputs)
    except RuntimeError:  # an operation that is not defined for many samples at once, or asks for a tensor's value
        each: Any = [jacrev(asked, chunk_size=1)(parts, x) for x in inputs]
        found = [torch.stack(mine) for mine in zip(*each, strict=True)]
    return torch.cat(list(found), 2).double()


def _put(whole: Tensor, start: int, part: Tensor) -> Tensor:
    """Return a parameter with some of its numbers, in order, replaced."""
    flat = whole.flatten()
    return torch.cat([flat[:start], part, flat[start + len(part) :]]).view(whole.shape)


def _pieces(trained: dict[str, Tensor], rows: int) -> Iterator[list[_Slice]]:
    """Cut parameters into pieces whose gradients, of so many outputs of inputs, take up to :data:`BLOCK` bytes."""
    most = max(1, BLOCK // (ENTRY * rows))
    piece, room = list[_Slice](), most
    for name, p in trained.items():
        start = 0
        while start < p.numel():
            stop = min(p.numel(), start + room)
            piece.append((name, start, stop))
            room, start = room - (stop - start), stop
            if not room:
                yield piece
                piece, room = [], most
    if piece:
        yield piece
