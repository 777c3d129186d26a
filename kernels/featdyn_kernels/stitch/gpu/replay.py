"""Runs of the same shape as CUDA graphs: some twenty launches become one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = tuple[Tensor, Tensor | None, Tensor | None]
"""Features (N, ...), labels (N,) and own logits (N, checkpoint, class)."""
Run: TypeAlias = Callable[[Inputs, slice], tuple[Tensor, Tensor]]
"""From inputs and a group of checkpoints to predictions and figures (..., checkpoint, N)."""

SHAPES = 4
"""Shapes of feature blocks whose graphs are kept; the one that was used longest ago goes first."""


class Replays:
    """Runs a function, eagerly or by graph.

    The first block of a shape runs eagerly, which compiles what it needs; the second is captured, and from then on
    graphs are replayed. Graphs of a bank share their memory, so results must be copied before the next call: that is
    what :meth:`start` and the caller's lock are for. ``why_not`` says why nothing is captured; empty where graphs are
    in use.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self._run = run
        self.why_not = "" if device.type == "cuda" else "no CUDA device"
        self._blocks: OrderedDict[tuple[object, ...], _Block | None] = OrderedDict()
        self._pool = None if self.why_not else torch.cuda.graph_pool_handle()

    def start(self, inputs: Inputs, size: int) -> Callable[[slice], tuple[Tensor, Tensor]]:
        """Take one block of at most ``size`` samples; return what runs a group of checkpoints on it."""
        key = size, *(None if tensor is None else tensor.shape[1:] for tensor in inputs)
        seen = key in self._blocks
        if seen:
            self._blocks.move_to_end(key)
        block = self._blocks.setdefault(key, None)
        while len(self._blocks) > SHAPES:
            self._blocks.popitem(last=False)
        if self.why_not or not seen:
            return lambda group: self._run(inputs, group)
        if block is None:
            block = self._blocks[key] = _Block(inputs, size)
        block.fill(inputs)
        return lambda group: self._replay(block, group, len(inputs[0]))

    def _replay(self, block: _Block, group: slice, samples: int) -> tuple[Tensor, Tensor]:
        found = block.graphs.get((group.start, group.stop))
        if found is None and not self.why_not:
            try:
                found = self._capture(block, group)
            except RuntimeError as problem:  # an operation of torch that waits for the device, say
                self.why_not = str(problem).strip().splitlines()[0]
                self._blocks.clear()
        if found is None:
            results = self._run(block.inputs, group)
        else:
            graph, results = found
            graph.replay()
        prediction, figures = results
        return prediction[:, :samples], figures[..., :samples]

    def _capture(self, block: _Block, group: slice) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that load data, may go on calling CUDA.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = self._run(block.inputs, group)
        block.graphs[group.start, group.stop] = graph, results
        return graph, results


class _Block:
    """Memory from which the graphs of one shape read, and the graphs by their group of checkpoints."""

    def __init__(self, inputs: Inputs, size: int) -> None:
        features, labels, own = (None if x is None else x.new_zeros(size, *x.shape[1:]) for x in inputs)
        assert features is not None
        order = torch.channels_last if features.ndim == 4 else torch.contiguous_format
        self.inputs: Inputs = features.to(memory_format=order), labels, own
        self.graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]] = {}

    def fill(self, inputs: Inputs) -> None:
        """Copy a block in; rows beyond its end keep what they hold, and nobody reads their results."""
        for kept, given in zip(self.inputs, inputs, strict=True):
            if kept is not None and given is not None:
                kept[: len(given)].copy_(given)
