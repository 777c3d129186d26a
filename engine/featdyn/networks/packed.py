"""Networks of several inputs as networks of one: whoever takes modules apart knows of one tensor only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

_FORWARD = "_forward_of_the_instance"
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
        """Return how to pack tensors ``(N, ...)`` of these shapes and types; ValueError where one is complex."""
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


def with_forward(model: nn.Module, run: Callable[[nn.Module, Any], Any]) -> nn.Module:
    """Return a network that shares all of the model and whose output is ``run(model, given)``.

    Names of parameters, buffers and submodules stay: the network is of a class made from the model's. What ``run`` is
    given is the model with the tensors that the network has then, whose call is its forward function alone.
    """
    kind = type(model)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    inner = type(kind.__name__, (kind,), {"__call__": call})  # not a submodule to who traces the network

    def forward(self: nn.Module, given: Any) -> Any:
        own = dict(vars(self))
        if (instead := own.pop(_FORWARD, None)) is not None:
            own["forward"] = instead
        return run(_sharing(inner, own), given)

    own = dict(vars(model))
    if "forward" in own:  # kept where copies of the network rebind it
        own[_FORWARD] = own.pop("forward")
    forward.__qualname__ = kind.forward.__qualname__  # a recording knows a network by that
    return _sharing(type(kind.__name__, (kind,), {"forward": forward, **named}), own)


def _sharing(kind: type[nn.Module], own: Mapping[str, Any]) -> nn.Module:
    """Return a module of a class that holds what another does."""
    found: nn.Module = object.__new__(kind)
    vars(found).update(own)
    return found
