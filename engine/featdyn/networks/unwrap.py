"""The module inside wrappers, whose names are those that its author gave, and what else a layer may be called."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from torch import nn
from torch.optim.swa_utils import AveragedModel

from featdyn.networks.layer_patterns import matching

INNER = ("module", "_orig_mod", "_fsdp_wrapped_module")
"""What wrappers call the module inside: DDP, DataParallel and averaged models, ``torch.compile``, FSDP."""
_PREFIX = re.compile(rf"(?:{'|'.join(INNER)}|base_model\.model)\.")
"""What wrappers put before a layer's name, each once more."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, DDP, DataParallel, an averaged model or PEFT, however many there are.

    ``model.compile()`` wraps nothing. What PEFT has put into the layers stays there.
    """
    return list(_stages(model))[-1]


def _stages(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a module, and what each wrapper has inside."""
    inner: object = model
    while isinstance(inner, nn.Module):
        yield (model := inner)
        inner = getattr(model, "_orig_mod", None)  # of torch.compile, whose class is not public
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)):
            inner = model.module
        elif (peft := sys.modules.get("peft")) and isinstance(model, peft.PeftModel):
            inner = model.get_base_model()


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules inside a network, each once, by names without the parts that wrappers inside it add.

    Compiled in part or not, a network has the same names. A wrapper stands for the module inside.
    """
    found: dict[str, nn.Module] = {}
    seen = {id(model)}

    def walk(module: nn.Module, before: str) -> None:
        for name, child in module._modules.items():
            if child is None or id(child) in seen:
                continue
            found[f"{before}{name}"] = child
            stages = list(_stages(child))
            seen.update(map(id, stages))
            walk(stages[-1], f"{before}{name}.")

    walk(model, "")
    return found


def plain_names(model: nn.Module) -> dict[str, str]:
    """Return, by each path of a module inside a network, its name in :func:`named_layers`."""
    first = _names(named_layers(model))
    every = model.named_modules(remove_duplicate=False)
    return {path: first[id(module)] for path, module in every if id(module) in first}


def _names(layers: dict[str, nn.Module]) -> dict[int, str]:
    """Return the name of each module and of what it wraps, by id."""
    return {id(stage): name for name, module in layers.items() for stage in _stages(module)}


def asked_layers(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of the layers that a pattern fits; each has one, the first of :func:`named_layers`.

    A pattern fits a layer by any of the names that lead there: those of a module that stands in several places, names
    with the parts that wrappers inside the network add, and, where it fits none of these, names with the parts that
    wrappers around it would add. A pattern that is a name means that layer alone.
    """
    layers = named_layers(model)
    if pattern in layers:
        return [pattern]
    first = _names(layers) | {id(model): ""}
    other = {name: first[id(module)] for name, module in _every_name(model, "", frozenset())}
    matched = matching(pattern, other.keys() | layers.keys())
    # What a wrapper has inside is the same layer, which no wildcard for layers inside one means.
    fits = {other.get(n, n) for n in matched if n == pattern or not n.startswith(f"{other.get(n, n)}.")}
    found = [name for name in layers if name in fits]
    outer = _PREFIX.match(pattern)
    return asked_layers(model, pattern[outer.end() :]) if outer and not found else found


def _every_name(module: nn.Module, before: str, above: frozenset[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules inside one by each name that they have, wrappers left out, and not round in circles."""
    above |= {id(module)}
    for name, child in module._modules.items():
        if child is not None and id(child) not in above:
            yield f"{before}{name}", child
            yield from _every_name(child, f"{before}{name}.", above)
            inner = unwrap(child)
            if inner is not child:
                yield from _every_name(inner, f"{before}{name}.", above)
