"""Record a model while it trains: the one way from a running loop to the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save
from torch import Tensor, nn

from featdyn.capture import cube, layers, tap
from featdyn.capture.arrays import arrays, gradient_scale
from featdyn.capture.blocks import BUFFERS, Block, BlockWriter
from featdyn.capture.options import CaptureOptions
from featdyn.capture.plan import Plan, plan
from featdyn.capture.probes import Probes
from featdyn.errors import StoreError, TrainingError
from featdyn.provenance import provenance
from featdyn.store import CheckpointWriter, Run, RunWriter, Schema, exists
from featdyn.store.reader import read_block, state_path
from featdyn.validation import validate


class Recorder:
    """Record activations and gradients of probe samples, outputs and weights, checkpoint by checkpoint.

    Parameters
    ----------
    model
        Any module; each probe pass leaves its parameters, buffers, gradients, mode and random state untouched.
    probes
        The fixed samples.
    store
        A new folder or URL (``s3://bucket/run.zarr``), or the store of the same recording, which is then continued
        after its last commit.
    every
        :meth:`step` records at each such step.
    coords
        Names of the numbers given with each checkpoint besides ``step``, such as ``("epoch", "train_loss")``.
    loss
        ``(logits, labels) -> (batch,)`` loss of each sample; cross-entropy when None.
    attributes
        JSON-like notes, stored as attributes of the root.
    **options
        Fields of :class:`featdyn.capture.CaptureOptions`: layers, gradients, dtype, codec, sketch, batch.

    Raises
    ------
    NetworkError
        A layer that does not exist or cannot be recorded.
    StoreError
        The store holds another recording, is being written by somebody else, or cannot be written.

    Examples
    --------
    >>> with Recorder(model, probes, "run.zarr", every=100, coords=("train_loss",)) as recorder:  # doctest: +SKIP
    ...     recorder.record(step=0, train_loss=float("nan"))
    ...     for batch in batches:
    ...         loss = train_on(batch)
    ...         recorder.step(train_loss=loss)
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Probes,
        store: str | Path,
        *,
        every: int = 1,
        coords: Sequence[str] = (),
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        attributes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.options = validate(CaptureOptions, options, "capture")
        self.every = every
        self.steps = 0
        self._model = tap.plain(model)
        self._probes = probes
        self._loss = loss
        self._device = tap.device_of(self._model)
        self._coords = tuple(coords)
        example = probes.batch(0, 1, 1, self._device)
        self.layers = layers.select(self._model, *example, self.options.layers)
        logits = tap.run(self._model, *example, [], gradients=False, loss=loss).logits
        found = arrays(self.layers, tuple(logits.shape[1:]), len(probes), self.options, self._coords)
        self.schema = Schema.build(found, len(probes), self.options.codec)
        self._attributes = {**(attributes or {}), "capture": self.options.model_dump(mode="json")}
        specs = [a for a in self.schema.arrays if a.dims[:1] == ("sample",)]
        self._blocks = BlockWriter(self.schema, specs, self._device)
        features = {name: int(np.prod(shape)) for name, shape in self.layers.items()}
        self._sketches = {name: cube.Sketch(name, n, self.options.sketch) for name, n in features.items()}
        self._commit: Future[None] | None = None
        self._writer = self._open(store)  # last: what fails above leaves no folder and no lock behind

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints; one more may be on its way, see :meth:`wait`."""
        return self._writer.checkpoints

    def plan(self, checkpoints: int, state: int = 0) -> Plan:
        """Return what so many checkpoints will need; ``state`` is the bytes kept besides parameters and buffers."""
        state += sum(t.nbytes for t in self._model.state_dict().values())
        return plan(self.schema, state, checkpoints, BUFFERS, self._writer.place)

    def step(self, **coords: float) -> bool:
        """Count one training step and record when it is due; return whether it was."""
        self.steps += 1
        due = self.steps % self.every == 0
        if due:
            self.record(step=self.steps, state=None, **coords)
        return due

    def record(self, *, step: int, state: Mapping[str, Tensor] | None = None, **coords: float) -> None:
        """Record one checkpoint; it is written and committed in the background while training goes on.

        The next call waits until it is committed, and so do :meth:`wait` and :meth:`close`; what went wrong in the
        background is raised there. Everything is copied before this returns.

        Parameters
        ----------
        step
            Training steps done.
        state
            Further tensors to keep with it, such as the optimizer's, readable as ``run.state(t, "optimizer")``.
        **coords
            A number for each name in ``coords``.

        Raises
        ------
        TrainingError
            An activation or gradient is not finite, or does not fit float16.
        """
        if set(coords) != set(self._coords):
            raise ValueError(f"coords must be {', '.join(self._coords) or 'none'}, got {', '.join(coords) or 'none'}")
        self.wait()
        self.steps = step
        checkpoint = self._writer.checkpoint()
        values = {"checkpoint": np.array(checkpoint.index, "int64"), "step": np.array(step, "int64")}
        values |= {name: np.array(coords[name], "float64") for name in self._coords}
        states = {"model": tensors_to_bytes(self._model.state_dict())}
        if state is not None:
            states["optimizer"] = tensors_to_bytes(state)

        def commit(blocks: list[Future[None]]) -> None:
            with checkpoint:
                for block in blocks:
                    block.result()
                for name, value in values.items():
                    checkpoint.write(name, value)
                for kind, content in states.items():
                    checkpoint.put(state_path(checkpoint.index, kind), [content])

        try:
            self._probe(checkpoint)
        except BaseException as error:
            failed = type(error), error, None
            self._blocks.then(lambda blocks: checkpoint.__exit__(*failed)).result()  # takes its files away
            raise
        self._commit = self._blocks.then(commit)

    def wait(self) -> None:
        """Wait until the last checkpoint is committed; raise what went wrong with it."""
        commit, self._commit = self._commit, None
        if commit is not None:
            commit.result()

    def close(self) -> None:
        """Wait for the last checkpoint and release the store."""
        try:
            self.wait()
        finally:
            self._blocks.close()
            self._writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: str | Path) -> RunWriter:
        if exists(path):
            writer = RunWriter.open(path)
            same = sorted(writer.schema.arrays, key=str) == sorted(self.schema.arrays, key=str)
            same = same and writer.schema.shard_samples == self.schema.shard_samples
            if not same or Run(path).values("sample").tolist() != self._probes.coords["sample"].tolist():
                writer.close()
                raise StoreError(
                    f"{path}: holds another recording (other layers, probes or options); choose another path"
                )
            return writer
        coords = {
            name: values if name == "sample" else ("sample", values) for name, values in self._probes.coords.items()
        }
        inputs = self._probes.inputs.numpy()
        axes = ("probe", *layers.dims(inputs.shape[1:]))
        static = {
            "": xr.Dataset(coords=coords),
            "cube": xr.Dataset(coords={"layer": np.array(list(self.layers), dtype=object)}),
            "inputs": xr.Dataset({"input": (axes, inputs), "target": ("probe", self._probes.labels.numpy())}),
        }
        attributes = {**self._attributes, "provenance": provenance()}
        return RunWriter.create(path, self.schema, static=static, attributes=attributes)

    def _probe(self, checkpoint: CheckpointWriter) -> None:
        """Run the probe pass of one checkpoint, handing over block by block."""
        size = min(self.options.batch, self.schema.shard_samples)
        for index in range(self.schema.blocks):
            samples = self.schema.block_slice(index)
            with self._blocks.filling(index, lambda full: self._write(full, checkpoint)) as block:
                for start in range(samples.start, samples.stop, size):
                    stop = min(start + size, samples.stop)
                    batch = self._probes.batch(start, stop, size, self._device)
                    passed = tap.run(
                        self._model, *batch, list(self.layers), gradients=self.options.gradients, loss=self._loss
                    )
                    block.fill(start - samples.start, self._columns(passed, stop - start))

    def _columns(self, passed: tap.Pass, rows: int) -> dict[str, Tensor]:
        scale = gradient_scale(self.options)
        found = {f"layers/{name}/activation": values[:rows] for name, values in passed.activations.items()}
        found |= {f"layers/{name}/gradient": values[:rows] * scale for name, values in passed.gradients.items()}
        return found | {"outputs/logits": passed.logits[:rows], "outputs/loss": passed.loss[:rows]}

    def _write(self, block: Block, checkpoint: CheckpointWriter) -> None:
        rows = block.rows
        for path, memory in block.arrays.items():
            self._finite(path, memory[:rows], checkpoint.index)
            checkpoint.write(path, memory[:rows].numpy(), block.index)
        columns: dict[str, list[Tensor]] = {}
        for name in self.layers:
            path = f"layers/{name}/activation"
            values = block.arrays[path][:rows].flatten(1).float()
            found = cube.summaries(values, self._before(path, checkpoint.index, block.index))
            if self.options.gradients:
                gradient = block.arrays[f"layers/{name}/gradient"][:rows].flatten(1).float()
                found["gradient_norm"] = gradient.norm(dim=1) / gradient_scale(self.options)
            found["sketch"] = self._sketches[name](values)
            for key, value in found.items():
                columns.setdefault(key, []).append(value)
        for key, column in columns.items():
            checkpoint.write(f"cube/{key}", torch.stack(column).numpy(), block.index)

    def _before(self, path: str, checkpoint: int, block: int) -> Tensor | None:
        if checkpoint == 0:
            return None
        values = read_block(self._writer.place, self._writer.schema, path, checkpoint - 1, block)
        return torch.from_numpy(values.astype(np.float32)).flatten(1)

    def _finite(self, path: str, values: Tensor, checkpoint: int) -> None:
        if bool(torch.isfinite(values).all()):
            return
        where = f"{path} at checkpoint {checkpoint}"
        if bool(values.isnan().any()) or values.dtype == torch.float32:
            raise TrainingError(f"{where} is not finite: training has diverged, try a smaller learning rate")
        raise TrainingError(f"{where} does not fit float16 (largest 65504): record with dtype float32")


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the content of a safetensors file; tied tensors are written once for each name."""
    content: bytes = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    return content
