"""A network and its probes as a recorder has them before there is a store: what a checkpoint holds, needs and is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from featdyn.capture.arrays import arrays, of_layers
from featdyn.capture.axis import Axis
from featdyn.capture.before import kept_bytes
from featdyn.capture.blocks import BUFFERS, BlockWriter
from featdyn.capture.call import Call
from featdyn.capture.kept_moments import KIND, KeptMoments
from featdyn.capture.open_store import identity
from featdyn.capture.options import CaptureOptions
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.capture.probes import Probes, batch_of, batch_size
from featdyn.capture.ranks import Ranks
from featdyn.capture.recording import Recording
from featdyn.capture.recording_needs import RecordingNeeds, estimate
from featdyn.capture.replica import check_whole, with_tensors
from featdyn.capture.shards import Shards
from featdyn.capture.undisturbed import undisturbed
from featdyn.capture.values import tensors_to_bytes
from featdyn.errors import TrainingError
from featdyn.networks import unwrap
from featdyn.store import Schema
from featdyn.store.place import Place


class ProbedNetwork:
    """A network, its probes, and what is recorded of them at each checkpoint, on one of several ranks.

    Parameters and errors are those of :class:`featdyn.capture.Recorder`; ``axes`` are what ``layers`` said of each.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Probes,
        options: CaptureOptions,
        axes: Mapping[str, Axis],
        call: Call,
        coords: Sequence[str],
        ranks: Ranks,
    ) -> None:
        self.model, self.options = unwrap(model), options
        if ranks.several:
            check_whole(self.model)
        self.recording = self._recording_of(probes, axes, call, several=ranks.several)
        layouts = self.recording.layouts
        self.layers = {name: layer.shape for name, layer in layouts.items()}
        self.identity = identity(self.model, probes)
        self._shapes = self._shapes_now()
        found = arrays(layouts, self.recording.outputs, len(probes), options, coords)
        self.schema = Schema.build(found, len(probes), options.codec)
        self.share = range(ranks.rank, self.schema.blocks, ranks.size)
        """This rank's blocks of samples."""
        self.moments = KeptMoments(probes, self.layers) if options.record == KIND else None
        specs = [a for a in self.schema.arrays if a.dims[:1] == ("sample",)]
        specs += of_layers(layouts, len(probes), options) if self.moments is not None else []
        self.blocks = BlockWriter(self.schema, specs, self.recording.device, len(self.share))

    def _recording_of(self, probes: Probes, axes: Mapping[str, Axis], call: Call, *, several: bool) -> Recording:
        return Recording(self.model, probes, self.options, axes, call, several=several)

    @property
    def claims(self) -> dict[str, Any]:
        """What must be the same on all ranks."""
        probes = [value for name, value in self.identity.items() if name != "network"]
        return {"layers": self.recording.layouts, "arrays": self.schema, "probes": probes}

    def needs(self, checkpoints: int, state: int, place: Place) -> RecordingNeeds:
        """Return what so many checkpoints need; ``state`` is the bytes kept besides parameters and buffers."""
        moments = 0 if self.moments is None else self.moments.nbytes(self.recording.outputs.shape[0])
        state += moments + sum(tensor.nbytes for tensor in self.tensors().values())
        return estimate(self.schema, state, checkpoints, BUFFERS, place, self.kept_bytes(self.schema))

    def kept_bytes(self, schema: Schema) -> int:
        """Return the bytes of the checkpoint before that this rank keeps, by the schema of the store."""
        return kept_bytes(schema, len(self.share))

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers; what ``get_extra_state`` adds besides tensors is no part of a checkpoint."""
        return {name: value for name, value in self.model.state_dict().items() if isinstance(value, Tensor)}

    def content(self) -> Iterable[bytes]:
        """Return the content of the file of parameters and buffers."""
        return [tensors_to_bytes(self.tensors())]

    def check_shapes(self) -> None:
        """Raise :class:`TrainingError` where parameters and buffers are not those of the start."""
        if changed := sorted({name for name, _ in self._shapes.items() ^ self._shapes_now().items()}):
            raise TrainingError(
                f"the network is another than when the recorder was made ({changed[0]} is new, gone or of another "
                "shape): record it to a store of its own"
            )

    def _shapes_now(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.tensors().items()}

    def batches(self, block: int) -> list[tuple[int, int, Tensor]]:
        """Return the batches of a block of samples: from which sample to which, and the places of the probes."""
        samples = self.schema.block_slice(block)
        size = batch_size(samples.stop - samples.start, self.options.batch)
        starts = range(samples.start, samples.stop, size)
        stops = [min(start + size, samples.stop) for start in starts]
        return [(start, stop, batch_of(start, stop, size)) for start, stop in zip(starts, stops, strict=True)]

    def probe(self, pending: PendingCheckpoint, theirs: Mapping[str, Tensor], shards: Shards) -> None:
        """Run the probe pass of one checkpoint over this rank's blocks, handing over block by block.

        ``theirs`` are the buffers of rank 0, where there are several ranks.
        """
        files = pending.files
        assert files is not None
        with with_tensors(self.model, theirs), undisturbed(self.model):
            for index in self.share:
                first = self.schema.block_slice(index).start
                with self.blocks.filling(index, lambda full: shards.write(full, files, pending.fit)) as block:
                    for start, stop, places in self.batches(index):
                        columns = self.recording.columns(places)
                        block.fill(start - first, {path: values[: stop - start] for path, values in columns.items()})
