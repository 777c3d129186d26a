"""Which layers to record: from patterns to module names and the shapes they give."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.follow import layer_shapes
from featdyn.capture.nest import Nest
from featdyn.capture.tap import LayerError
from featdyn.errors import NetworkError
from featdyn.networks import cuts, default_cuts
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
) -> dict[str, tuple[int, ...]]:
    """Return the layers that match, with the shape of one sample's output, in the order in which they run.

    Each layer is tried out on ``inputs`` and ``labels``, a few samples: see
    :func:`featdyn.capture.follow.layer_shapes`. Patterns are module names, also with ``*`` (within a part of the name)
    and ``**`` (across dots); ``all`` stands for every cut of the network and ``default`` for its default cuts, where
    modules return them. Where there are none, both stand for its direct children. Of these two what cannot be recorded
    is left out. Raises :class:`NetworkError` where a pattern matches nothing, or a layer cannot be recorded.
    """
    modules = [name for name, _ in model.named_modules() if name]
    outer = ", ".join([name for name in modules if "." not in name][:20]) or "no modules"
    chosen: dict[str, bool] = {}  # name -> whether it was asked for
    for pattern in patterns:
        if pattern in ("default", "all"):
            chosen = {**dict.fromkeys(_cut_layers(model, inputs, pattern), False), **chosen}
            continue
        found = matching(pattern, modules)
        if not found:
            raise NetworkError(f"no layer {pattern!r}; the network has {outer} and modules inside them")
        chosen |= dict.fromkeys(found, True)
    while chosen:
        try:
            return layer_shapes(model, inputs, labels, list(chosen), gradients=gradients, call=call)
        except LayerError as error:
            if chosen.pop(error.layer):
                raise
    raise NetworkError(f"no layer to record: name some in layers=; the network has {outer} and modules inside them")


def _cut_layers(model: nn.Module, inputs: Nest, pattern: str) -> list[str]:
    try:
        if not isinstance(inputs, Tensor):
            raise NetworkError("several inputs")
        found = cuts(model, inputs[:1])
    except NetworkError:
        found = []
    wanted = set(default_cuts(found)) if pattern == "default" else {cut.name for cut in found}
    hooked = [cut.module for cut in found if cut.name in wanted and cut.module]
    return hooked or [name for name, child in model.named_children() if any(True for _ in child.parameters())]


def dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return axis names for one sample's output: features, tokens x features, or channels x height x width."""
    known = {1: ("feature",), 2: ("token", "feature"), 3: ("channel", "height", "width")}
    return known.get(len(shape)) or tuple(f"axis{i}" for i in range(len(shape)))
