"""Runs of the same shape as CUDA graphs: some twenty launches become one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Run: TypeAlias = Callable[[Tensor, Tensor | None, slice], tuple[Tensor, Tensor]]
"""From features (N, ...), labels (N,) and a group of checkpoints to predictions and figures (..., checkpoint, N)."""

SHAPES = 4
"""Shapes of feature blocks whose graphs are kept; the one that was used longest ago goes first."""


class Replays:
    """Runs a function, eagerly or by graph.

    The first block of a shape runs eagerly, which compiles what it needs; the second is captured, and from then on
    graphs are replayed. Graphs of a bank share their memory, so results must be copied before the next call: that is
    what :meth:`start` and the caller's lock are for.

    Attributes
    ----------
    why_not : str
        Why nothing is captured; empty where graphs are in use.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self._run = run
        self.why_not = "" if device.type == "cuda" else "no CUDA device"
        self._blocks: OrderedDict[tuple[object, ...], _Block | None] = OrderedDict()
        self._pool = None if self.why_not else torch.cuda.graph_pool_handle()

    def start(self, features: Tensor, labels: Tensor | None, size: int) -> Callable[[slice], tuple[Tensor, Tensor]]:
        """Take one block of at most ``size`` samples; return what runs a group of checkpoints on it."""
        key = size, features.shape[1:], features.dtype, labels is not None
        seen = key in self._blocks
        if seen:
            self._blocks.move_to_end(key)
        block = self._blocks.setdefault(key, None)
        while len(self._blocks) > SHAPES:
            self._blocks.popitem(last=False)
        if self.why_not or not seen:
            return lambda group: self._run(features, labels, group)
        if block is None:
            block = self._blocks[key] = _Block(features, labels, size)
        block.fill(features, labels)
        return lambda group: self._replay(block, group, len(features))

    def _replay(self, block: _Block, group: slice, samples: int) -> tuple[Tensor, Tensor]:
        found = block.graphs.get((group.start, group.stop))
        if found is None and not self.why_not:
            try:
                found = self._capture(block, group)
            except RuntimeError as problem:  # an operation of torch that waits for the device, say
                self.why_not = str(problem).strip().splitlines()[0]
                self._blocks.clear()
        if found is None:
            results = self._run(block.features, block.labels, group)
        else:
            graph, results = found
            graph.replay()
        prediction, figures = results
        return prediction[:, :samples], figures[..., :samples]

    def _capture(self, block: _Block, group: slice) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that load data, may go on calling CUDA.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = self._run(block.features, block.labels, group)
        block.graphs[group.start, group.stop] = graph, results
        return graph, results


class _Block:
    """Memory from which the graphs of one shape read, and the graphs by their group of checkpoints."""

    def __init__(self, features: Tensor, labels: Tensor | None, size: int) -> None:
        self.features = features.new_zeros(size, *features.shape[1:])
        if features.ndim == 4:
            self.features = self.features.to(memory_format=torch.channels_last)
        self.labels = None if labels is None else labels.new_zeros(size)
        self.graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]] = {}

    def fill(self, features: Tensor, labels: Tensor | None) -> None:
        """Copy a block in; rows beyond its end keep what they hold, and nobody reads their results."""
        self.features[: len(features)].copy_(features)
        if labels is not None and self.labels is not None:
            self.labels[: len(labels)].copy_(labels)
