"""Which layers to record: from patterns to module names and the shapes they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

from torch import Tensor, nn

from featdyn.capture.axis import Axis, Pool
from featdyn.capture.call import Call
from featdyn.capture.channels import channels_first
from featdyn.capture.follow import layer_shapes
from featdyn.capture.handed_on import HandedOn
from featdyn.capture.layout import Layout, layout
from featdyn.capture.nest import Nest
from featdyn.capture.one_tensor import packed
from featdyn.capture.tap import IdleError, LayerError
from featdyn.errors import NetworkError
from featdyn.networks import Cut, Taps, asked_layers, cuts, default_cuts, module_cuts, named_layers, plain_names
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
    handed_on: HandedOn | None = None,
    axes: Mapping[str, Axis] | None = None,
    pool: Pool = "none",
    mask: Callable[[str | None], Tensor | None] = lambda key: None,
) -> tuple[dict[str, Layout], Taps | None]:
    """Return the layers that match and how each is recorded, in the order in which they run; and taps.

    Taps are of those layers that are cuts and that no module returns as one tensor; None where there are none. Each
    layer is tried out on ``inputs`` and ``labels``, a few samples: see :func:`featdyn.capture.follow.layer_shapes`.
    Patterns are module names (see :func:`featdyn.networks.asked_layers`), also with ``*`` (within a part of the name)
    and ``**`` (across dots), or names of cuts, such as a pooled vector; ``all`` stands for every cut of the network and
    ``default`` for its default cuts. Where there are none, both stand for its direct children. Of these two what cannot
    be recorded is left out, and of a pattern with ``*``, ``?`` or ``[`` what does not run. Raises :class:`NetworkError`
    where a pattern matches nothing that runs, or a layer cannot be recorded. With ``modules_only`` cuts that have no
    module are left out: several ranks share buffers by modules. ``axes`` are of patterns, the last that fits a layer
    counts, and where they name no positions those of convolutions of sequences, their norms and pools are the last
    axis; ``handed_on`` learns into which layers later steps write; ``pool`` is of layers whose axis does not say
    another, ``mask`` gives that of the probes, or that which an axis names.
    """
    modules = list(named_layers(model))
    outer = ", ".join([name for name in modules if "." not in name][:20])
    has = f"the network has {outer} and modules inside them" if outer else "the network has no modules inside it"
    every: dict[str, Cut] | None = None  # to find them may take seconds
    chosen: dict[str, bool] = {}  # name -> whether it was asked for
    turned: dict[str, Axis] = {}
    by_pattern: dict[str, list[str]] = {}
    named: set[str] = set()
    for pattern in patterns:
        found = [] if pattern in ("default", "all") else asked_layers(model, pattern)
        if not found and every is None:
            every = {cut.name: cut for cut in _cuts(model, inputs, call) if cut.module or not modules_only}
        known = every or {}
        if pattern in ("default", "all"):
            wanted = default_cuts([*known.values()]) if pattern == "default" else list(known)
            inside = dict(model.named_children())  # a quantized one keeps its weights elsewhere
            children = [name for name, child in inside.items() if any(True for _ in child.parameters())] or [*inside]
            chosen = {**dict.fromkeys(wanted or children, False), **chosen}
            turned |= dict.fromkeys(wanted or children, (axes or {}).get(pattern, Axis()))
            continue
        found = found or matching(pattern, known)
        if not found:
            raise NetworkError(f"no layer {pattern!r}; {has}")
        if pattern not in modules and not {"*", "?", "["}.isdisjoint(pattern):
            by_pattern[pattern] = found
        else:
            named.update(found)
        chosen |= dict.fromkeys(found, True)
        turned |= dict.fromkeys(found, (axes or {}).get(pattern, Axis()))
    why, picked = "", set[str]()
    while chosen:
        try:
            tapped = [cut for cut in (every or {}).values() if cut.name in chosen and not cut.module]
            taps = Taps(tapped) if tapped else None
            places = {name: turned[name].output for name, asked in chosen.items() if asked or turned[name].output}
            several = {name: None if place is None else str(place) for name, place in places.items()}
            shapes = layer_shapes(
                model, inputs, labels, list(chosen), gradients=gradients, call=call, taps=taps, axes=turned,
                handed_on=handed_on, outputs=several,
            )  # fmt: skip
            picked |= {name for name, place in several.items() if place is not None and turned[name].output is None}
            turned |= {name: replace(turned[name], output=several[name]) for name in picked & shapes.keys()}
            plain = {n: s for n, s in shapes.items() if turned[n].sample == 0 and turned[n].position is None}
            first = channels_first(model, inputs, call, plain, [*(every or {}).values()])
            for name in (name for name, known in first.items() if known):
                turned[name], shapes[name] = replace(turned[name], position=2), shapes[name][::-1]
            order = [name for name in every or () if name in shapes]
            names = order if len(order) == len(shapes) else shapes
            turned |= {name: _of_encoder(name, turned[name], inputs) for name in names}
            masks = {name: mask(turned[name].mask) for name in names}
            laid = {
                name: layout(name, shapes[name], turned[name], pool, None if own is None else own.shape[1])
                for name, own in masks.items()
            }
            return {
                n: replace(one, unsure=n in first and first[n] is None, picked=n in picked) for n, one in laid.items()
            }, taps
        except IdleError as error:
            if literal := [name for name in error.layers if name in named]:
                raise IdleError(literal) from None
            chosen = {name: asked for name, asked in chosen.items() if name not in error.layers}
            for pattern, fitting in by_pattern.items():
                if chosen.keys().isdisjoint(fitting):
                    raise NetworkError(f"no layer that {pattern!r} fits runs in a forward pass; {has}") from None
            why = f" ({error})"
        except LayerError as error:
            if chosen.pop(error.layer):
                raise
            why = f" ({error})"
    raise NetworkError(f"no layer to record{why}: name some in layers=; {has}")


def _of_encoder(name: str, axis: Axis, inputs: Nest) -> Axis:
    """Return the axis of a layer with the encoder's own mask, where it is one of an encoder beside a decoder."""
    given = inputs if isinstance(inputs, dict) else {}
    own = "encoder" in name.split(".") and {"attention_mask", "decoder_input_ids"} <= given.keys()
    return replace(axis, mask="attention_mask") if own and axis.mask is None else axis


def taps_again(model: nn.Module, inputs: Nest, taps: Taps, call: Call) -> Taps:
    """Return the same taps of a network that was changed since; LayerError where it has them no more."""
    found = {cut.name: cut for cut in _cuts(model, inputs, call)}
    for cut in taps.cuts:
        if found.get(cut.name, cut).shape != cut.shape or cut.name not in found:
            raise LayerError(f"layer {cut.name} is no cut of the network any more, which was changed", cut.name)
    return Taps([found[cut.name] for cut in taps.cuts])


def _cuts(model: nn.Module, inputs: Nest, call: Call) -> list[Cut]:
    """Return the cuts of a model, by the names of its layers; none where it does not come apart."""
    plain = plain_names(model)
    found = _separating(model, inputs, call)
    return [replace(c, name=plain.get(c.name, c.name), module=plain.get(c.module or "", c.module)) for c in found]


def _separating(model: nn.Module, inputs: Nest, call: Call) -> list[Cut]:
    """Return the cuts of a model.

    Of one that does not take one tensor by itself those that a module returns, since taps give a network one tensor,
    or in their place others of the same cost.
    """
    try:
        if isinstance(inputs, Tensor) and call.forward is None:
            return cuts(model, inputs)
        asked = packed(model, inputs, call)
        quick = module_cuts(*asked)  # to trace such a network took seconds, and gave what mostly no module returns
        if quick:
            return quick
        found = cuts(*asked)
        every = cuts(*asked, every=True) if not all(cut.module for cut in found) else []
        same = {(cut.prefix_macs, prod(cut.shape)): cut for cut in every if cut.module}
        named = (cut if cut.module else same.get((cut.prefix_macs, prod(cut.shape))) for cut in found)
        return [cut for cut in named if cut]
    except NetworkError:
        return []


def dims(shape: tuple[int, ...], *, positions: bool | None = None) -> tuple[str, ...]:
    """Return axis names for one sample's output: features, positions x features, or channels x height x width.

    Where it is known whether the first axis is that of ``positions``, it is named so or not, whatever follows.
    """
    known = {1: ("feature",), 2: ("position", "feature"), 3: ("channel", "height", "width")}
    numbered = tuple(f"axis{i}" for i in range(len(shape)))
    if positions is None or (positions and len(shape) == 2) or (not positions and len(shape) == 1):
        return known.get(len(shape), numbered)
    return ("position", *numbered[1:]) if positions else numbered
