"""Networks trained in, or near, the lazy regime: f_alpha = alpha (f - f_0), where features barely move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featdyn.errors import NetworkError


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return ``factor * x``."""
        return self.factor * x


@torch.no_grad()
def lazy(network: nn.Sequential, alpha: float) -> nn.Sequential:
    """Scale a network's output by `alpha` (the larger, the lazier), after making it zero at initialisation.

    The scaled model of Chizat, Oyallon and Bach, "On lazy training in differentiable programming" (2019), is ``alpha (f
    - f_0)``. Here ``f_0`` is zero by an antisymmetric initialisation, so that no copy of the first network has to be
    carried along and the network can be cut like any other; this way of doing it is our own choice. Units are drawn in
    two equal halves, which do not see each other at first, and the last layer takes their difference. The network,
    linear and convolution layers in a row, is changed and returned. Raises :class:`NetworkError` for a hidden layer of
    odd width.
    """
    first, *inner, last = (m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    for layer in (first, *inner):
        half, odd = divmod(len(layer.weight), 2)
        if odd:
            raise NetworkError(f"alpha needs even widths, not {len(layer.weight)}: units come in two equal halves")
        if layer is not first:
            inputs = layer.weight.shape[1] // 2
            layer.weight[:half, inputs:] = 0
            layer.weight[:half] *= 2**0.5  # half of the inputs are gone: the output's variance stays
            layer.weight[half:, inputs:] = layer.weight[:half, :inputs]
            layer.weight[half:, :inputs] = 0
        else:
            layer.weight[half:] = layer.weight[:half]
        if layer.bias is not None:
            layer.bias[half:] = layer.bias[:half]
    half = last.weight.shape[1] // 2
    last.weight[:, half:] = -last.weight[:, :half]
    if last.bias is not None:
        last.bias.zero_()
    network.add_module("scale", Scale(alpha))
    return network
