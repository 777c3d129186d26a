"""Copies of a module that share its tensors but nothing else that can change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from typing import Any

from torch import Tensor, nn

_FRESH = {key for key in vars(nn.Module()) if "hook" in key}


def eval_twin(module: nn.Module, tensor: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """Copy a module tree in eval mode, with the same parameters and buffers.

    Running or training the copy leaves the module's mode and hooks alone, and its containers too: substituting the
    copy's state (`torch.func.functional_call`) does not reach the module. Hooks are left out, but for those by which
    ``torch.nn.utils`` computes weights. Operations in place become out of place, which gives the same bits, so that a
    tensor handed out at a cut is never overwritten.

    Parameters
    ----------
    module
        Any module; it is not changed.
    tensor
        Applied to every parameter and buffer; by default they are shared.
    """
    return _copy(module, tensor, {})


def _copy(module: nn.Module, tensor: Callable[[Tensor], Tensor] | None, done: dict[int, nn.Module]) -> nn.Module:
    if id(module) in done:
        return done[id(module)]
    twin: nn.Module = object.__new__(type(module))
    done[id(module)] = twin
    state = {key: _own(value, tensor) for key, value in vars(module).items()}
    for key in _FRESH & state.keys():
        if isinstance(state[key], dict):
            state[key] = OrderedDict(
                (handle, hook)
                for handle, hook in state[key].items()
                if type(hook).__module__.startswith("torch.nn.utils.")
            )
    state.pop("_compiled_call_impl", None)
    state["_modules"] = {
        name: child if child is None else _copy(child, tensor, done) for name, child in state["_modules"].items()
    }
    state["training"] = False
    if state.get("inplace") is True:
        state["inplace"] = False
    vars(twin).update(state)
    return twin


def _own(value: Any, tensor: Callable[[Tensor], Tensor] | None) -> Any:
    """Copy containers, so that a forward function that fills a list fills the twin's; convert tensors."""
    if isinstance(value, set):
        return copy(value)
    if isinstance(value, (list, dict)):
        new: Any = copy(value)
        for key in range(len(value)) if isinstance(value, list) else value:
            new[key] = _own(value[key], tensor)
        return new
    return tensor(value) if tensor is not None and isinstance(value, Tensor) else value
