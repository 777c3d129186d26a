"""Convolutions in float64 whose tangents go through them in float32.

A response is linear in its tangent: rounding each product of it costs 1e-7 of what it is, however small the step. What
bends, such as which units of a ReLU are on, follows from the values, which stay in float64. A CPU has fast convolutions
for float32 alone: those of float64 took 70 % of the time of a response of ResNet-20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SPATIAL: Mapping[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


class SinglePrecisionTangents(TorchFunctionMode):
    """While it is entered, convolutions of float64 tensors of a CPU push tangents in float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what stands for it here."""
        if func in SPATIAL:
            return _convolved(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolved(
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    here = input.dtype == weight.dtype == torch.float64 and input.device.type == "cpu"
    if not here or isinstance(padding, str) or input.ndim != weight.ndim:  # of one sample without a batch
        return func(input, weight, bias, stride, padding, dilation, groups)
    found: Tensor = _Convolution.apply(
        input, weight, *(_each(value, SPATIAL[func]) for value in (stride, padding, dilation)), groups
    )
    return found if bias is None else found + bias.view(-1, *[1] * SPATIAL[func])


def _each(value: Any, dimensions: int) -> tuple[int, ...]:
    """Return a number for each dimension, where one is given for all, too."""
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * dimensions if len(found) == 1 else found


class _Convolution(torch.autograd.Function):
    """A convolution of float64 tensors, without a bias."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, *how: Any) -> Tensor:
        return _plain(x, w, how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, w, *ctx.how = inputs
        ctx.save_for_forward(x, w)

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, w_tangent: Tensor | None, *_: Any) -> Tensor:
        x, w = ctx.saved_tensors
        pairs = ((x_tangent, w), (x, w_tangent))
        terms = [_plain(a.float(), b.float(), ctx.how) for a, b in pairs if a is not None and b is not None]
        return sum(terms[1:], terms[0]).double()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """Values are mostly the same for all steps: only tangents, which come to ``jvp``, are of each."""
        x, w, *how = args
        return torch.vmap(lambda a, b: _plain(a, b, how), in_dims[:2])(x, w), 0


def _plain(x: Tensor, w: Tensor, how: Sequence[Any]) -> Tensor:
    stride, padding, dilation, groups = how
    transposed, no_output_padding = False, (0,) * len(stride)
    return torch.convolution(x, w, None, stride, padding, dilation, transposed, no_output_padding, groups)
