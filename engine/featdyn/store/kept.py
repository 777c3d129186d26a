"""What one process reads or computes of a run and may want again, kept up to a bound."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any


class Kept:
    """Arrays by what they are of, up to ``room`` bytes: what comes first stays.

    Analyses go through a run again and again in the same order, from its first checkpoint to its last: were the oldest
    to make room for the newest, each pass would find nothing of the one before.
    """

    def __init__(self, room: int) -> None:
        self.room, self.nbytes = room, 0
        self._held: dict[Hashable, Any] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return what was put there, None where nothing is."""
        return self._held.get(key)

    def put(self, key: Hashable, values: Any) -> None:
        """Keep an array or a tensor, nobody changes which any more, where it fits."""
        with self._guard:
            if key not in self._held and self.nbytes + values.nbytes <= self.room:
                self._held[key] = values
                self.nbytes += values.nbytes
