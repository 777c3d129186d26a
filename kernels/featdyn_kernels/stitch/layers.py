"""Layers of one checkpoint, their weights laid out for the kernel that suits them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn_kernels._simd import BF16
from featdyn_kernels.stitch import direct, winograd
from featdyn_kernels.stitch.fold import fold
from featdyn_kernels.stitch.panels import LANES
from featdyn_kernels.stitch.plan import Affine
from featdyn_kernels.stitch.workspace import Workspace

WINOGRAD_LIMIT = 256 * 256
"""With more inputs times outputs the direct sum is taken: transformed weights are four times as large. AMD EPYC (Zen
5): Winograd is 2.5 times as fast as the direct sum at 64 x 64 and 1.8 times at 256 x 256."""

SMALL = 4
"""Pixels of maps whose 3x3 convolution is one matrix product, as every output sees every input: at 2x2 it takes 16
multiplications where a tile of Winograd's takes 36, and the direct sum, zeros included, as many."""

NO_FLOOR = np.float32(-np.inf)


class Layer(ABC):
    """One fused step of one checkpoint."""

    kind = ""

    def __init__(self, step: Affine, module: nn.Module) -> None:
        self.layer: Any = module.get_submodule(step.layer)
        self.norm = module.get_submodule(step.norm) if step.norm else None
        self.relu = step.relu
        self.floor = np.float32(0) if step.relu else NO_FLOOR

    def _lay_out(self, weight: NDArray[Any], bias: NDArray[Any], rounded: int = 0) -> tuple[Tensor, Tensor]:
        # A clone because numpy aligns to 16 bytes, torch to a cache line.
        found = torch.from_numpy(weight).to(torch.bfloat16 if rounded else torch.float32).clone()
        shift = torch.from_numpy(bias).float().clone()
        self.weight, self.bias = found, shift
        return found, shift

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        return self.weight.nbytes + self.bias.nbytes

    @abstractmethod
    def __call__(self, x: Tensor, residual: Any, work: Workspace, slot: int) -> Tensor:
        """Return the step's value, which may lie in buffer ``slot``."""

    def _finish(self, y: Tensor, residual: Any) -> Tensor:
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

    def __call__(self, x: Tensor, residual: Any, work: Workspace, slot: int) -> Tensor:
        """Return the step's value."""
        if isinstance(self.layer, nn.Conv2d):
            y = self.layer._conv_forward(x, self.weight, self.bias)
        else:
            y = F.linear(x, self.weight, self.bias)
        return self._finish(y, residual)


