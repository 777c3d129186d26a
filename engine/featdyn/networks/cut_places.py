"""Places where a single tensor separates a traced module, and what they are called."""

from __future__ import annotations

from torch import fx

from featdyn.networks.trace import Trace
from featdyn.networks.value_shapes import ValueShapes


def separating(flow: ValueShapes) -> list[fx.Node]:
    """List the nodes that every path of tensors from the input to the output passes through, in execution order.

    The first is the input; the last is the node that is returned, if that is a single tensor.

    A node separates when no edge runs from before it to after it: nodes run in a topological order, and each one kept
    lies on some path, so an edge that jumps over a node is part of a path that avoids it. One sweep finds them all.
    """
    path = _on_path(flow)
    place = {node: index for index, node in enumerate(path)}
    found, furthest = [], 0
    for index, node in enumerate(path[:-1]):
        if furthest <= index:
            found.append(node)
        furthest = max([furthest, *(place[user] for user in node.users if user in place)])
    return found


def _on_path(flow: ValueShapes) -> list[fx.Node]:
    """List the nodes on some path of tensors from the input to the output, both included."""
    trace = flow.trace
    reached = {trace.input}
    for node in trace.graph.nodes:
        if flow.holds_tensor(node) and any(argument in reached for argument in node.all_input_nodes):
            reached.add(node)
    used = {trace.output}
    for node in reversed(trace.graph.nodes):
        if node in reached and any(user in used for user in node.users):
            used.add(node)
    return [node for node in trace.graph.nodes if (node in reached and node in used) or node is trace.output]


def modules(trace: Trace) -> dict[fx.Node, str]:
    """Name the outermost module whose output each node is, where there is one that runs exactly once."""
    found: dict[fx.Node, str] = {}
    for path, node in trace.returned.items():
        if node not in found or path.count(".") < found[node].count("."):
            found[node] = path
    return found


def names(flow: ValueShapes) -> dict[fx.Node, str]:
    """Name every tensor on the way, uniquely: as its module (see `modules`), else by its own path (``layer3.add``)."""
    given = modules(flow.trace)
    taken = set(given.values())
    for node in _on_path(flow)[:-1]:
        if node not in given:
            path = name = _path(node)
            repeat = 0
            while name in taken:
                repeat += 1
                name = f"{path}_{repeat}"
            taken.add(name)
            given[node] = name
    return given


def _path(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    own = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
    own = own.partition(".")[0]  # torch.export names an overload, too
    *_, inner = node.meta.get("nn_module_stack", None) or [""]
    inner = inner.split("@")[0]  # torch.fx marks the second call of a module so
    return f"{inner}.{own}" if inner else own
