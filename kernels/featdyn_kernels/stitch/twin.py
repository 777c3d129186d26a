"""Copies of a module in eval mode that share its tensors, or hold those of another checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn


def twin(module: nn.Module, state: Mapping[str, Tensor] | None, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Copy a module tree in eval mode, with nothing done in place; the module itself is left alone.

    ``state`` holds parameters and buffers by name, as in a state dict, and maybe more; None shares those of the module.
    Floating-point tensors become ``dtype`` and all go to ``device``; those that are so already are shared. Raises
    ValueError where a tensor is missing or has another shape.
    """

    def pick(name: str, own: Tensor, persistent: bool) -> Tensor:
        tensor = own
        if state is not None and persistent:
            if name not in state:
                raise ValueError(f"states have no {name!r}, which the suffix needs")
            tensor = state[name]
            if tensor.shape != own.shape:
                raise ValueError(f"{name} must have shape {tuple(own.shape)}, got {tuple(tensor.shape)}")
        return tensor.detach().to(device, dtype if tensor.is_floating_point() else None)

    done: dict[int, nn.Module] = {}
    copy = _copy(module, pick, "", done)
    for part in done.values():
        bound = {k: v for k, v in vars(part).items() if isinstance(v, MethodType) and id(v.__self__) in done}
        vars(part).update({k: MethodType(v.__func__, done[id(v.__self__)]) for k, v in bound.items()})
    # torch.fx looks into the module that it traces: a layer of torch has to be inside of it to be seen as one.
    return nn.Sequential(copy) if fx.Tracer().is_leaf_module(copy, "") else copy


def _copy(
    module: nn.Module, pick: Callable[[str, Tensor, bool], Tensor], prefix: str, done: dict[int, nn.Module]
) -> nn.Module:
    if id(module) in done:
        return done[id(module)]
    copy: nn.Module = object.__new__(type(module))
    done[id(module)] = copy
    fields: dict[str, Any] = dict(vars(module))
    fields.pop("_compiled_call_impl", None)
    passing = fields["_non_persistent_buffers_set"]
    fields["_parameters"] = {
        name: own if own is None else nn.Parameter(pick(prefix + name, own, True), requires_grad=False)
        for name, own in fields["_parameters"].items()
    }
    fields["_buffers"] = {
        name: own if own is None else pick(prefix + name, own, name not in passing)
        for name, own in fields["_buffers"].items()
    }
    fields["_modules"] = {
        name: child if child is None else _copy(child, pick, f"{prefix}{name}.", done)
        for name, child in fields["_modules"].items()
    }
    fields["training"] = False
    if fields.get("inplace") is True:
        fields["inplace"] = False  # the same numbers, without writing into features that other checkpoints still need
    vars(copy).update(fields)
    if isinstance(copy, nn.RNNBase):  # keeps a second list of its weights
        vars(copy)["_flat_weights"] = [getattr(copy, name, None) for name in copy._flat_weights_names]
    return copy
