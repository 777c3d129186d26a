"""Tracing disturbs no other thread: modules run there as they are, and two traces leave nothing behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from featdyn_kernels.tracing import symbolic_trace


class Slow(nn.Module):
    """Lets the other thread go first in the middle of being traced."""

    def __init__(self, begun: threading.Event, go: threading.Event) -> None:
        super().__init__()
        self.layer, self.weight, self.events = nn.Linear(3, 3), nn.Parameter(torch.ones(3)), (begun, go)

    def forward(self, x: Tensor) -> Tensor:
        begun, go = self.events
        begun.set()
        assert go.wait(240)
        return self.layer(x) * self.weight


def test_another_thread_runs_its_modules_while_one_is_traced():
    begun, go, call, x = threading.Event(), threading.Event(), nn.Module.__call__, torch.randn(2, 3)
    module = Slow(begun, go)
    with ThreadPoolExecutor(2) as pool:
        traced = pool.submit(symbolic_trace, module)
        assert begun.wait(240)
        assert nn.Module.__call__ is not call  # patched for the whole process
        other = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), module.layer)  # a layer of the traced one, too
        found = other(x)
        waits = pool.submit(symbolic_trace, nn.Sequential(nn.Linear(3, 2)))
        go.set()
        graphs = [traced.result(240), waits.result(240)]
    assert nn.Module.__call__ is call
    assert torch.equal(found, other(x))
    assert torch.equal(graphs[0](x), module(x))
    assert [node.op for node in graphs[1].graph.nodes] == ["placeholder", "call_module", "output"]
