"""Layers of all checkpoints, their weights laid out for one launch.

What they take and return is stacked as :mod:`featdyn_kernels.stitch.gpu.values` says; a group is the slice of
checkpoints that are computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featdyn_kernels.stitch.fold import fold
from featdyn_kernels.stitch.gpu.convolution import convolution
from featdyn_kernels.stitch.gpu.scores import heads
from featdyn_kernels.stitch.gpu.values import Padded
from featdyn_kernels.stitch.plan import Affine


class Layer(ABC):
    """One fused step of all checkpoints."""

    kind = ""

    def __init__(self, step: Affine, modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device) -> None:
        self.layers: list[Any] = [module.get_submodule(step.layer) for module in modules]
        norms = [module.get_submodule(step.norm) if step.norm else None for module in modules]
        folded = [[torch.from_numpy(part) for part in fold(*pair)] for pair in zip(self.layers, norms, strict=True)]
        weights, biases = zip(*folded, strict=True)
        self.weight = self._lay_out(torch.stack([weight.to(device, dtype) for weight in weights])).contiguous()
        self.bias = torch.stack(biases).to(device, torch.float32)
        self.relu = step.relu

    def _lay_out(self, weight: Tensor) -> Tensor:
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        return self.weight.nbytes + self.bias.nbytes

    @abstractmethod
    def __call__(self, x: Tensor, residual: Tensor | Padded | None, group: slice) -> Tensor:
        """Return the step's value; the residual has its shape but for checkpoints."""

    @abstractmethod
    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the result, but for checkpoints, or raise ValueError where the layer does not take x."""


class Convolution(Layer):
    """A convolution by our kernel."""

    def __init__(self, step: Affine, modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(step, modules, dtype, device)
        layer = self.layers[0]
        self.stride, self.padding = list(layer.stride), list(layer.padding)
        self.taps, (self.inputs, self.outputs) = self.weight.shape[1:3], self.weight.shape[3:]
        self.kind = f"{self.taps[0]}x{self.taps[1]} implicit product"

    def _lay_out(self, weight: Tensor) -> Tensor:
        return weight.permute(0, 3, 4, 2, 1)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Return (N, outputs, out_height, out_width)."""
        if x.ndim != 5 or x.shape[2] != self.inputs:
            raise ValueError(f"a convolution takes (N, {self.inputs}, height, width), got {tuple(x.shape[1:])}")
        steps = zip(x.shape[3:], self.taps, self.stride, self.padding, strict=True)
        return (x.shape[1], self.outputs, *((n + 2 * p - taps) // stride + 1 for n, taps, stride, p in steps))

    def __call__(self, x: Tensor, residual: Tensor | Padded | None, group: slice) -> Tensor:
        """Return (T, N, outputs, out_height, out_width)."""
        images, before, _ = residual if isinstance(residual, Padded) else (residual, 0, 0)
        weights = self.weight[group], self.bias[group]
        y: Tensor = convolution(x, *weights, images, before, self.stride, self.padding, self.relu)
        return y


class Linear(Layer):
    """A linear layer by the same kernel: a convolution of images of one pixel."""

    kind = "linear"

    def _lay_out(self, weight: Tensor) -> Tensor:
        return weight.mT[:, None, None]

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Return (N, ..., outputs)."""
        if x.shape[-1] != self.weight.shape[-2]:
            raise ValueError(f"a linear layer takes (..., {self.weight.shape[-2]}), got {tuple(x.shape[1:])}")
        return (*x.shape[1:-1], self.weight.shape[-1])

    def __call__(self, x: Tensor, residual: Tensor | Padded | None, group: slice) -> Tensor:
        """Return (T, N, ..., outputs)."""
        if isinstance(residual, Padded):
            residual = residual.laid_out()
        pixels = None if residual is None else _pixels(residual)
        y: Tensor = convolution(_pixels(x), self.weight[group], self.bias[group], pixels, 0, [1, 1], [0, 0], self.relu)
        return y.reshape(len(y), *self.shape(x))


class Heads:
    """The linear layers at the end of all suffixes, with the mean over pixels before and the scores after them."""

    def __init__(self, layer: Layer, pooled: bool) -> None:
        self.kind = "pooled head with scores" if pooled else "head with scores"
        self._pooled, self._bias = pooled, layer.bias
        self._weight = layer.weight[:, 0, 0]
        self.inputs, self.classes = self._weight.shape[1:]
        self.nbytes = layer.nbytes

    def __call__(self, x: Any, labels: Tensor | None, own: Tensor | None, group: slice) -> tuple[Tensor, Tensor]:
        """Return predictions and figures of features (T or 1, N, inputs) or, pooled, (..., inputs, height, width)."""
        if not isinstance(x, Tensor) or x.ndim != (5 if self._pooled else 3) or x.shape[2] != self.inputs:
            size = ", height, width" if self._pooled else ""
            got = type(x).__name__ if x is None else tuple(x.shape[1:])
            raise ValueError(f"the head takes (N, {self.inputs}{size}), got {got}")
        means = x.flatten(3) if self._pooled else x[..., None]
        found: tuple[Tensor, Tensor] = heads(means, self._weight[group], self._bias[group], labels, own)
        return found


def prepare(
    step: Affine, modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device
) -> Convolution | Linear | None:
    """Lay out one step, or return None if torch has to run it: a grouped, dilated or otherwise padded convolution."""
    layer: Any = modules[0].get_submodule(step.layer)
    if isinstance(layer, nn.Linear):
        return Linear(step, modules, dtype, device)
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return Convolution(step, modules, dtype, device) if plain and isinstance(layer.padding, tuple) else None


def _pixels(x: Tensor) -> Tensor:
    """Return rows (T, N, ..., C) as images of one pixel."""
    return x.reshape(len(x), -1, x.shape[-1])[..., None, None]
