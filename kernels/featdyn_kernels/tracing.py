"""torch.fx beside other threads: it patches every module of the process while it traces one."""

from __future__ import annotations

import threading
from typing import Any

from torch import fx, nn

_ONE = threading.RLock()
"""Two that trace at the same time would each put back what the other has patched."""


class Tracer(fx.Tracer):
    """A tracer that lets the modules of other threads run as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thread = threading.get_ident()

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace a module, while no other thread does."""
        with _ONE:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Record a call, or let another thread's happen."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return self._called(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what an attribute is to the trace, or to another thread."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _called(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Record a call of the thread that traces."""
        return super().call_module(m, forward, args, kwargs)


def symbolic_trace(module: nn.Module) -> fx.GraphModule:
    """Trace as ``torch.fx.symbolic_trace`` does, beside other threads."""
    tracer = Tracer()
    graph = tracer.trace(module)
    return fx.GraphModule(tracer.root, graph, type(module).__name__)
