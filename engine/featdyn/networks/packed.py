"""Networks of several inputs as networks of one: whoever takes modules apart knows of one tensor only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

NARROW = {torch.bool, torch.uint8, torch.int8, torch.int16}
"""Types all of whose values float32 holds."""


@dataclass(frozen=True)
class Packing:
    """Tensors side by side in the rows of one, and back.

    Attributes
    ----------
    shapes : of one sample of each tensor, by its path, in their order
    dtypes : of each
    kind : of the whole, which holds every value of each
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    kind: torch.dtype

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Packing:
        """Return how to pack tensors ``(N, ...)`` of these shapes and types; ValueError where they are complex."""
        dtypes = {path: tensor.dtype for path, tensor in tensors.items()}
        floats = [dtype for dtype in dtypes.values() if dtype.is_floating_point]
        kind = torch.int64
        if floats:  # float64 holds integers up to 2**53
            wide = torch.float64 in floats or not NARROW.issuperset(d for d in dtypes.values() if d not in floats)
            kind = torch.float64 if wide else torch.float32
        shapes = {path: tuple(tensor.shape[1:]) for path, tensor in tensors.items()}
        if any(dtype.is_complex for dtype in dtypes.values()):
            raise ValueError("inputs are complex")
        return cls(shapes, dtypes, kind)

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the tensors' samples as rows, ``(N, values)``."""
        rows = ((tensors[path].to(self.kind), prod(shape)) for path, shape in self.shapes.items())
        return torch.cat([values.reshape(len(values), width) for values, width in rows], 1)

    def unpack(self, packed: Tensor) -> dict[str, Tensor]:
        """Return the tensors again."""
        found, start = {}, 0
        for path, shape in self.shapes.items():
            stop = start + prod(shape)
            values = packed[:, start:stop].unflatten(1, shape) if shape else packed[:, start]  # type: ignore[no-untyped-call]
            found[path], start = values.to(self.dtypes[path]), stop
        return found


def with_forward(model: nn.Module, run: Callable[[Callable[..., Any], Tensor], Any]) -> nn.Module:
    """Return a network that shares all of the model and whose output is ``run(forward, given)``.

    ``forward`` is the model's own function. Names of parameters, buffers and submodules stay: the network is of a class
    made from the model's.
    """
    kind, own = type(model), vars(model).get("forward")

    def forward(self: nn.Module, given: Tensor) -> Any:
        return run(own if own is not None else kind.forward.__get__(self), given)

    found = copy(model)
    vars(found).pop("forward", None)
    found.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return found
