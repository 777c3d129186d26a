"""Parts of a traced graph: from one node to others, as a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from featdyn.networks.flow import BATCHES, Flow, TensorOf


class Part:
    """What has to run to get from the tensor of one node to those of others.

    A value that depends on the input only through its sizes (a batch size, a position table) is no second tensor to
    hand over: it is computed again, from the size of the source where it follows the batch and as a constant elsewhere.

    Parameters
    ----------
    flow
        The traced module.
    source
        The node whose tensor goes in.
    result
        The structure of nodes that comes out.
    """

    def __init__(self, flow: Flow, source: fx.Node, result: Any) -> None:
        self.flow = flow
        self.source = source
        self.result = result
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
        needed = {self.source}
        stack: list[fx.Node] = []
        fx.node.map_arg(self.result, stack.append)
        while stack:
            node = stack.pop()
            if node in needed:
                continue
            needed.add(node)
            if node not in direct and not self.flow.holds_tensor(node):
                self.complete &= self._constant(node) is not None
                self.remade.add(node)
            elif node.op == "placeholder":
                self.complete = False
            else:
                stack += node.all_input_nodes
        return [node for node in order if node in needed and node is not self.source]

    def _constant(self, node: fx.Node, batch: Any = None) -> Any:
        """Give a size without its inputs, with `batch` in place of the batch size; None where that cannot be."""
        two, three = (values[node] for values in self.flow.values)
        return _merge(two, three, batch if batch is not None else BATCHES[0])

    @property
    def macs(self) -> int:
        """Multiply-adds for one sample."""
        return sum(self.flow.macs[node] for node in self.nodes)

    @property
    def params(self) -> int:
        """Number of parameters that are used."""
        used: dict[int, nn.Parameter] = {}
        for node in self.nodes:
            for parameter in _parameters(self.flow.trace.module, node):
                used[id(parameter)] = parameter
        return sum(parameter.numel() for parameter in used.values())

    def graph(self) -> fx.Graph:
        """Copy the part into a graph of its own, whose only input is the source."""
        new = fx.Graph()
        copies = {self.source: new.placeholder("x")}
        batch = new.call_method("size", (copies[self.source], 0)) if self.remade else None
        for node in self.nodes:
            if node in self.remade:
                copies[node] = self._constant(node, batch)
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


def _merge(two: Any, three: Any, batch: Any) -> Any:
    """Join a value seen at both batch sizes: equal ones stay, the batch sizes themselves become `batch`."""
    if isinstance(two, TensorOf) or type(two) is not type(three):
        return None
    if isinstance(two, (tuple, list)):
        items = [_merge(a, b, batch) for a, b in zip(two, three, strict=True)] if len(two) == len(three) else [None]
        return None if any(item is None for item in items) else tuple(items)
    if type(two) is int and (two, three) == BATCHES:
        return batch
    return two if isinstance(two, (bool, int, float, str, torch.dtype)) and two == three else None
