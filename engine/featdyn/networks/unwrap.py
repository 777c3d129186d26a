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
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile, whose class is not public
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)):
            inner = model.module
        elif (peft := sys.modules.get("peft")) and isinstance(model, peft.PeftModel):
            inner = model.get_base_model()
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def asked_layers(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of the layers that a pattern fits; each has one, the first of ``named_modules``.

    A pattern fits a layer by any of the names that lead there: those of a module that stands in several places, names
    without the parts that wrappers inside the network add, and, where it fits none of these, names with the parts that
    wrappers around it would add. A pattern that is a name means that layer alone.
    """
    first = {id(module): name for name, module in model.named_modules()}
    if pattern in first.values():
        return [pattern] if pattern else []
    other = {name: first[id(module)] for name, module in _every_name(model, "", frozenset())}
    fits = {other.get(name, name) for name in matching(pattern, other.keys() | first.values())}
    found = [name for name in first.values() if name and name in fits]
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
