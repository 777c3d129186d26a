"""What a recording will need, before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from featdyn.errors import StoreError
from featdyn.sizes import size
from featdyn.store import Schema
from featdyn.store.place import Place


@dataclass(frozen=True)
class RecordingNeeds:
    """Bytes of a recording: per array and checkpoint, on disk in all, in memory at once."""

    arrays: dict[str, int]
    state: int  # parameters, buffers and optimizer of one checkpoint
    checkpoints: int
    memory: int
    free: int | None  # None in a bucket, which does not say

    @property
    def disk(self) -> int:
        """Bytes on disk for all checkpoints, before compression."""
        return self.checkpoints * (sum(self.arrays.values()) + self.state)

    def __str__(self) -> str:
        rows = [f"  {name:<40} {size(n):>10}" for name, n in self.arrays.items() if n >= 2**10]
        room = "on disk" if self.free is not None else "in the bucket"
        free = f"{size(self.free)} free" if self.free is not None else "what is free there is not known"
        return "\n".join(
            [
                f"recording needs {size(self.disk)} {room} ({free}) for {self.checkpoints} "
                f"checkpoints and {size(self.memory)} of memory for buffers; each checkpoint:",
                *rows,
                f"  {'parameters and optimizer':<40} {size(self.state):>10}",
            ]
        )

    def check(self, store: object) -> None:
        """Raise :class:`StoreError` when the disk cannot hold it."""
        if self.free is not None and self.disk > self.free:
            raise StoreError(
                f"{store}: needs {size(self.disk)}, {size(self.free)} are free: "
                "record fewer layers, probes or checkpoints, or leave gradients out"
            )


def estimate(schema: Schema, state: int, checkpoints: int, buffers: int, place: Place, kept: int = 0) -> RecordingNeeds:
    """Return the plan of recording so many checkpoints there, with ``kept`` bytes of the one before in memory."""
    rows = min(schema.shard_samples, schema.samples)
    memory = kept + buffers * rows * sum(a.sample_bytes for a in schema.arrays if a.dims[:1] == ("sample",))
    arrays = {a.path: a.nbytes for a in schema.arrays}
    return RecordingNeeds(arrays, state, checkpoints, memory, place.free())
