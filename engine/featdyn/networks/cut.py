"""Cuts: where a module comes apart into a prefix and a suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from math import prod
from typing import Any, Protocol

from torch import Tensor, nn

from featdyn.errors import NetworkError

INPUT, OUTPUT = "input", "output"
"""The two ends of a module, which are places too."""


class Way(Protocol):
    """How one module is taken apart; a place in it is whatever the way knows a tensor by."""

    method: str
    """In words, for reports."""
    traced: bool
    """Whether all that the module does was seen, so that nothing can pass beside a cut that separates."""

    def part(self, source: Any, result: Any, module: nn.Module | None = None) -> nn.Module:
        """Make what leads from a place to another, or to a tuple of them, with the tensors of another module if given.

        It runs in eval mode and shares parameters and buffers. ``AttributeError`` where the module has another
        structure.
        """

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        """Return what a part takes that begins at a cut; what begins at the input takes the inputs."""


@dataclass(frozen=True)
class Cut:
    """A place where a single tensor separates a module into prefix and suffix.

    ``suffix(handed(prefix(x), lambda: x))`` has the bits of ``module(x)`` in eval mode. Both share the module's
    parameters and buffers, and their state's keys are keys of the module's state.
    """

    name: str
    """The outermost module whose output the tensor is, else the operation's path; unique."""
    module: str | None
    """Path of the module whose forward hook gives the tensor and nothing else, if there is one that runs once."""
    shape: tuple[int, ...]
    """Shape of the tensor for one sample."""
    prefix_macs: int
    """Multiply-adds (convolutions and matrix products) before the cut, for one sample."""
    suffix_macs: int
    prefix_params: int
    """Parameters that the prefix uses."""
    suffix_params: int
    _way: Way = field(repr=False, compare=False)
    _place: Any = field(repr=False, compare=False)
    also: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Paths of inner modules that return the same tensor: each names the cut, too."""

    @property
    def method(self) -> str:
        """Which way the module was taken apart, in words."""
        return self._way.method

    @property
    def traced(self) -> bool:
        """Whether all that the module does was seen when it was taken apart, also for inputs that were not there."""
        return self._way.traced

    @cached_property
    def prefix(self) -> nn.Module:
        """From the module's input to the cut's tensor, in eval mode."""
        return self._way.part(INPUT, self._place)

    @cached_property
    def suffix(self) -> nn.Module:
        """From what is handed over at the cut to the module's output, in eval mode."""
        return self._way.part(self._place, OUTPUT)

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        """Return what the suffix takes, ``(N, ...)``, from the cut's tensor and the module's inputs, row by row.

        That is the cut's tensor itself, but where the module is taken apart by hooks: there the inputs lie beside it,
        which are asked for only then.
        """
        return self._way.handed(features, inputs)


def distinct(found: Sequence[Cut], every: bool) -> list[Cut]:
    """Leave the ends out and, unless ``every`` is wanted, let the last stand for places that cost the same.

    No multiply-add lies between those, and they hold as many values: it is the same to run or to store them.
    """
    if not every:
        groups = [list(group) for _, group in groupby(found, key=lambda cut: (cut.prefix_macs, prod(cut.shape)))]
        found = [group[-1] for group in groups if group[0]._place is not INPUT]
    return [cut for cut in found if cut._place not in (INPUT, OUTPUT)]


def features_at(module: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """Make a module that gives the tensors of several cuts, (N, *cut.shape) each, in their order, in one forward pass.

    ``module`` is the one that was cut, or another of the same structure (such as the same network at another
    checkpoint); the cuts are of one call of `cuts`. What is made runs in eval mode, only as far as the last cut, and
    shares the parameters and buffers of `module`.

    Raises
    ------
    NetworkError
        The cuts are of different modules, or `module` has another structure.
    """
    ways = {id(cut._way): cut._way for cut in cuts}
    if len(ways) != 1:
        raise NetworkError(f"features_at needs the cuts of one module, not of {len(ways)}")
    (way,) = ways.values()
    try:
        return way.part(INPUT, tuple(cut._place for cut in cuts), module)
    except AttributeError as error:
        raise NetworkError(f"{type(module).__name__} is not the module that was cut: {error}") from error


def segments(cuts: Sequence[Cut]) -> list[nn.Module]:
    """Make the pieces between neighbouring cuts: from the input to the first, from cut to cut, from the last on.

    The cuts are of one call of `cuts`, in its order. One after the other the pieces, one more than there are cuts, are
    the module in eval mode, with shared parameters; between them what a cut gives is `handed` over.
    """
    if len({id(cut._way) for cut in cuts}) != 1:
        raise NetworkError("segments needs the cuts of one module")
    places = [INPUT, *(cut._place for cut in cuts), OUTPUT]
    return [cuts[0]._way.part(start, end) for start, end in pairwise(places)]


def state_for(part: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select from the state of a whole module what a prefix or suffix needs, for `torch.func.functional_call`.

    Raises :class:`NetworkError` if the state lacks a tensor.
    """
    keys = part.state_dict().keys()
    if missing := [key for key in keys if key not in state]:
        raise NetworkError(f"the state lacks {missing[0]!r}" + f" and {len(missing) - 1} more" * (len(missing) > 1))
    return {key: state[key] for key in keys}
