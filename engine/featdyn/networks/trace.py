"""A module as a graph of operations in eval mode, without touching the module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featdyn.errors import NetworkError
from featdyn.networks.twin import eval_twin
from featdyn_kernels.tracing import Tracer


@dataclass(frozen=True)
class Trace:
    """The operations of one module, from its input to its output."""

    module: nn.Module
    graph: fx.Graph
    returned: dict[str, fx.Node]
    """Path of each submodule that runs exactly once -> the node it returns, inner modules before outer ones."""
    constants: dict[str, Tensor]
    """Tensors that the forward function holds as literals."""
    wrapped: frozenset[str] = frozenset()
    """Paths of submodules that return the tensor within something else, such as a dict."""

    @property
    def input(self) -> fx.Node:
        """The node of the module's input."""
        return self._first("placeholder")

    @property
    def output(self) -> fx.Node:
        """The graph's output node, whose arguments are what the module returns."""
        return self._first("output")

    def _first(self, operation: str) -> fx.Node:
        node: fx.Node = next(node for node in self.graph.nodes if node.op == operation)
        return node

    def compile(self, graph: fx.Graph, twin: nn.Module | None = None) -> fx.GraphModule:
        """Make a module that runs `graph` with the tensors of `twin` (by default a twin of the traced module)."""
        twin = eval_twin(self.module) if twin is None else twin
        own = twin.state_dict().keys()
        vars(twin).update(self.constants | vars(twin))
        part = fx.GraphModule(twin, graph)
        for path, owner in part.named_modules():
            for name in owner._buffers:  # literals and constants are no part of a checkpoint
                if (f"{path}.{name}" if path else name) not in own:
                    owner._non_persistent_buffers_set.add(name)
        return part


def trace(module: nn.Module) -> Trace:
    """Trace `module` in eval mode.

    Raises :class:`NetworkError` if torch.fx cannot trace it, or it takes a second input.
    """
    tracer = _Tracer()
    try:
        twin = eval_twin(module)
        with torch.random.fork_rng(devices=[]):
            graph = tracer.trace(twin)
    except Exception as error:  # the forward functions of users raise what they please
        raise CannotCut(module, error) from error
    for node in list(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    for extra in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        if extra.users:
            raise CannotCut(module, f"it takes a second input, {extra.target}")
        graph.erase_node(extra)
    returned = {path: calls[0] for path, calls in tracer.calls.items() if len(calls) == 1 and calls[0] is not None}
    constants = {name: value for name, value in vars(twin).items() if name.startswith("_tensor_constant")}
    return Trace(module, graph, returned, constants)


class CannotCut(NetworkError):
    """A module that does not come apart, with the reason in one line."""

    def __init__(self, module: nn.Module, why: object) -> None:
        lines = str(why).strip().splitlines() or [type(why).__name__]
        self.why = lines[0].rstrip(".")
        super().__init__(
            f"{type(module).__name__} cannot be cut: {self.why} "
            "(it can still be recorded; only stitching needs a tensor that separates two halves)"
        )


class _Tracer(Tracer):
    """Symbolic tracer that gives optional inputs their defaults and remembers what every submodule returned."""

    proxy_buffer_attributes = True  # else a branch on a buffer would be traced as it is now

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[fx.Node | None]] = {}

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        first = 1 + is_module
        return function, args[:first] + [arg.node.args[0] if arg.node.args else arg for arg in args[first:]]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one operation: also BatchNorm with a forward function of its own, as one looks for it."""
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)

    def _called(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        returned = super()._called(m, forward, args, kwargs)
        node = returned.node if isinstance(returned, fx.Proxy) else None
        self.calls.setdefault(self.path_of_module(m), []).append(node)
        return returned
