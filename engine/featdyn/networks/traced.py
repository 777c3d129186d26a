"""Taking a module apart by its graph of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx, nn

from featdyn.networks import cut_places
from featdyn.networks.cut import INPUT, OUTPUT, Cut
from featdyn.networks.extract import Part
from featdyn.networks.trace import Trace
from featdyn.networks.twin import eval_twin
from featdyn.networks.value_shapes import shapes_of


class Traced:
    """A module taken apart by a graph, whose places are the graph's nodes.

    Raises :class:`NetworkError` where the graph does not take an input like ``example``.
    """

    traced = True

    def __init__(self, trace: Trace, example: Tensor, method: str) -> None:
        self.method, self._flow = method, shapes_of(trace, example)

    def cuts(self) -> Iterator[Cut]:
        """Yield a cut for every node that separates, the input and the output among them."""
        flow, trace = self._flow, self._flow.trace
        names, modules = cut_places.names(flow), cut_places.modules(trace)
        ends = {trace.input: INPUT, trace.output.args[0]: OUTPUT}
        for node in cut_places.separating(flow):
            prefix, suffix = Part(flow, trace.input, node), Part(flow, node, trace.output.args[0])
            shape = flow.sample_shape(node)
            if shape is not None and suffix.complete:
                costs = (prefix.macs, suffix.macs, prefix.params, suffix.params)
                module = modules.get(node)
                hook = None if module in trace.wrapped else module
                inner = (path for path, returned in trace.returned.items() if returned is node and path != names[node])
                also = tuple(path for path in inner if path not in trace.wrapped)
                yield Cut(names[node], hook, shape, *costs, self, ends.get(node, node), also)

    def part(self, source: Any, result: Any, module: nn.Module | None = None) -> fx.GraphModule:
        """Make what leads from a node to others: see :class:`featdyn.networks.cut.Way`."""
        trace = self._flow.trace
        ends: dict[Any, Any] = {INPUT: trace.input, OUTPUT: trace.output.args[0]}
        graph = Part(self._flow, ends.get(source, source), ends.get(result, result)).graph()
        return trace.compile(graph, None if module is None else eval_twin(module))

    def handed(self, features: Tensor, inputs: Callable[[], Tensor]) -> Tensor:
        """Return the features: nothing else crosses a cut."""
        return features
