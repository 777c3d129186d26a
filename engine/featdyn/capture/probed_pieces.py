"""A probed network larger than memory: weights come piece by piece, within a limit that is planned and said first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from torch import Tensor

from featdyn.capture.axis import Axis
from featdyn.capture.call import Call
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.capture.piecewise import Piecewise
from featdyn.capture.probed_network import ProbedNetwork
from featdyn.capture.probes import Probes
from featdyn.capture.recording import Recording
from featdyn.capture.recording_needs import RecordingNeeds
from featdyn.capture.shards import Shards
from featdyn.capture.values import tensors_in_parts
from featdyn.errors import NetworkError
from featdyn.networks.pieces import chunk_sizes, moved_bytes
from featdyn.sizes import size
from featdyn.store import Run
from featdyn.store.place import Place
from featdyn.store.state_file import CHECKING

BETWEEN = 12
"""So many copies of the widest features are held at once by the layers of a piece, at most."""
WRITTEN = 3
"""So many times the largest tensor is held while it is read and written to the store."""


class ProbedPieces(ProbedNetwork):
    """A probed network whose checkpoints are held one after another, and each piece by piece.

    ``room`` are the bytes that this process may take beside what it has, ``said`` is told what that is used for; what
    else is ``asked`` is as :class:`ProbedNetwork` takes it.
    """

    def __init__(self, pieces: Piecewise, room: int, said: Callable[[str], None], probes: Probes, *asked: Any) -> None:
        self._pieces, self._room, self._said = pieces, room, said
        self._chunk: int | None = None  # how many batches pass together, once that is planned
        super().__init__(pieces.network, probes, *asked)

    def _recording_of(self, probes: Probes, axes: Mapping[str, Axis], call: Call, *, several: bool) -> Recording:
        found = _Recording(self.model, probes, self.options, axes, call, several=several)
        found.pieces = self._pieces
        return found

    def needs(self, checkpoints: int, state: int, place: Place) -> RecordingNeeds:
        """Return what so many checkpoints need; NetworkError, the first time, where the limit is too little."""
        needs = super().needs(checkpoints, state, place)
        chunk, held, moved = self._way(needs.memory)
        if self._chunk is None:
            self._chunk = chunk
            self._said(
                f"{place}: piece by piece, {size(moved)} to read and write for a checkpoint beside its file; at most "
                f"{size(held)} of memory beside libraries"
            )
            if held > self._room:
                raise NetworkError(
                    f"{place}: needs {size(held)} of memory beside libraries, and {size(max(0, self._room))} are left: "
                    "raise --memory-limit, or take a smaller batch"
                )
        return replace(needs, memory=held)

    def _way(self, buffers: int) -> tuple[int, int, int]:
        """Return how many batches pass together (0: all, on disk between pieces), the bytes held, and those moved."""
        pieces, batches = self._pieces.pieces, self._batches
        unit = 4 * max(map(len, batches)) * max(pieces.widest, prod(self.recording.outputs.shape))
        largest = WRITTEN * max((tensor.nbytes for tensor in self.tensors().values()), default=0)
        fixed = buffers + max(pieces.held_bytes, largest) + CHECKING + BETWEEN * unit
        found = []
        for chunk in chunk_sizes(len(batches)):
            moved = moved_bytes(pieces.stored_bytes(), len(pieces), len(batches), unit, chunk)
            found.append((fixed + chunk * unit, moved, chunk))
        fitting = [way for way in found if way[0] <= self._room] or [min(found)]
        held, moved, chunk = min(fitting, key=lambda way: way[1])
        return chunk, held, moved

    @property
    def _batches(self) -> list[Tensor]:
        return [places for block in self.share for _, _, places in self.batches(block)]

    def content(self) -> Iterable[bytes]:
        """Return the content of the file of parameters and buffers, a part of a tensor at a time."""
        return tensors_in_parts(self.tensors(), self._pieces.weights.read)

    def probe(self, pending: PendingCheckpoint, theirs: Mapping[str, Tensor], shards: Shards) -> None:
        """Run the probe pass of one checkpoint, whose layers have passed piece by piece before."""
        inputs = [partial(self._inputs, places) for places in self._batches]
        with self._pieces.ready(list(self.layers), inputs, self._chunk or 0):
            super().probe(pending, theirs, shards)

    def _inputs(self, places: Tensor) -> Tensor:
        found: Tensor = self.recording.probes.rows(places, self.recording.device)[0]
        return found


class _Recording(Recording):
    pieces: Piecewise
    has_weights = False

    @contextmanager
    def holding(self, run: Run, checkpoint: int) -> Iterator[bool]:
        with self.pieces.holding(run.state_file(checkpoint)):
            yield True  # each checkpoint brings its weights
