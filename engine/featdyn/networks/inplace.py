"""Rewrites a graph so that no operation writes into a tensor that another one reads."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, fx

from featdyn.networks.trace import Trace


def functionalise(trace: Trace, written: list[tuple[fx.Node, fx.Node]], values: dict[fx.Node, Any]) -> None:
    """Replace operations in place in a trace's graph by their out-of-place form, which gives the same bits.

    What modules return changes with the graph. ``written`` are pairs of an operation and the node whose tensor it wrote
    into; ``values`` the tensors of a run, to see which share memory. Raises ValueError where the written memory is
    still read through another tensor (a view), or the operation has no out-of-place form.
    """
    order = {node: place for place, node in enumerate(trace.graph.nodes)}
    now: dict[fx.Node, fx.Node] = {}  # a node written into -> the node that holds the result
    for writer, first in written:
        target = first
        while target in now:
            target = now[target]
        for node, value in values.items():
            other = isinstance(value, Tensor) and order[node] < order[writer] and node is not target
            shares = other and value.untyped_storage()._cdata == values[first].untyped_storage()._cdata
            if shares and any(order[user] > order[writer] for user in node.users):
                raise ValueError(f"{writer.name} writes in place into memory that {node.name} shares")
        _out_of_place(writer)
        for user in list(target.users):
            if order[user] > order[writer]:
                user.replace_input_with(target, writer)
        for path, node in trace.returned.items():
            if node is target and path in writer.meta.get("nn_module_stack", {}):  # written before the module returned
                trace.returned[path] = writer
        now[target] = writer


def _out_of_place(node: fx.Node) -> None:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    plain = name.removesuffix("_")
    if isinstance(node.target, torch._ops.OpOverload):
        packet, _, overload = str(node.target).removeprefix("aten.").partition(".")
        node.target = getattr(getattr(torch.ops.aten, packet.removesuffix("_")), overload)
    elif node.op == "call_method" and plain != name and hasattr(Tensor, plain):
        node.target = plain
    elif node.op == "call_function" and "inplace" in (known := _parameters(node.target)):
        position = known.index("inplace")  # not the last of a function that is not torch's
        node.args = node.args[:position] + (False,) * (len(node.args) > position) + node.args[position + 1 :]
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
    elif node.op == "call_function" and plain != name and hasattr(torch, plain):
        node.target = getattr(torch, plain)
    else:
        raise ValueError(f"{node.name} writes in place")


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
