"""Cuts: where a module comes apart into a prefix and a suffix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from math import prod

from torch import Tensor, fx, nn

from featdyn.errors import NetworkError
from featdyn.networks import cut_places
from featdyn.networks.extract import Part
from featdyn.networks.trace import trace
from featdyn.networks.twin import eval_twin
from featdyn.networks.value_shapes import ValueShapes, shapes_of


@dataclass(frozen=True)
class Cut:
    """A place where a single tensor separates a module into prefix and suffix.

    ``suffix(prefix(x))`` has the bits of ``module(x)`` in eval mode. Both share the module's parameters and buffers,
    and their state's keys are keys of the module's state.
    """

    name: str
    """The outermost module whose output the tensor is, else the operation's path; unique."""
    module: str | None
    """Path of the module whose forward hook gives the tensor, if there is one that runs once."""
    shape: tuple[int, ...]
    """Shape of the tensor for one sample."""
    prefix_macs: int
    """Multiply-adds (convolutions and matrix products) before the cut, for one sample."""
    suffix_macs: int
    prefix_params: int
    """Parameters that the prefix uses."""
    suffix_params: int
    _flow: ValueShapes = field(repr=False, compare=False)
    _node: fx.Node = field(repr=False, compare=False)

    @cached_property
    def prefix(self) -> fx.GraphModule:
        """From the module's input to the cut's tensor, in eval mode."""
        trace = self._flow.trace
        return trace.compile(Part(self._flow, trace.input, self._node).graph())

    @cached_property
    def suffix(self) -> fx.GraphModule:
        """From the cut's tensor to the module's output, in eval mode."""
        trace = self._flow.trace
        return trace.compile(Part(self._flow, self._node, trace.output.args[0]).graph())


def cuts(module: nn.Module, example: Tensor, *, every: bool = False) -> list[Cut]:
    """Find every place where a single tensor separates a module into prefix and suffix, in execution order.

    No skip edge crosses a cut. The input and the output themselves are left out. The module is left as it is. (Feature
    dynamics, sections 1.1 and 6.2 item 2; `DESIGN.md` says how cuts are found.)

    Parameters
    ----------
    module
        Any module of one tensor input that torch.fx can trace; it is cut as it runs in eval mode.
    example
        A batch of inputs, (N, ...); only its shape and type count. Cuts are for inputs of this shape, of any N.
    every
        Also list places that are as good as the next one: no multiply-add lies between, and they hold as many values.

    Raises
    ------
    NetworkError
        torch.fx cannot trace the module, or it does not take such an input.
    """
    if not isinstance(example, Tensor) or example.ndim < 1:
        raise TypeError(f"example must be a tensor with a batch dimension, not {getattr(example, 'shape', example)}")
    traced = shapes_of(trace(module), example)
    found = list(_separations(traced))
    if not every:  # of places that cost the same to run and to store, the last stands for all
        groups = [list(group) for _, group in groupby(found, key=lambda cut: (cut.prefix_macs, prod(cut.shape)))]
        found = [group[-1] for group in groups if group[0]._node is not traced.trace.input]
    ends = (traced.trace.input, traced.trace.output.args[0])
    return [cut for cut in found if cut._node not in ends]


def _separations(traced: ValueShapes) -> Iterator[Cut]:
    """Yield a cut for every node that separates, the input and the output among them."""
    names, modules = cut_places.names(traced), cut_places.modules(traced.trace)
    for node in cut_places.separating(traced):
        prefix, suffix = Part(traced, traced.trace.input, node), Part(traced, node, traced.trace.output.args[0])
        shape = traced.sample_shape(node)
        if shape is not None and suffix.complete:
            costs = (prefix.macs, suffix.macs, prefix.params, suffix.params)
            yield Cut(names[node], modules.get(node), shape, *costs, traced, node)


def features_at(module: nn.Module, cuts: Sequence[Cut]) -> fx.GraphModule:
    """Make a module that gives the tensors of several cuts, (N, *cut.shape) each, in their order, in one forward pass.

    ``module`` is the one that was cut, or another of the same structure (such as the same network at another
    checkpoint); the cuts are of one call of `cuts`. What is made runs in eval mode, only as far as the last cut, and
    shares the parameters and buffers of `module`.

    Raises
    ------
    NetworkError
        The cuts are of different modules, or `module` has another structure.
    """
    flows = {id(cut._flow): cut._flow for cut in cuts}
    if len(flows) != 1:
        raise NetworkError(f"features_at needs the cuts of one module, not of {len(flows)}")
    (traced,) = flows.values()
    graph = Part(traced, traced.trace.input, tuple(cut._node for cut in cuts)).graph()
    try:
        return traced.trace.compile(graph, eval_twin(module))
    except AttributeError as error:
        raise NetworkError(f"{type(module).__name__} is not the module that was cut: {error}") from error


def segments(cuts: Sequence[Cut]) -> list[fx.GraphModule]:
    """Make the pieces between neighbouring cuts: from the input to the first, from cut to cut, from the last on.

    The cuts are of one call of `cuts`, in its order. One after the other the pieces, one more than there are cuts, are
    the module in eval mode, with shared parameters.
    """
    if len({id(cut._flow) for cut in cuts}) != 1:
        raise NetworkError("segments needs the cuts of one module")
    traced = cuts[0]._flow
    starts = [traced.trace.input, *(cut._node for cut in cuts)]
    ends = [*(cut._node for cut in cuts), traced.trace.output.args[0]]
    return [traced.trace.compile(Part(traced, a, b).graph()) for a, b in zip(starts, ends, strict=True)]


def state_for(part: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select from the state of a whole module what a prefix or suffix needs, for `torch.func.functional_call`.

    Raises :class:`NetworkError` if the state lacks a tensor.
    """
    keys = part.state_dict().keys()
    if missing := [key for key in keys if key not in state]:
        raise NetworkError(f"the state lacks {missing[0]!r}" + f" and {len(missing) - 1} more" * (len(missing) > 1))
    return {key: state[key] for key in keys}
