"""Records a network larger than memory at checkpoints that exist, within a limit that is planned and said first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from featdyn.capture.call import Call
from featdyn.capture.options import CaptureOptions
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.capture.piecewise import Opened, Piecewise
from featdyn.capture.probes import Probes, batch_of, batch_size
from featdyn.capture.recorder import Recorder
from featdyn.capture.recording import Recording
from featdyn.capture.recording_needs import RecordingNeeds
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


class PiecewiseRecorder(Recorder):
    """A recorder of a network that goes piece by piece, without gradients.

    ``room`` are the bytes that this process may take beside what it has, ``said`` is told what that is used for. Other
    parameters and errors are those of :class:`featdyn.capture.Recorder`; NetworkError also where that is too little.
    """

    def __init__(
        self,
        network: Piecewise,
        probes: Probes,
        store: str | Path,
        *,
        room: int,
        said: Callable[[str], None],
        **options: Any,
    ) -> None:
        if options.get("gradients", CaptureOptions.model_fields["gradients"].default):
            raise NetworkError(
                "a network larger than memory passes piece by piece, and gradients need a pass backwards through all "
                "of it: gradients=False (--no-gradients), or more memory"
            )
        self._network, self._room, self._said, self._chunk = network, room, said, 0
        super().__init__(network.network, probes, store, **options)

    def _recording_of(self, probes: Probes, call: Call) -> Recording:
        found = _Recording(self._network.network, probes, self.options, self._axes, call)
        found.network = self._network
        return found

    def _needs(self, checkpoints: int, state: int, place: Place) -> RecordingNeeds:
        needs = super()._needs(checkpoints, state, place)
        chunk, held, moved = self._way(needs.memory)
        if not self._planned_way:
            self._planned_way, self._chunk = True, chunk
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

    _planned_way = False

    def _way(self, buffers: int) -> tuple[int, int, int]:
        """Return how many batches pass together (0: all, on disk between pieces), the bytes held, and those moved."""
        pieces, own = self._network.pieces, self._tensors()
        unit = 4 * self._size * max(pieces.widest, prod(self._recording.outputs.shape))
        largest = WRITTEN * max((tensor.nbytes for tensor in own.values()), default=0)
        fixed = buffers + max(pieces.held_bytes, largest) + CHECKING + BETWEEN * unit
        batches, found = len(self._places), []
        for chunk in chunk_sizes(batches):
            moved = moved_bytes(pieces.stored_bytes(), len(pieces), batches, unit, chunk)
            found.append((fixed + chunk * unit, moved, chunk))
        fitting = [way for way in found if way[0] <= self._room] or [min(found)]
        held, moved, chunk = min(fitting, key=lambda way: way[1])
        return chunk, held, moved

    @property
    def _size(self) -> int:
        return max(map(len, self._places))

    @property
    def _places(self) -> list[Tensor]:
        """The batches as they are recorded."""
        found = []
        for block in self._share:
            samples = self.schema.block_slice(block)
            rows = batch_size(samples.stop - samples.start, self.options.batch)
            starts = range(samples.start, samples.stop, rows)
            found += [batch_of(start, min(start + rows, samples.stop), rows) for start in starts]
        return found

    def _content(self) -> Iterable[bytes]:
        return tensors_in_parts(self._tensors(), self._network.weights.read)

    def _probe(self, pending: PendingCheckpoint, theirs: Mapping[str, Tensor]) -> None:
        inputs = [partial(self._inputs, places) for places in self._places]
        with self._network.ready(list(self.layers), inputs, self._chunk):
            super()._probe(pending, theirs)

    def _inputs(self, places: Tensor) -> Tensor:
        found: Tensor = self._recording.probes.rows(places, self._recording.device)[0]
        return found

    def __enter__(self) -> Self:
        return self

    def record_with(self, step: int, weights: Opened) -> None:
        """Record a checkpoint, and return when it is committed."""
        with self._network.holding(weights):
            self.record(step=step)
            self.wait()


class _Recording(Recording):
    network: Piecewise
    has_weights = False

    @contextmanager
    def holding(self, run: Run, checkpoint: int) -> Iterator[bool]:
        with self.network.holding(run.state_file(checkpoint)):
            yield True  # each checkpoint brings its weights


def few_inputs(probes: Probes) -> Tensor:
    """Return some inputs, ``(N, ...)``; NetworkError where a sample has several, of which pieces know nothing."""
    found = probes.few(torch.device("cpu"))[0]
    if not isinstance(found, Tensor):
        raise NetworkError(
            "a network larger than memory passes piece by piece if it takes one tensor, and these probes have several"
        )
    return found
