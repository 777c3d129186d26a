"""A module that is not taken apart: its input as a cut, with nothing before it and all of it behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.networks.cut import INPUT, OUTPUT, Cut
from featdyn.networks.twin import eval_twin


class Same(nn.Module):
    """Its input, alone or, for features at several places, as a tuple."""

    def __init__(self, several: bool) -> None:
        super().__init__()
        self._several = several

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return ``x``."""
        return (x,) if self._several else x


class Whole:
    """The way of a module that stays whole; see :class:`featdyn.networks.cut.Way`."""

    method = "whole, at its input"
    traced = True

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @cached_property
    def _twin(self) -> nn.Module:
        return eval_twin(self._module)

    def part(self, source: Any, result: Any, module: nn.Module | None = None) -> nn.Module:
        """Return nothing before the input, the module behind it."""
        if result == OUTPUT:
            return self._twin if module is None else eval_twin(module)
        return Same(isinstance(result, tuple))

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        """Return the features, which are inputs."""
        return features


def at_input(module: nn.Module, inputs: Tensor) -> Cut:
    """Return the input of a module as a cut; ``inputs (N, ...)`` are some that it takes."""
    from torch.utils.flop_counter import FlopCounterMode  # it loads Triton, as in value_shapes

    way = Whole(module)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        way.part(INPUT, OUTPUT)(inputs[:1].clone())
    return Cut(
        name=INPUT, module=None, shape=tuple(inputs.shape[1:]), prefix_macs=0,
        suffix_macs=counter.get_total_flops() // 2, prefix_params=0,
        suffix_params=sum(p.numel() for p in module.parameters()), _way=way, _place=INPUT,
    )  # fmt: skip
