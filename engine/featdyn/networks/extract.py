"""Parts of a traced graph: from one node to others, as a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter, mul
from typing import Any

import torch
from torch import fx, nn

from featdyn.networks.value_shapes import BATCHES, TensorOf, ValueShapes


class Part:
    """What has to run to get from the tensor of one node, ``source``, to those of others, the nodes in ``result``.

    A value that depends on the input only through its sizes (a batch size, a position table) is no second tensor to
    hand over: it is computed again, from the size of the source where it follows the batch and as a constant elsewhere.
    """

    def __init__(self, flow: ValueShapes, source: fx.Node, result: Any) -> None:
        self.flow, self.source, self.result = flow, source, result
        self.remade: set[fx.Node] = set()
        self.complete = True
        """Whether the source's tensor is enough to compute the result."""
        self.nodes = self._needed()

    def _needed(self) -> list[fx.Node]:
        order = list(self.flow.trace.graph.nodes)
        direct = {self.source}  # what can be computed from the source with nothing remade
        for node in order:
            if node.op != "placeholder" and all(argument in direct for argument in node.all_input_nodes):
                direct.add(node)
        scratch = fx.Graph().placeholder("x")
        needed = {self.source}
        stack: list[fx.Node] = []
        fx.node.map_arg(self.result, stack.append)
        while stack:
            node = stack.pop()
            if node in needed:
                continue
            needed.add(node)
            if node not in direct and not self.flow.holds_tensor(node):
                self.complete &= self._remake(node, scratch) is not None
                self.remade.add(node)
            elif node.op == "placeholder":
                self.complete = False
            else:
                stack += node.all_input_nodes
        return [node for node in order if node in needed and node is not self.source]

    def _remake(self, node: fx.Node, source: fx.Node) -> Any:
        """Give a size anew from a copy of the source, or None where that cannot be."""
        two, three = (values[node] for values in self.flow.values)
        return _merge(two, three, source)

    @property
    def macs(self) -> int:
        """Multiply-adds for one sample."""
        return sum(self.flow.macs[node] for node in self.nodes)

    @property
    def params(self) -> int:
        """Number of parameters that are used."""
        used = {p for node in self.nodes for p in _parameters(self.flow.trace.module, node)}  # tensors hash by identity
        return sum(parameter.numel() for parameter in used)

    def graph(self) -> fx.Graph:
        """Copy the part into a graph of its own, whose only input is the source."""
        new = fx.Graph()
        copies = {self.source: new.placeholder("x")}
        for node in self.nodes:
            if node in self.remade:
                copies[node] = self._remake(node, copies[self.source])
            else:
                copies[node] = new.node_copy(node, copies.__getitem__)
        new.output(fx.node.map_arg(self.result, copies.__getitem__))
        return new


def _parameters(module: nn.Module, node: fx.Node) -> Iterable[nn.Parameter]:
    if node.op == "call_module":
        return module.get_submodule(str(node.target)).parameters()
    if node.op == "get_attr":
        value = attrgetter(str(node.target))(module) if "_tensor_constant" not in str(node.target) else None
        return [value] if isinstance(value, nn.Parameter) else []
    return []


def _merge(two: Any, three: Any, source: fx.Node) -> Any:
    """Join a value seen at both batch sizes: multiples of the batch size are taken from `source`, equal values stay."""
    if isinstance(two, TensorOf) or type(two) is not type(three):
        return None
    if isinstance(two, (tuple, list)):
        items = [_merge(a, b, source) for a, b in zip(two, three, strict=True)] if len(two) == len(three) else [None]
        return None if any(item is None for item in items) else tuple(items)
    if isinstance(two, torch.device):
        return source.graph.call_function(getattr, (source, "device"))
    if two == three:
        return two if isinstance(two, (bool, int, float, str, torch.dtype)) else None
    factor, rest = divmod(two, BATCHES[0]) if type(two) is int else (0, 1)
    if rest or factor * BATCHES[1] != three:
        return None
    size = source.graph.call_method("size", (source, 0))
    return size if factor == 1 else source.graph.call_function(mul, (size, factor))