class Convolution(Layer):
    """A convolution by one of our kernels, in channels-last order."""

    def __init__(self, step: Affine, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(step, module)
        self.outputs, self.inputs, *self.taps = self.layer.weight.shape
        self.rounded = _rounds(dtype, self.inputs)
        self.winograd = _suits_winograd(self.layer)
        self.kind = "3x3 Winograd" if self.winograd else "direct"
        self._arrange(())

    def __call__(self, x: Tensor, residual: Any, work: Workspace, slot: int) -> Tensor:
        """Return the step's value in buffer ``slot``."""
        x = channels_last(x)
        weight, bias = self._weights(x.shape[2:])  # kept until the kernel is done
        y, kernel, arguments = work.launch(self, x.shape, slot)
        if isinstance(residual, Tensor) and residual.shape == y.shape:
            added, late = channels_last(residual), None
        else:
            added, late = None, residual
        floor = self.floor if late is None else NO_FLOOR
        residual_at = 0 if added is None else added.data_ptr()
        kernel(x.data_ptr(), weight.data_ptr(), bias.data_ptr(), residual_at, *arguments, floor)
        return y if late is None else self._finish(y, late)

    def _arrange(self, small: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Lay out the weights for maps of a small size; for any larger ones where it is empty."""
        weight, bias = fold(self.layer, self.norm)
        if small:
            weight, bias = as_product(weight, small)[:, :, None, None], np.tile(bias, prod(small))
        of = winograd if self.winograd and not small else direct
        found = self._lay_out(of.transform_weight(weight, self.rounded), bias, self.rounded)
        self._arranged = small, found
        return found

    def _weights(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return weights and bias for maps of a size; of each thread until its kernel is done, whatever others ask."""
        small, found = self._arranged
        wanted = self._small(size)
        return found if small == wanted else self._arrange(wanted)

    def _small(self, size: Sequence[int]) -> tuple[int, ...]:
        return tuple(size) if self.winograd and prod(size) <= SMALL else ()

    def launch(self, shape: Sequence[int], work: Workspace, slot: int) -> tuple[Tensor, Any, tuple[int, ...]]:
        """Return, for inputs of one shape, the output, the kernel, and its arguments from the output's address on."""
        if len(shape) != 4 or shape[1] != self.inputs:
            raise ValueError(f"a convolution takes (N, {self.inputs}, height, width), got {tuple(shape)}")
        images, _, *size = shape
        geometry = (*self.taps, *self.layer.stride, *self.layer.padding)
        steps = zip(size, self.taps, self.layer.stride, self.layer.padding, strict=True)
        to = [(n + 2 * padding - taps) // stride + 1 for n, taps, stride, padding in steps]
        y = work.image(slot, images, self.outputs, *to)
        if self._small(size):
            inputs, outputs = (prod(size) * channels for channels in (self.inputs, self.outputs))
            zero, scratch = work.zeros(inputs), work.scratch(direct.scratch_size(images, inputs, self.rounded))
            rows = (1, 1, images, inputs, 1, images, outputs, 1, 1, 1, 1, 0, 0, self.rounded)
            return y, direct.convolve, (y.data_ptr(), zero, scratch, *rows)
        zero = work.zeros(max(self.inputs, LANES))
        if self.winograd:
            scratch = work.scratch(winograd.scratch_size(self.inputs, self.outputs))
            tail = (images, *size, self.inputs, self.outputs, self.rounded)
            return y, winograd.convolve, (y.data_ptr(), zero, scratch, *tail)
        count = images * size[0] * size[1]
        scratch = work.scratch(direct.scratch_size(count, self.inputs, self.rounded))
        pixels = (images, *size, self.inputs, *to)
        if geometry == (1, 1, 1, 1, 0, 0):  # all pixels of all images are one row
            pixels = (1, 1, count, self.inputs, 1, count)
        return y, direct.convolve, (y.data_ptr(), zero, scratch, *pixels, self.outputs, *geometry, self.rounded)


class Linear(Layer):
    """The same linear layer of one or more checkpoints, side by side: a matrix product."""

    kind = "linear"

    def __init__(self, step: Affine, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        super().__init__(step, modules[0])
        folded = [fold(m.get_submodule(step.layer), m.get_submodule(step.norm) if step.norm else None) for m in modules]
        weight, bias = (np.concatenate(part) for part in zip(*folded, strict=True))
        self.outputs, self.inputs = weight.shape
        self.rounded = _rounds(dtype, self.inputs)
        padding = -self.outputs % LANES
        weight, bias = np.pad(weight, ((0, padding), (0, 0))), np.pad(bias, (0, padding))
        self._lay_out(direct.transform_weight(weight[:, :, None, None], self.rounded), bias, self.rounded)

    def __call__(self, x: Tensor, residual: Any, work: Workspace, slot: int) -> Tensor:
        """Return the step's value in buffer ``slot``; x is (..., inputs)."""
        if x.shape[-1] != self.inputs:
            raise ValueError(f"a linear layer takes (..., {self.inputs}), got {tuple(x.shape)}")
        if self.norm is not None and x.ndim != 2:  # BatchNorm then counts axis 1 as its channels, not the last
            return self._finish(self.norm(self.layer(x)), residual)
        x = x.float().contiguous()
        rows, width = x.numel() // self.inputs, self.bias.numel()
        y = work.rows(slot, rows, width)
        if isinstance(residual, Tensor) and residual.shape == (*x.shape[:-1], width) and width == self.outputs:
            added, late = residual.float().contiguous(), None
        else:
            added, late = None, residual
        direct.convolve(
            x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), 0 if added is None else added.data_ptr(),
            y.data_ptr(), work.zeros(max(self.inputs, LANES)),
            work.scratch(direct.scratch_size(rows, self.inputs, self.rounded)), 1, 1, rows, self.inputs, 1, rows, width,
            1, 1, 1, 1, 0, 0, self.rounded, self.floor if late is None else NO_FLOOR,
        )  # fmt: skip
        result = y[:, : self.outputs].view(*x.shape[:-1], self.outputs)
        return result if late is None else self._finish(result, late)


def prepare(step: Affine, module: nn.Module, dtype: torch.dtype) -> Layer:
    """Lay out one step of one checkpoint for the kernel that suits it."""
    layer: Any = module.get_submodule(step.layer)
    if isinstance(layer, nn.Linear):
        return Linear(step, [module], dtype)
    return Convolution(step, module, dtype) if _suits_direct(layer) else Plain(step, module)


def as_product(weight: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Return a 3x3 convolution of stride 1, padded by 1, as a matrix: of channels-last maps of this size."""
    outputs, inputs = weight.shape[:2]
    found = np.zeros((*size, outputs, *size, inputs), weight.dtype)
    for to in np.ndindex(*size):
        for of in np.ndindex(*size):
            tap = of[0] - to[0] + 1, of[1] - to[1] + 1
            if 0 <= min(tap) <= max(tap) <= 2:
                found[(*to, slice(None), *of)] = weight[(..., *tap)]
    return found.reshape(prod(size) * outputs, prod(size) * inputs)


def _rounds(dtype: torch.dtype, inputs: int) -> int:
    return int(dtype == torch.bfloat16 and BF16 and inputs % LANES == 0)


def _suits_direct(layer: Any) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return plain and isinstance(layer.padding, tuple) and layer.out_channels % LANES == 0


def _suits_winograd(layer: Any) -> bool:
    shape = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.padding == (1, 1)
    return bool(shape) and layer.in_channels % LANES == 0 and layer.in_channels * layer.out_channels <= WINOGRAD_LIMIT


def channels_last(x: Tensor) -> Tensor:
    """Return images (N, C, height, width) as float32 in channels-last order."""
    if x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.to(torch.float32, memory_format=torch.channels_last)
