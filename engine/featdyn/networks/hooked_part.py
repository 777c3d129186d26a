"""A module that begins or ends within: submodules that hand over their output, or return what was handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from featdyn.errors import NetworkError
from featdyn.networks.twin import eval_twin


@dataclass(frozen=True)
class Layout:
    """Where a part begins and ends."""

    source: str | None  # path of the submodule whose output is handed over; None: the input
    results: tuple[str, ...] | None  # paths of submodules whose outputs are wanted; None: the module's own
    several: bool  # whether they are wanted as a tuple
    shape: tuple[int, ...]  # of one sample of what is handed over
    plain: bool  # whether that submodule returns nothing else
    inputs: tuple[int, ...]  # of one sample of the module's inputs
    dtype: torch.dtype  # of those
    state: frozenset[str]  # names of parameters and buffers that are those of a checkpoint
    used: frozenset[str]  # of those that count as the part's own
    over: frozenset[str]  # paths of submodules that have run before


def one_tensor(output: Any) -> Tensor | None:
    """Return the only tensor that an output is or holds; None where there are none or several."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return leaves[0] if len(leaves) == 1 else None


def hooked_part(module: nn.Module, layout: Layout) -> nn.Module:
    """Make a part of a module, which shares its tensors and is in eval mode."""
    twin = eval_twin(module)
    for path in layout.results or ():
        _become(twin.get_submodule(path), _Keeps, {})
    if layout.source is not None:
        _become(twin.get_submodule(layout.source), _Returns, {"_plain": layout.plain})
    _become(twin, _Begins, {"_layout": layout, "_forward": vars(twin).pop("forward", None)})
    return twin


def _become(module: nn.Module, kind: type[nn.Module], own: dict[str, Any]) -> None:
    """Add to the class of one module, whose copies then have it too."""
    module.__class__ = type(f"{kind.__name__}{type(module).__name__}", (kind, type(module)), {})
    vars(module).update(own)


class _Reached(BaseException):
    """Nothing more needs to run."""


class _Keeps(nn.Module):
    """Keeps what it returns."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__call__(*args, **kwargs)
        kept = one_tensor(output)
        if vars(self)["_last"]:
            vars(self)["_kept"].append(kept)
            raise _Reached
        vars(self)["_kept"].append(None if kept is None else kept.clone())  # what follows may write into it
        return output


class _Returns(nn.Module):
    """Returns what was handed over, as the only tensor of its output."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given: list[Tensor] = vars(self)["_given"]
        features = given.pop()
        if vars(self)["_plain"]:
            return features
        return tree_map_only(Tensor, lambda _: features, super().__call__(*args, **kwargs))


class _Begins(nn.Module):
    """Takes what is handed over at a cut, and counts as its own only what is used behind it."""

    _layout: Layout

    def forward(self, given: Tensor) -> Any:
        if not isinstance(given, Tensor):
            raise TypeError(f"a part takes a tensor, not {type(given).__name__}")  # torch.fx would trace too little
        # Copies, as what follows may write into them, and others have what was given too.
        layout, inputs, handed = self._layout, given.clone(), list[Tensor]()
        if layout.source is not None:
            halves = torch.split(given, [prod(layout.shape), prod(layout.inputs)], dim=1)
            features, inputs = (half.clone(memory_format=torch.contiguous_format) for half in halves)
            kind = next((p.dtype for p in nn.Module.parameters(self) if p.is_floating_point()), given.dtype)
            handed = [features.reshape(-1, *layout.shape).to(kind)]
            inputs = inputs.reshape(-1, *layout.inputs).to(kind if layout.dtype.is_floating_point else layout.dtype)
            vars(self.get_submodule(layout.source))["_given"] = handed
        kept = [vars(self.get_submodule(path)) for path in layout.results or ()]
        for place, own in enumerate(kept):
            own["_kept"], own["_last"] = [], place == len(kept) - 1
        forward = vars(self)["_forward"] or super().forward
        try:
            output = forward(inputs)
        except _Reached:
            output = None
        if handed or any(not own["_kept"] for own in kept):
            raise NetworkError(f"{layout.source or ', '.join(layout.results or ())} does not run on these inputs")
        if layout.results is None:
            return one_tensor(output)
        found = tuple(own["_kept"].pop() for own in kept)
        return found if layout.several else found[0]

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        prefix = args[1] if len(args) > 1 else kwargs.get("prefix", "")
        for name, module in super().named_modules(*args, **kwargs):
            if name == prefix or name[len(prefix) :].lstrip(".") not in self._layout.over:
                yield name, module

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in super().named_parameters(*args, **kwargs) if name in self._layout.used)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {name: t for name, t in super().state_dict(*args, **kwargs).items() if name in self._layout.state}
