"""Layers of one checkpoint, their weights laid out for the kernel that suits them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featdyn_kernels.stitch import direct, winograd
from featdyn_kernels.stitch.fold import fold
from featdyn_kernels.stitch.plan import Affine
from featdyn_kernels.stitch.simd import LANES
from featdyn_kernels.stitch.workspace import Workspace

WINOGRAD_LIMIT = 256 * 256
"""With more inputs times outputs the direct sum is taken: transformed weights are four times as large. AMD EPYC (Zen 5):
Winograd is 2.5 times as fast as the direct sum at 64 x 64 and 1.8 times at 256 x 256."""


class Layer(ABC):
    """One fused step of one checkpoint."""

    kind = ""

    def __init__(self, step: Affine, module: nn.Module) -> None:
        self.layer: Any = module.get_submodule(step.layer)
        self.norm = module.get_submodule(step.norm) if step.norm else None
        self.relu = step.relu
        self.floor = np.float32(0 if step.relu else -np.inf)

    def _lay_out(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> None:
        self.weight = torch.from_numpy(weight).float().clone()  # numpy aligns to 16 bytes, torch to a cache line
        self.bias = torch.from_numpy(bias).float().clone()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        return self.weight.nbytes + self.bias.nbytes

    @abstractmethod
    def __call__(self, x: Tensor, residual: Tensor | None, work: Workspace, slot: int) -> Tensor:
        """Return the step's value, which may lie in buffer ``slot``."""

    def _finish(self, y: Tensor, residual: Tensor | None) -> Tensor:
        """Add and clip by torch what the kernel could not."""
        if residual is not None:
            y = y + residual
        return F.relu(y) if self.relu else y


class Plain(Layer):
    """A layer that torch runs, with BatchNorm folded: grouped, dilated, odd numbers of channels."""

    kind = "folded, run by torch"

    def __init__(self, step: Affine, module: nn.Module) -> None:
        super().__init__(step, module)
        self._lay_out(*fold(self.layer, self.norm))

    def __call__(self, x: Tensor, residual: Tensor | None, work: Workspace, slot: int) -> Tensor:
        """Return the step's value."""
        if isinstance(self.layer, nn.Conv2d):
            y = self.layer._conv_forward(x, self.weight, self.bias)
        else:
            y = F.linear(x, self.weight, self.bias)
        return self._finish(y, residual)


class Convolution(Layer):
    """A convolution by one of our kernels, in channels-last order."""

    def __init__(self, step: Affine, module: nn.Module) -> None:
        super().__init__(step, module)
        weight, bias = fold(self.layer, self.norm)
        self.winograd = _suits_winograd(self.layer)
        self.kind = "3x3 Winograd" if self.winograd else "direct"
        self._lay_out((winograd if self.winograd else direct).transform_weight(weight), bias)
        self.outputs, self.inputs, *self.taps = weight.shape
        self.pointwise = (*self.taps, *self.layer.stride, *self.layer.padding) == (1, 1, 1, 1, 0, 0)

    def __call__(self, x: Tensor, residual: Tensor | None, work: Workspace, slot: int) -> Tensor:
        """Return the step's value in buffer ``slot``."""
        if x.ndim != 4 or x.shape[1] != self.inputs:
            raise ValueError(f"a convolution takes (N, {self.inputs}, height, width), got {tuple(x.shape)}")
        x = channels_last(x)
        images, _, *size = x.shape
        step = zip(size, self.layer.padding, self.taps, self.layer.stride, strict=True)
        to = [(n + 2 * padding - taps) // stride + 1 for n, padding, taps, stride in step]
        y = work.image(slot, images, self.outputs, *to)
        fits = isinstance(residual, Tensor) and residual.shape == y.shape
        added = channels_last(residual) if fits else None  # type: ignore[arg-type]
        late = residual is not None and not fits
        floor = np.float32(-np.inf) if late else self.floor
        pointers = x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), 0 if added is None else added.data_ptr()
        zero = work.zeros(max(self.inputs, LANES))
        if self.winograd:
            scratch = work.scratch(winograd.scratch_size(self.inputs, self.outputs))
            winograd.convolve(*pointers, y.data_ptr(), zero, scratch, images, *size, self.inputs, self.outputs, floor)
        else:
            shape = (images, *size, self.inputs, *to, self.outputs)
            if self.pointwise:  # all pixels of all images are one row
                shape = (1, 1, x.numel() // self.inputs, self.inputs, 1, x.numel() // self.inputs, self.outputs)
            geometry = (*self.taps, *self.layer.stride, *self.layer.padding)
            direct.convolve(*pointers, y.data_ptr(), zero, work.scratch(LANES), *shape, *geometry, floor)
        return self._finish(y, residual) if late else y


class Linear(Layer):
    """One or more linear layers side by side: a matrix product."""

    kind = "linear"

    def __init__(self, step: Affine, *modules: nn.Module) -> None:
        super().__init__(step, modules[0])
        self.step, self.module = step, modules[0]
        folded = [fold(m.get_submodule(step.layer), m.get_submodule(step.norm) if step.norm else None) for m in modules]
        weight, bias = (np.concatenate(part) for part in zip(*folded, strict=True))
        self.outputs, self.inputs = weight.shape
        padding = -self.outputs % LANES
        weight, bias = np.pad(weight, ((0, padding), (0, 0))), np.pad(bias, (0, padding))
        self._lay_out(direct.transform_weight(weight[:, :, None, None]), bias)

    def __call__(self, x: Tensor, residual: Tensor | None, work: Workspace, slot: int) -> Tensor:
        """Return the step's value in buffer ``slot``; x is (..., inputs)."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"a linear layer takes (..., {self.inputs}), got {tuple(x.shape)}")
        if self.norm is not None and x.ndim != 2:  # BatchNorm then counts axis 1 as its channels, not the last
            return self._finish(self.norm(self.layer(x)), residual)
        x = x.contiguous()
        rows, width = x.numel() // self.inputs, len(self.bias)
        y = work.rows(slot, rows, width)
        fits = isinstance(residual, Tensor) and width == self.outputs and residual.shape == (*x.shape[:-1], width)
        added = residual.contiguous() if residual is not None and fits else None
        late = residual is not None and not fits
        direct.convolve(
            x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), 0 if added is None else added.data_ptr(),
            y.data_ptr(), work.zeros(max(self.inputs, LANES)), work.scratch(LANES), 1, 1, rows, self.inputs, 1, rows, width,
            1, 1, 1, 1, 0, 0, np.float32(-np.inf) if late else self.floor,
        )  # fmt: skip
        result = y[:, : self.outputs].unflatten(0, x.shape[:-1])
        return self._finish(result, residual) if late else result


def prepare(step: Affine, module: nn.Module) -> Layer:
    """Lay out one step of one checkpoint for the kernel that suits it."""
    layer: Any = module.get_submodule(step.layer)
    if isinstance(layer, nn.Linear):
        return Linear(step, module)
    return Convolution(step, module) if _suits_direct(layer) else Plain(step, module)


def _suits_direct(layer: Any) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return plain and isinstance(layer.padding, tuple) and layer.out_channels % LANES == 0


def _suits_winograd(layer: Any) -> bool:
    shape = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.padding == (1, 1)
    return shape and layer.in_channels % LANES == 0 and layer.in_channels * layer.out_channels <= WINOGRAD_LIMIT


def channels_last(x: Tensor) -> Tensor:
    """Return images (N, C, height, width) as float32 in channels-last order."""
    # Not .contiguous(memory_format=...): with one channel or one pixel it keeps strides that the kernels cannot use.
    return x.float().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
