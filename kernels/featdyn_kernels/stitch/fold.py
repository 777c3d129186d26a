"""A layer and the BatchNorm behind it as one weight and one bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def fold(layer: nn.Module, norm: nn.Module | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight and bias of a convolution or linear layer followed by BatchNorm in eval mode, in float64.

    With ``s = gamma / sqrt(variance + eps)`` per output: weight times ``s``, and ``(bias - mean) s + beta``.
    """
    weight = _double(layer.weight)
    bias = _double(layer.bias) if layer.bias is not None else torch.zeros(len(weight), dtype=torch.float64)
    if norm is not None:
        scale = 1 / torch.sqrt(_double(norm.running_var) + float(norm.eps))  # type: ignore[arg-type]
        bias = bias - _double(norm.running_mean)
        if norm.weight is not None:
            scale = scale * _double(norm.weight)
        bias = bias * scale
        if norm.bias is not None:
            bias = bias + _double(norm.bias)
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight.numpy(), bias.numpy()


def _double(tensor: Any) -> Tensor:
    found: Tensor = tensor.detach().to("cpu", torch.float64)
    return found
