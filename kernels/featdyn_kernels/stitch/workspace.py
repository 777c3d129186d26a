"""Memory that one thread reuses from block to block."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Buffers of one thread. Fresh memory for every activation would cost a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}
        self._views: dict[tuple[int, int, int, int, int], Tensor] = {}
        self._zeros = torch.zeros(0)
        self._scratch = torch.empty(0)

    def zeros(self, n: int) -> int:
        """Return the address of ``n`` zeros."""
        if len(self._zeros) < n:
            self._zeros = torch.zeros(n)
        return self._zeros.data_ptr()

    def scratch(self, n: int) -> int:
        """Return the address of ``n`` floats of any content."""
        if len(self._scratch) < n:
            self._scratch = torch.empty(n)
        return self._scratch.data_ptr()

    def image(self, slot: int, images: int, channels: int, height: int, width: int) -> Tensor:
        """Return buffer ``slot`` as a tensor of this shape in channels-last order."""
        key = slot, images, channels, height, width
        if key not in self._views:
            n = images * channels * height * width
            buffer = self._buffers.get(slot)
            if buffer is None or len(buffer) < n:
                self._views = {k: v for k, v in self._views.items() if k[0] != slot}
                buffer = self._buffers[slot] = torch.empty(n)
            self._views[key] = buffer[:n].view(images, height, width, channels).permute(0, 3, 1, 2)
        return self._views[key]

    def rows(self, slot: int, rows: int, columns: int) -> Tensor:
        """Return buffer ``slot`` as a matrix."""
        return self.image(slot, rows, columns, 1, 1).view(rows, columns)
