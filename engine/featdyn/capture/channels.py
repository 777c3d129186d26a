"""Which layers give channels before positions, as the convolutions of sequences do, and what follows these.

Nothing in a tensor ``(sample, a, b)`` says which axis is which. Modules of known kinds say it of what they return;
what keeps their shape (an activation, a sum, a part of a function) has it from the last of them that ran. Where that
does not tell, as of functions that may have turned a square map, the second axis is taken for positions, and it is said
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.nest import Nest, mapped
from featdyn.capture.undisturbed import undisturbed
from featdyn.networks import Cut, named_layers

FIRST = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.modules.pooling._MaxPoolNd, nn.GroupNorm,
    nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
)  # fmt: skip
LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
_EACH_VALUE = (nn.modules.activation.__name__, nn.modules.dropout.__name__)

Shape: TypeAlias = tuple[int, ...]
Ran: TypeAlias = list[tuple[str, nn.Module, Shape, bool]]
"""Modules as they ran: what each gives for one sample, and whether it is given, or gives, what the last one gave."""


def channels_first(
    model: nn.Module, inputs: Nest, call: Call, layers: Mapping[str, Shape], cuts: Sequence[Cut]
) -> dict[str, bool | None]:
    """Return whether layers are ``(sample, channel, position)``, given what one sample has at each; None if unknown.

    Only of those with two such axes, and where a network has convolutions of sequences. A cut that no module returns
    has it from what ran before.
    """
    names = [name for name, shape in layers.items() if len(shape) == 2]
    if not names or not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in model.modules()):
        return {}
    ran = _ran(model, inputs, call)
    places = {name: place for place, (name, *_) in enumerate(ran)}
    for cut in (cut for cut in cuts if cut.name in names and cut.name not in places):  # behind its prefix's last layer
        used = {key.rpartition(".")[0] for key in cut.prefix.state_dict()}
        places[cut.name] = max((place for name, place in places.items() if name in used), default=-1)
    return {name: _told(ran[: places.get(name, -1) + 1], layers[name]) for name in names}


def _ran(model: nn.Module, inputs: Nest, call: Call) -> Ran:
    """Return the modules that give a tensor."""
    found: Ran = []
    last: list[Tensor] = []
    with ExitStack() as hooks, undisturbed(model), torch.no_grad():
        for name, module in named_layers(model).items():

            def seen(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
                first = output[0] if isinstance(output, tuple) and output else output
                if isinstance(first, Tensor):
                    follows = bool(last) and (first is last[0] or (bool(given) and given[0] is last[0]))
                    found.append((name, module, tuple(first.shape[1:]), follows))
                    last[:] = [first]

            hooks.enter_context(module.register_forward_hook(seen))
        call(model, mapped(Tensor.clone, inputs))
    return found


def _told(ran: Ran, shape: Shape) -> bool | None:
    """Whether a map of this shape, behind these modules, has its channels first; None where they do not tell."""
    straight = bool(ran) and ran[-1][2] == shape  # nothing but modules that keep the axes
    for _, module, given, follows in reversed(ran):
        square = shape[0] == shape[1] or given[0] in given[1:]
        if isinstance(module, LAST):
            return False if straight or (given[-1:] == shape[1:] and not square) else None
        if isinstance(module, FIRST):
            return True if straight or (given[0] == shape[0] and not square) else None  # a function may have pooled
        each = type(module).__module__ in _EACH_VALUE or isinstance(module, nn.Sequential)
        straight = straight and each and follows
        if given == shape and not each and any(True for _ in module.parameters(recurse=False)):
            return None  # it makes something of its own
    return None
