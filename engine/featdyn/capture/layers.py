"""Which layers to record: from patterns to module names and the shapes they give."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.follow import layer_shapes
from featdyn.capture.nest import Nest
from featdyn.capture.tap import LayerError
from featdyn.errors import NetworkError
from featdyn.networks import Cut, Taps, cuts, default_cuts
from featdyn.networks.layer_patterns import matching

_PLAIN = Call()


def select(
    model: nn.Module,
    inputs: Nest,
    labels: Nest,
    patterns: Sequence[str],
    *,
    gradients: bool = False,
    call: Call = _PLAIN,
    modules_only: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Return the layers that match, with the shape of one sample's output, in the order in which they run.

    Each layer is tried out on ``inputs`` and ``labels``, a few samples: see
    :func:`featdyn.capture.follow.layer_shapes`. Patterns are module names, also with ``*`` (within a part of the name)
    and ``**`` (across dots), or names of cuts that no module returns, such as a pooled vector; ``all`` stands for every
    cut of the network and ``default`` for its default cuts. Where there are none, both stand for its direct children.
    Of these two what cannot be recorded is left out. Raises :class:`NetworkError` where a pattern matches nothing, or a
    layer cannot be recorded. With ``modules_only`` other cuts are left out: several ranks share buffers by modules.
    """
    modules = [name for name, _ in model.named_modules() if name]
    outer = ", ".join([name for name in modules if "." not in name][:20]) or "no modules"
    every = [cut for cut in _cuts(model, inputs, call) if not modules_only or cut.name in modules]
    chosen: dict[str, bool] = {}  # name -> whether it was asked for
    for pattern in patterns:
        if pattern in ("default", "all"):
            wanted = default_cuts(every) if pattern == "default" else [cut.name for cut in every]
            children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
            chosen = {**dict.fromkeys(wanted or children, False), **chosen}
            continue
        found = matching(pattern, modules) or matching(pattern, [cut.name for cut in every])
        if not found:
            raise NetworkError(f"no layer {pattern!r}; the network has {outer} and modules inside them")
        chosen |= dict.fromkeys(found, True)
    while chosen:
        try:
            tapped = taps_of(model, inputs, list(chosen), every)
            shapes = layer_shapes(model, inputs, labels, list(chosen), gradients=gradients, call=call, taps=tapped)
            order = [cut.name for cut in every if cut.name in shapes]
            return {name: shapes[name] for name in order} if len(order) == len(shapes) else shapes
        except LayerError as error:
            if chosen.pop(error.layer):
                raise
    raise NetworkError(f"no layer to record: name some in layers=; the network has {outer} and modules inside them")


def taps_of(model: nn.Module, inputs: Nest, names: Sequence[str], every: Sequence[Cut] = ()) -> Taps | None:
    """Return taps for those names that are of cuts and of no module; None where there are none."""
    modules = {name for name, _ in model.named_modules()}
    if modules.issuperset(names):
        return None
    return Taps([cut for cut in every or _cuts(model, inputs) if cut.name in names and cut.name not in modules])


def _cuts(model: nn.Module, inputs: Nest, call: Call = _PLAIN) -> list[Cut]:
    """Return the cuts of a model that takes one tensor; none where it does not come apart."""
    if not isinstance(inputs, Tensor) or call.forward is not None:
        return []
    try:
        return cuts(model, inputs)
    except NetworkError:
        return []


def dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return axis names for one sample's output: features, tokens x features, or channels x height x width."""
    known = {1: ("feature",), 2: ("token", "feature"), 3: ("channel", "height", "width")}
    return known.get(len(shape)) or tuple(f"axis{i}" for i in range(len(shape)))
