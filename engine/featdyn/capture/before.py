"""The activations of the checkpoint before, for what compares a checkpoint with it: kept where they fit, else read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featdyn.store import Schema
from featdyn.store.place import Place
from featdyn.store.reader import read_block

KEPT_BYTES = 2**29
"""Of activations of one checkpoint that a process keeps in memory. To read 131 MB back took a quarter of a writer's
time."""


def kept_bytes(schema: Schema, blocks: int) -> int:
    """Return the memory for activations of so many blocks of a checkpoint; 0 where they are read instead."""
    rows = min(schema.shard_samples, schema.samples)
    needed = blocks * rows * sum(a.sample_bytes for a in schema.arrays if a.path.endswith("/activation"))
    return needed if needed <= KEPT_BYTES else 0


class Before:
    """Blocks of the checkpoint before; ``keeps`` says whether in memory, which is taken over and given back."""

    def __init__(self, place: Place, schema: Schema, *, keeps: bool) -> None:
        self._place, self._schema, self._keeps = place, schema, keeps
        self._kept: dict[tuple[str, int], tuple[int, Tensor]] = {}

    def rows(self, path: str, checkpoint: int, block: int, padding: Tensor | None) -> Tensor | None:
        """Return the rows of the checkpoint before this one, with 0 at padding; None at the first."""
        if checkpoint == 0:
            return None
        number, memory = self._kept.get((path, block), (-1, None))
        if memory is not None and number == checkpoint - 1:  # else that one was given up
            samples = self._schema.block_slice(block)
            return memory[: samples.stop - samples.start]
        values = read_block(self._place, self._schema, path, checkpoint - 1, block)
        before = torch.from_numpy(np.require(values, requirements="W"))
        if padding is not None:
            before = before.masked_fill(padding.view(*padding.shape, *(1,) * (before.ndim - 2)), 0.0)
        return before

    def exchange(self, path: str, checkpoint: int, block: int, memory: Tensor) -> Tensor:
        """Take the memory of this checkpoint's rows, where they are kept; return some of that size to be filled."""
        if not self._keeps:
            return memory
        _, other = self._kept.get((path, block), (-1, None))
        self._kept[path, block] = checkpoint, memory
        return torch.empty_like(memory, pin_memory=memory.is_pinned()) if other is None else other
