"""Copies of a module that share its tensors but nothing else that can change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from types import MethodType
from typing import Any

from torch import Tensor, nn

_FRESH = {key for key in vars(nn.Module()) if "hook" in key}


def eval_twin(module: nn.Module, tensor: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """Copy a module tree in eval mode, with the same parameters and buffers, or what ``tensor`` makes of each.

    Running or training the copy leaves the module's mode and hooks alone, and its containers too: substituting the
    copy's state (`torch.func.functional_call`) does not reach the module. Hooks are left out, but for those by which
    ``torch.nn.utils`` computes weights. Operations in place become out of place, which gives the same bits, so that a
    tensor handed out at a cut is never overwritten.
    """
    return _twin(module, tensor, {})  # type: ignore[no-any-return]


def _twin(value: Any, tensor: Callable[[Tensor], Tensor] | None, done: dict[int, nn.Module]) -> Any:
    """Copy what modules hold: submodules, also where a list or a bound method refers to them, containers, tensors."""
    if isinstance(value, nn.Module):
        return done[id(value)] if id(value) in done else _copy(value, tensor, done)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, _twin(value.__self__, tensor, done))
    if isinstance(value, set):
        return copy(value)
    if isinstance(value, (list, dict)):
        new: Any = copy(value)
        for key in range(len(value)) if isinstance(value, list) else value:
            new[key] = _twin(value[key], tensor, done)
        return new
    return tensor(value) if tensor is not None and isinstance(value, Tensor) else value


def _copy(module: nn.Module, tensor: Callable[[Tensor], Tensor] | None, done: dict[int, nn.Module]) -> nn.Module:
    twin: nn.Module = object.__new__(type(module))
    done[id(module)] = twin
    state = dict(vars(module))
    for key in _FRESH & state.keys():
        if isinstance(state[key], dict):
            hooks = state[key].items()
            state[key] = OrderedDict(item for item in hooks if type(item[1]).__module__.startswith("torch.nn.utils."))
    state.pop("_compiled_call_impl", None)
    state = {key: _twin(value, tensor, done) for key, value in state.items()}
    state["training"] = False
    if state.get("inplace") is True:
        state["inplace"] = False
    vars(twin).update(state)
    return twin
