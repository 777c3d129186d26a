"""From the device to the store: one block of samples at a time, double-buffered, written in the background.

While one block is being written, the next is filled; when both buffers are in use, the probe pass waits. On a GPU
the buffers are pinned and the copies asynchronous: a buffer is read only after the event that was recorded behind its
copies.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from featdyn.errors import TrainingError
from featdyn.store import ArraySpec, Schema
from featdyn_kernels.summaries import rounded

BUFFERS = 2


@dataclass
class Block:
    """Host memory for one block of samples of every array, with samples as the first axis."""

    arrays: dict[str, Tensor]
    largest: dict[str, Tensor]
    """Of each floating-point array and sample the largest finite magnitude before its values were converted."""
    rows: int = 0
    index: int = 0
    event: torch.cuda.Event | None = field(default=None)

    def fill(self, start: int, batch: dict[str, Tensor]) -> None:
        """Copy a batch behind the rows that are there, converting to the storage dtype on the device."""
        if batch.keys() != self.arrays.keys():  # else rows would stay that nobody wrote
            odd = sorted(batch.keys() ^ self.arrays.keys())[0]
            raise TrainingError(f"{odd} is {'not ' * (odd in self.arrays)}in a batch, unlike at first")
        stop = start + max(len(values) for values in batch.values())
        for path, values in batch.items():
            target = self.arrays[path][start:stop]
            if values.shape != target.shape:
                raise TrainingError(f"{path} has shape {tuple(values.shape)} in a batch, not {tuple(target.shape)}")
            if not values.is_floating_point():
                target.copy_(values, non_blocking=True)
                continue
            there = torch.empty(values.shape, dtype=target.dtype, device=values.device) if values.is_cuda else target
            found: Any = rounded(values, there)  # a tensor, as the values are
            if values.is_cuda:
                target.copy_(there, non_blocking=True)
            self.largest[path][start:stop].copy_(found, non_blocking=True)
        self.rows = stop


class BlockWriter:
    """Hands out empty blocks and writes full ones on a thread of its own.

    ``schema`` gives the block length, ``specs`` are the arrays that come from the probe pass, all with ``sample`` as
    their first axis, and ``device`` is where batches come from. So many ``blocks`` of a checkpoint come through here,
    or all.
    """

    def __init__(self, schema: Schema, specs: list[ArraySpec], device: torch.device, blocks: int | None = None) -> None:
        self._cuda = device.type == "cuda"
        self._free: queue.Queue[Block] = queue.Queue()
        for _ in range(min(BUFFERS, schema.blocks if blocks is None else blocks)):
            memory = {s.path: self._memory(schema, s.shape[1:], s.dtype) for s in specs}
            self._free.put(Block(memory, {s.path: self._memory(schema, (), "float64") for s in specs}))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="featdyn-writer")
        self._pending: list[Future[None]] = []

    def _memory(self, schema: Schema, shape: tuple[int, ...], dtype: str) -> Tensor:
        rows = min(schema.shard_samples, schema.samples)
        return torch.empty((rows, *shape), dtype=getattr(torch, dtype), pin_memory=self._cuda, device="cpu")

    def empty(self, index: int) -> Block:
        """Return a free block, waiting for the writer when there is none."""
        block = self._free.get()
        block.index, block.rows, block.event = index, 0, None
        return block

    @contextmanager
    def filling(self, index: int, write: Callable[[Block], None]) -> Iterator[Block]:
        """Lend a free block; submit it at the end, unless filling it failed."""
        block = self.empty(index)
        try:
            yield block
        except BaseException:
            self._free.put(block)
            raise
        self.submit(block, write)

    def submit(self, block: Block, write: Callable[[Block], None]) -> None:
        """Write a full block in the background; ``write`` sees its memory only after all copies have arrived."""
        if self._cuda:
            block.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            block.event.record()

        def work() -> None:
            try:
                if block.event is not None:
                    block.event.synchronize()
                write(block)
            finally:
                self._free.put(block)

        self._pending.append(self._thread.submit(work))

    def then(self, work: Callable[[list[Future[None]]], None]) -> Future[None]:
        """Call ``work`` in the background behind all blocks submitted so far, with the futures of these, all done."""
        pending, self._pending = self._pending, []
        return self._thread.submit(work, pending)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
