"""What a recording will need, before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from featdyn.errors import StoreError
from featdyn.sizes import size
from featdyn.store import Schema


@dataclass(frozen=True)
class Plan:
    """Bytes of a recording: per array and checkpoint, on disk in all, in memory at once."""

    arrays: dict[str, int]
    state: int  # parameters, buffers and optimizer of one checkpoint
    checkpoints: int
    memory: int
    free: int

    @property
    def disk(self) -> int:
        """Bytes on disk for all checkpoints, before compression."""
        return self.checkpoints * (sum(self.arrays.values()) + self.state)

    def __str__(self) -> str:
        rows = [f"  {name:<40} {size(n):>10}" for name, n in self.arrays.items() if n >= 2**10]
        return "\n".join(
            [
                f"recording needs {size(self.disk)} on disk ({size(self.free)} free) for {self.checkpoints} "
                f"checkpoints and {size(self.memory)} of memory for buffers; each checkpoint:",
                *rows,
                f"  {'parameters and optimizer':<40} {size(self.state):>10}",
            ]
        )

    def check(self, path: Path) -> None:
        """Raise :class:`StoreError` when the disk cannot hold it."""
        if self.disk > self.free:
            raise StoreError(
                f"{path}: needs {size(self.disk)}, {size(self.free)} are free: "
                "record fewer layers, probes or checkpoints, or leave gradients out"
            )


def plan(schema: Schema, state: int, checkpoints: int, buffers: int, path: Path) -> Plan:
    """Return the plan of recording so many checkpoints at ``path``."""
    rows = min(schema.shard_samples, schema.samples)
    memory = buffers * rows * sum(a.sample_bytes for a in schema.arrays if a.dims[:1] == ("sample",))
    there = path.absolute()
    while not there.exists():
        there = there.parent
    arrays = {a.path: a.nbytes for a in schema.arrays}
    return Plan(arrays, state, checkpoints, memory, shutil.disk_usage(there).free)
