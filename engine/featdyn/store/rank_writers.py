"""What other processes do for the one writer of a run: write shards, and hand them over."""

from __future__ import annotations

from pathlib import Path

from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.gathered import Gatherer
from featdyn.store.locate import Store, locate
from featdyn.store.lock import RankLock
from featdyn.store.place import Place
from featdyn.store.record import FileRecord
from featdyn.store.root import Root
from featdyn.store.schema import Schema


class RunPart:
    """A run as a process sees it that writes shards for the run's :class:`RunWriter`, in another process.

    It has the writer's schema and number of checkpoints, and the token that its ``invite`` returned. Raises
    :class:`StoreError` if this is not the folder of that writer, or in a bucket.
    """

    def __init__(self, store: Store, schema: Schema, checkpoints: int, token: str) -> None:
        self.place = locate(store)
        self.schema, self.checkpoints = schema, checkpoints
        self._token = token
        self.place.check_several()
        known = Root.read(self.place).rows(self.place) if checkpoints else {}
        self._gatherer = Gatherer(self.place, schema, known)
        self.checkpoint().discard()  # can it?

    def checkpoint(self) -> CheckpointPart:
        """Return what writes shards of the next checkpoint, as soon as the writer has answered once more."""
        lock = RankLock(Path(self.place.path), self._token)
        return CheckpointPart(self.place, self.schema, self.checkpoints, self._gatherer, lock)

    def close(self) -> None:
        """Nothing is held between checkpoints."""


class CheckpointPart(CheckpointFiles):
    """Some shards of one checkpoint: until they are handed over or discarded no other writer can start."""

    def __init__(self, place: Place, schema: Schema, index: int, gatherer: Gatherer, lock: RankLock) -> None:
        super().__init__(place, schema, index, gatherer, is_open=lambda: self._own and lock.held)
        self._lock, self._own = lock, True
        lock.acquire()

    def hand_over(self) -> list[FileRecord]:
        """Return what was written; whether it is published or removed is for the writer from now on."""
        self._own = False
        self._lock.release()
        return super().hand_over()

    def discard(self) -> None:
        """Give up what was written."""
        super().discard()
        self.hand_over()
