"""One checkpoint on its way: from the shards of all ranks to one commit, or to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featdyn.capture.fit import Fit
from featdyn.capture.ranks import Ranks
from featdyn.store import CheckpointWriter
from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.reader import state_path
from featdyn.store.record import FileRecord


@dataclass
class PendingCheckpoint:
    """What one rank has of a checkpoint."""

    fit: Fit
    step: int = -1
    files: CheckpointFiles | None = None
    values: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    """Arrays without samples, and below the content of tensor files: rank 0's alone."""
    states: dict[str, Iterable[bytes]] = field(default_factory=dict)
    failure: BaseException | None = None
    """Why this rank's probe pass did not come to its end."""

    def finish(self, ranks: Ranks, blocks: list[Future[None]]) -> int:
        """Commit the checkpoint and return rank 0's number of them, or raise on all ranks and take its files away.

        Nothing is published before every rank has said that its files are durable. Up to then a rank removes its own;
        what it has handed over is for rank 0 to publish or to remove, for only rank 0 knows which of them came about.
        """
        try:
            handed = ranks.all(lambda: self._settle(blocks))
        except BaseException:
            self._discard()
            raise
        return ranks.first(lambda: self._publish(handed))

    def _settle(self, blocks: list[Future[None]]) -> list[FileRecord]:
        try:
            if self.failure is not None:
                raise self.failure
            assert self.files is not None
            for block in blocks:
                block.result()
            self.fit.judge(self.files.index)
            for name, value in self.values.items():
                self.files.write(name, value)
            for kind, content in self.states.items():
                self.files.put(state_path(self.files.index, kind), content)
            return self.files.hand_over()
        except BaseException:
            self._discard()
            raise

    def _publish(self, handed: Iterable[list[FileRecord]]) -> int:
        assert isinstance(self.files, CheckpointWriter)
        self.files.commit(record for part in handed for record in part)
        return self.files.index + 1

    def _discard(self) -> None:
        if self.files is not None:
            self.files.discard()
