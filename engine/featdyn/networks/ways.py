"""Which way a module is taken apart: torch.fx; torch.export where that cannot trace it; forward hooks where neither."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from featdyn.networks.cut import INPUT, OUTPUT, Cut, distinct, segments
from featdyn.networks.exported import export
from featdyn.networks.hooked import Hooked
from featdyn.networks.hooked_part import one_tensor
from featdyn.networks.rows import rows
from featdyn.networks.skeleton import is_skeleton
from featdyn.networks.trace import CannotCut, trace
from featdyn.networks.traced import Traced
from featdyn.networks.twin import eval_twin

WIDE = 2 / 3
"""Share of the multiply-adds without a cut above which another way is asked whether it finds some: our own choice."""


def cuts(module: nn.Module, example: Tensor, *, every: bool = False) -> list[Cut]:
    """Find every place where a single tensor separates a module into prefix and suffix, in execution order.

    No skip edge crosses a cut. The input and the output themselves are left out. The module is left as it is. (Feature
    dynamics, sections 1.1 and 6.2 item 2; `DESIGN.md` says how cuts are found.) All are of one way, that of the first
    which leaves no wide piece whole, or else of that which leaves the least: :attr:`Cut.method` says which.

    Parameters
    ----------
    module
        Any module of one tensor input and one tensor output; it is cut as it runs in eval mode.
    example
        A batch of inputs, (N, ...); where torch.fx traces the module only its shape and type count. Cuts are for
        inputs of this shape, of any N.
    every
        Also list places that are as good as the next one: no multiply-add lies between, and they hold as many values.

    Raises
    ------
    NetworkError
        The module comes apart in no way, or does not take such an input.
    """
    return next(ways(module, example, every=every), [])


def module_cuts(module: nn.Module, example: Tensor) -> list[Cut]:
    """Return the cuts that modules return, found by forward hooks alone: in tenths of a second, without a graph.

    None where these leave a wide piece whole, which another way of :func:`cuts` may take apart.
    """
    try:
        found = distinct(list(_by_hooks(module, example, False)), False)
    except CannotCut:
        return []
    return [] if _coarse(module, found) else found


def ways(module: nn.Module, example: Tensor, *, every: bool = False) -> Iterator[list[Cut]]:
    """Yield what each way finds, if it finds any cuts, the fastest way first; each is tried when it is asked for.

    Parameters and errors are those of :func:`cuts`.
    """
    if not isinstance(example, Tensor) or example.ndim < 1:
        raise TypeError(f"example must be a tensor with a batch dimension, not {getattr(example, 'shape', example)}")
    reasons: dict[str, str] = {}
    coarse: list[list[Cut]] = []
    every_way = {"torch.fx": _by_fx, "torch.export": _by_export, "forward hooks": _by_hooks}
    possible = {"torch.fx": _by_fx} if is_skeleton(module) else every_way  # others run the module
    for name, way in possible.items():
        try:
            found = distinct(list(way(module, example, every)), every)
        except CannotCut as error:
            reasons[name] = error.why
            continue
        if (name == "torch.export" or (name == "torch.fx" and _opaque(module))) and _coarse(module, found):
            coarse.append(found)
            continue
        if coarse and _widest(found)[0] >= min(_widest(other)[0] for other in coarse):
            break
        if found:
            yield found
        elif name == "torch.fx":
            return
        else:
            reasons[name] = "no submodule returns a tensor that separates it"
    yield from (found for found in sorted(coarse, key=lambda found: _widest(found)[0]) if found)
    if len(reasons) < len(possible):
        return
    why = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    if is_skeleton(module):
        why = f"its weights do not fit into memory, and without them only torch.fx takes it apart ({why})"
    raise CannotCut(module, why)


def _coarse(module: nn.Module, found: list[Cut]) -> bool:
    """Whether a wide piece without a cut holds several layers, which another way may tell apart.

    Such as a mask that passes beside much of a network, which hooks can give to both halves.
    """
    share, place = _widest(found)
    piece = segments(found)[place] if found and share > WIDE else module
    return share > WIDE and sum(parameter.ndim > 1 for parameter in piece.parameters()) > 1


def _opaque(module: nn.Module) -> bool:
    """Whether there is a module of torch.nn with layers inside, which is one operation to torch.fx."""
    own = (
        m for m in module.modules() if type(m).__module__.startswith("torch.nn.modules") and type(m) is not nn.Module
    )
    whole = (m for m in own if not isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)))
    return any(sum(isinstance(inner, nn.Linear) for inner in m.modules()) > 1 for m in whole)


def _widest(found: list[Cut]) -> tuple[float, int]:
    """Return the largest share of multiply-adds in one piece, the first before the first cut, and which it is."""
    behind = [1.0, *(cut.suffix_macs / max(1, cut.prefix_macs + cut.suffix_macs) for cut in found), 0.0]
    return max((one - other, place) for place, (one, other) in enumerate(pairwise(behind)))


def _by_fx(module: nn.Module, example: Tensor, every: bool) -> Iterator[Cut]:
    return Traced(trace(module), example, "torch.fx").cuts()


def _by_export(module: nn.Module, example: Tensor, every: bool) -> Iterator[Cut]:
    _refuse_loose(module)
    traced = Traced(export(module, example), example, "torch.export")
    inputs = rows(example)
    with torch.no_grad():
        one, other = one_tensor(eval_twin(module)(inputs.clone())), traced.part(INPUT, OUTPUT)(inputs)
    if one is None or not torch.equal(one, other):  # a graph of other inputs, whose values control flow depends on
        raise CannotCut(module, "its graph has not the bits of the module")
    return traced.cuts()


def _by_hooks(module: nn.Module, example: Tensor, every: bool) -> Iterator[Cut]:
    _refuse_loose(module)
    return Hooked(module, example).cuts(every)


def _refuse_loose(module: nn.Module) -> None:
    """Refuse a module that holds parameters which are not its own by name: no checkpoint has them."""
    found: dict[int, Tensor] = {}
    eval_twin(module, lambda tensor: found.setdefault(id(tensor), tensor))
    own = {id(parameter) for parameter in module.parameters()}
    if any(isinstance(tensor, nn.Parameter) and key not in own for key, tensor in found.items()):
        raise CannotCut(module, "it holds parameters that are not registered, such as those of modules in a list")
