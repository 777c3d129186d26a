"""Bring a recording that another tool made into a store, checkpoint by checkpoint and block by block."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from featdyn.capture.arrays import cube_arrays
from featdyn.capture.blocks import Block
from featdyn.capture.fit import Fit
from featdyn.capture.foreign.formats import checkpoints
from featdyn.capture.foreign.npz import Scratch
from featdyn.capture.foreign.recorded import Recorded
from featdyn.capture.layers import dims
from featdyn.capture.open_store import layer_names, sample_coords, writer_of
from featdyn.capture.options import CaptureOptions
from featdyn.capture.recording_needs import estimate
from featdyn.capture.shards import Shards
from featdyn.capture.values import tensors_to_bytes
from featdyn.errors import DataError, StoreError
from featdyn.networks.layer_patterns import matching
from featdyn.store import ArraySpec, CheckpointWriter, Run, RunWriter, Schema, locate
from featdyn.store.reader import state_path
from featdyn.store.schema import Codec, check_name
from featdyn_kernels.summaries import rounded

Progress = Callable[[int, int], None]


def import_recording(
    paths: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    format: str | None = None,
    axes: Sequence[str] = (),
    steps: Sequence[int] | None = None,
    step_pattern: str | None = None,
    layers: Sequence[str] = ("**",),
    dtype: Literal["float16"] | None = None,
    codec: Codec = "zstd",
    progress: Progress = lambda done, total: None,
) -> Run:
    """Bring a recording that another tool made into a store; return the run.

    It is a run without what the recording has not: gradients, weights, outputs, inputs. Values are those of the source,
    to the bit; bfloat16 becomes float32, which holds it. In memory is one block of samples at a time, and of pico-train
    the tensors of one checkpoint. A store of the same recording goes on after its last checkpoint.

    Parameters
    ----------
    paths
        One path that holds all checkpoints, or a path for each.
    store
        A new folder or URL, or the store of the same recording.
    format
        ``pico``, ``saev``, ``vllm``, ``thingsvision`` or ``arrays``; when None it is found out.
    axes
        Of plain arrays the names of their axes, such as ``("checkpoint", "sample", "feature")``.
    steps, step_pattern
        The training step of each checkpoint, where the source does not say it; or a regular expression whose first
        group is the step in a path.
    layers
        Names or patterns of the layers that are taken.
    dtype
        ``float16`` stores activations so, rounded; where that loses too much it is refused.
    codec
        Compression of the stored arrays.
    progress
        Called with checkpoints done, and in all.

    Raises
    ------
    DataError
        What cannot be read, is half there, or whose checkpoints do not go together. Before the first commit nothing is
        left behind; later the checkpoints before it are committed.
    StoreError
        The store holds another recording, has a writer, cannot be written or has too little room.
    TrainingError
        Activations that float16 cannot hold.

    Examples
    --------
    >>> for step in (0, 10):
    ...     np.save(f"step{step}.npy", np.random.default_rng(step).normal(size=(12, 4)))
    >>> run = featdyn.import_recording(["step0.npy", "step10.npy"], "imported.zarr", axes=["sample", "feature"])
    >>> run.values("step")
    array([ 0, 10])
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not given:
        raise DataError("there is nothing to import: name a path")
    with tempfile.TemporaryDirectory(prefix="featdyn-import-") as scratch:
        name, held = checkpoints(given, Scratch(Path(scratch)), format, axes, steps, step_pattern, layers)
        taken = {step: _chosen(one, layers) for step, one in held.items()}
        options = CaptureOptions(gradients=False, dtype="float16" if dtype else "float32", codec=codec)
        importing = _Import(name, taken, options, rounded=dtype is not None)
        with importing.writer(store, codec) as writer:
            importing.check_last(writer, store)
            done = writer.checkpoints
            estimate(writer.schema, 0, len(taken) - done, 1, locate(store)).check(store)
            for step in list(taken)[done:]:
                with writer.checkpoint() as files:
                    importing.write(step, files, writer)
                progress(writer.checkpoints, len(taken))
    return Run(store)


