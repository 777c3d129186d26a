"""Steps that a backend may do along with their neighbours instead of running them."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from featdyn_kernels.stitch.plan import Affine, Call, SuffixPlan


class Padding(NamedTuple):
    """Channels of zeros around those of a value."""

    source: str
    before: int
    after: int


class Head(NamedTuple):
    """The linear layer at the end of a suffix, and whether it reads means over pixels."""

    plan: SuffixPlan
    """In which the last step reads the images, if so, and nothing else computes the means."""
    layer: nn.Linear
    pooled: bool


def paddings(plan: SuffixPlan) -> dict[str, Padding]:
    """Return the values that pad channels and are read as residuals alone, as in shortcuts without parameters."""
    readers = _readers(plan)
    found = {}
    for step in (*plan.shared, *plan.own):
        if not isinstance(step, Call) or step.op != "call_function" or step.target is not F.pad:
            continue
        given = dict(zip(("input", "pad", "mode", "value"), step.args, strict=False)) | step.kwargs
        sizes, source = given["pad"], given["input"]
        zeros = given.get("mode", "constant") == "constant" and not given.get("value")
        channels = isinstance(sizes, (tuple, list)) and len(sizes) == 6 and all(type(n) is int for n in sizes)
        if not (zeros and channels and isinstance(source, fx.Node) and step.value != plan.output):
            continue
        if not any(sizes[:4]) and min(sizes[4:]) >= 0 and all(_adds(r, step.value) for r in readers[step.value]):
            found[step.value] = Padding(source.name, *sizes[4:])
    return found


def head(plan: SuffixPlan, module: nn.Module) -> Head | None:
    """Return the head of a suffix that ends in a linear layer."""
    last = plan.own[-1] if plan.own else None
    if not isinstance(last, Affine) or last.value != plan.output or last.residual or last.relu:
        return None
    layer = module.get_submodule(last.layer)
    if not isinstance(layer, nn.Linear):
        return None
    makers = {step.value: step for step in plan.own if isinstance(step, Call)}
    readers, taken = _readers(plan), []
    call = makers.get(last.source)
    if call is not None and _is_flatten(call, module) and len(readers[call.value]) == 1:
        taken, call = [call], makers.get(call.sources[0])
    pools = call is not None and (_is_pool(call, module) if taken else _is_mean(call))
    if call is None or not pools or len(readers[call.value]) > 1:
        return Head(plan, layer, False)
    taken.append(call)
    own = *(step for step in plan.own[:-1] if step not in taken), replace(last, source=call.sources[0])
    return Head(replace(plan, own=own), layer, True)


def _readers(plan: SuffixPlan) -> dict[str, list[Affine | Call]]:
    found: dict[str, list[Affine | Call]] = {}
    for step in (*plan.shared, *plan.own):
        found.setdefault(step.value, [])
        for name in step.sources:
            found.setdefault(name, []).append(step)
    return found


def _adds(step: Affine | Call, value: str) -> bool:
    return isinstance(step, Affine) and step.residual == value and step.source != value


def _is_pool(call: Call, module: nn.Module) -> bool:
    if call.op == "call_module":
        part = _plain(call, module)
        return type(part) is nn.AdaptiveAvgPool2d and part.output_size in (1, (1, 1))
    wanted = call.target is F.adaptive_avg_pool2d and not call.kwargs and len(call.args) == 2
    return wanted and call.args[1] in (1, (1, 1), [1, 1])


def _is_flatten(call: Call, module: nn.Module) -> bool:
    if call.op == "call_module":
        part = _plain(call, module)
        return type(part) is nn.Flatten and (part.start_dim, part.end_dim) == (1, -1)
    arguments = (*call.args[1:], *call.kwargs.values())
    return call.target in (torch.flatten, "flatten") and arguments in ((1,), (1, -1))


def _is_mean(call: Call) -> bool:
    arguments: Any = (*call.args[1:], *call.kwargs.values())
    if call.op == "call_module" or call.target not in (torch.mean, "mean") or len(arguments) != 1:
        return False
    return isinstance(arguments[0], (tuple, list)) and tuple(arguments[0]) in ((2, 3), (3, 2), (-2, -1), (-1, -2))


def _plain(call: Call, module: nn.Module) -> Any:
    """Return the submodule that a call runs, if nothing else hangs on it."""
    part = operator.attrgetter(call.target)(module)
    return None if part._forward_hooks or part._forward_pre_hooks else part
