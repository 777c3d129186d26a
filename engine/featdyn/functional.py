"""A module with other tensors for one call, also where several names lead to one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(module: nn.Module, state: Mapping[str, Tensor], inputs: tuple[Any, ...]) -> Any:
    """Return ``module(*inputs)`` with the tensors of a state in place of its own, as `torch.func.functional_call` does.

    A tensor that several names lead to, as tied weights or a module that stands in several places, takes the value of
    the first of its names in ``state``. The module and ``state`` are left as they were: where two names are one
    attribute of one module, torch swaps it twice and so puts back what was given in the place of the module's own.
    """
    own = dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
    first: dict[Tensor, Tensor] = {}
    for name, value in state.items():
        if name in own:
            first.setdefault(own[name], value)
    given = {**state, **{name: first[tensor] for name, tensor in own.items() if tensor in first}}
    owners: dict[str, nn.Module] = {}
    once: dict[tuple[int, str], str] = {}
    for name in given:
        path, _, attribute = name.rpartition(".")
        if path not in owners:
            owners[path] = module.get_submodule(path)
        once.setdefault((id(owners[path]), attribute), name)
    return torch.func.functional_call(module, {name: given[name] for name in once.values()}, inputs, tie_weights=False)
