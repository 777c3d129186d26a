"""Memory that one thread reuses from block to block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Workspace:
    """Buffers of one thread. Fresh memory for every activation would cost a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}
        self._zeros = torch.zeros(0)
        self._scratch = torch.empty(0)
        self._launches: dict[Any, Any] = {}

    def zeros(self, n: int) -> int:
        """Return the address of ``n`` zeros."""
        if self._zeros.numel() < n:
            self._zeros = self._grown(torch.zeros(n))
        return self._zeros.data_ptr()

    def scratch(self, n: int) -> int:
        """Return the address of ``n`` floats of any content."""
        if self._scratch.numel() < n:
            self._scratch = self._grown(torch.empty(n))
        return self._scratch.data_ptr()

    def image(self, slot: int, images: int, channels: int, height: int, width: int) -> Tensor:
        """Return buffer ``slot`` as a tensor of this shape in channels-last order."""
        n = images * channels * height * width
        if slot not in self._buffers or self._buffers[slot].numel() < n:
            self._buffers[slot] = self._grown(torch.empty(n))
        return self._buffers[slot][:n].view(images, height, width, channels).permute(0, 3, 1, 2)

    def rows(self, slot: int, rows: int, columns: int) -> Tensor:
        """Return buffer ``slot`` as a matrix."""
        return self.image(slot, rows, columns, 1, 1).view(rows, columns)

    def launch(self, layer: Any, shape: torch.Size, slot: int) -> Any:
        """Return ``layer.launch(shape, self, slot)``, from memory where it was asked before."""
        key = layer, shape, slot
        found = self._launches.get(key)
        if found is None:
            found = layer.launch(shape, self, slot)
            self._launches[key] = found
        return found

    def _grown(self, memory: Tensor) -> Tensor:
        self._launches.clear()  # they hold addresses of memory that is now given up
        return memory
