"""The empirical neural tangent kernel of a small set of inputs, and how far it has turned.

Apart from the rest, as it needs a network: of m inputs and C outputs, m C gradients of all P parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.func import functional_call, jacrev, vmap

from featdyn.statistics.richness.low_rank import Values

BLOCK = 2**28
"""Bytes of gradients that are held at once."""


def empirical_ntk(network: nn.Module, inputs: torch.Tensor) -> Values:
    """Return the kernel ``J J^T``, ``(m C, m C)``, of the outputs (m, C) of a network in the mode it is in.

    ``J`` is ``(m C, P)``, over all parameters that are trained; it is never whole in memory. The network is left as it
    was. BatchNorm must be in evaluation mode, where a sample's output is its own.
    """
    trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    fixed |= {name: buffer.detach() for name, buffer in network.named_buffers()}

    def outputs(mine: dict[str, torch.Tensor], rest: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(network, {**rest, **mine}, (x[None],))
        return found[0].flatten()

    kernel: Any = 0.0
    for some in _pieces(trained, len(inputs)):
        rest = fixed | {name: p for name, p in trained.items() if name not in some}
        jacobian = vmap(jacrev(outputs), (None, None, 0))(some, rest, inputs)
        rows = torch.cat([j.flatten(2) for j in jacobian.values()], 2).flatten(0, 1).double()
        kernel = kernel + rows @ rows.T
    return np.asarray(kernel.cpu().numpy())


def ntk_deviation(first: ArrayLike, kernel: ArrayLike) -> float:
    """Return ``1 - <K0, Kt> / (|K0| |Kt|)`` of two kernels of the same inputs; NaN where one is zero.

    Whether the source centres them is not known to us: they are taken as they are.
    """
    a, b = (np.asarray(k, np.float64) for k in (first, kernel))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"kernels must have one shape (m, m), got {a.shape} and {b.shape}")
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return 1 - float((a * b).sum()) / size if size > 0 else float("nan")


def _pieces(trained: dict[str, torch.Tensor], inputs: int) -> list[dict[str, torch.Tensor]]:
    """Cut parameters into pieces whose gradients of one output of all inputs take up to :data:`BLOCK` bytes."""
    pieces: list[dict[str, torch.Tensor]] = [{}]
    held = 0
    for name, p in trained.items():
        size = 8 * inputs * p.numel()
        if pieces[-1] and held + size > BLOCK:
            pieces.append({})
            held = 0
        pieces[-1][name] = p
        held += size
    return pieces