def _chosen(recorded: Recorded, patterns: Sequence[str]) -> Recorded:
    """Return a checkpoint with the layers that match; of gradients and weights nothing is left out."""
    wanted = {name for pattern in patterns for name in matching(pattern, recorded.layers)}
    if not wanted:
        raise DataError(f"no layer {', '.join(patterns)}; there are {', '.join(recorded.layers)}")
    kept = {name: layer for name, layer in recorded.layers.items() if name in wanted}
    return Recorded(kept, recorded.samples, recorded.coords, recorded.tensors)


class _Import:
    """All checkpoints of a recording by step, and how they are stored."""

    def __init__(self, name: str, taken: Mapping[int, Recorded], options: CaptureOptions, *, rounded: bool) -> None:
        self.taken, self.options, self.rounded = taken, options, rounded
        self.format, self.first = name, next(iter(taken.values()))

    def writer(self, store: str | Path, codec: Codec) -> RunWriter:
        """Return the writer of a new store, or of one that holds the first checkpoints of this."""
        coords = {
            "sample": np.array([f"{i:06d}" for i in range(self.first.samples)], dtype=object),
            **self.first.coords,
        }
        static = {"": sample_coords(coords), "cube": layer_names(self.first.layers)}
        stored = {**self.options.model_dump(mode="json", include={"codec", "sketch", "batch"}), "gradients": False}
        stored["dtype"] = "float16" if self.rounded else "source"
        attributes = {"capture": stored, "identity": {"imported from": self.format}}
        schema = Schema.build(self._arrays(), self.first.samples, codec)
        return writer_of(store, schema, static, {}, attributes)

    def _arrays(self) -> Iterator[ArraySpec]:
        for name in ("checkpoint", "step"):
            yield ArraySpec(name, (), (), "int64")
        for name, layer in self.first.layers.items():
            axes = layer.axes or dims(layer.shape)
            dtype = "float16" if self.rounded else layer.dtype
            lengths = (self.first.samples, *layer.shape)
            yield ArraySpec(f"layers/{check_name(name, 'layer')}/activation", ("sample", *axes), lengths, dtype)
        yield from cube_arrays(len(self.first.layers), self.first.samples, self.options)

    def check_last(self, writer: RunWriter, store: str | Path) -> None:
        """Raise StoreError where a store that is to be continued holds other steps, or other values at its last."""
        if not writer.checkpoints:
            return
        run, known = Run(store), list(self.taken)
        stored = [int(step) for step in run.values("step")]
        if stored != known[: len(stored)]:
            raise StoreError(f"{store}: holds another recording (steps {stored[:8]} there, {known[:8]} here)")
        samples = run.schema.block_slice(0)
        for name, layer in self.taken[stored[-1]].layers.items():
            path = f"layers/{name}/activation"
            found = layer.read(samples.start, samples.stop).astype(run.schema[path].dtype)
            if not np.array_equal(run.block(path, len(stored) - 1, 0, stored=True), found, equal_nan=True):
                raise StoreError(f"{store}: holds another recording ({name} has other values at step {stored[-1]})")

    def write(self, step: int, files: CheckpointWriter, writer: RunWriter) -> None:
        """Write one checkpoint."""
        recorded, schema = self.taken[step], writer.schema
        shards = Shards(writer.place, schema, {n: layer.shape for n, layer in recorded.layers.items()}, self.options)
        fit = Fit(self.options)
        for index in range(schema.blocks):
            shards.write(self._block(recorded, schema, index), files, fit)
        if self.rounded:
            fit.judge(files.index)
        for name, value in (("checkpoint", files.index), ("step", step)):
            files.write(name, np.array(value, "int64"))
        for kind, tensors in recorded.tensors().items():
            files.put(state_path(files.index, kind), [tensors_to_bytes(tensors)])

    def _block(self, recorded: Recorded, schema: Schema, index: int) -> Block:
        samples = schema.block_slice(index)
        rows = samples.stop - samples.start
        block = Block({}, {}, rows, index)
        for name, layer in recorded.layers.items():
            path = f"layers/{name}/activation"
            values = torch.from_numpy(layer.read(samples.start, samples.stop))
            if tuple(values.shape) != (rows, *layer.shape):
                raise DataError(f"layer {name}: {tuple(values.shape)} was read, not {(rows, *layer.shape)}")
            block.arrays[path] = torch.empty(values.shape, dtype=getattr(torch, schema[path].dtype))
            block.largest[path] = torch.as_tensor(rounded(values, block.arrays[path]))
        return block
