"""Record a model while it trains: the one way from a running loop to the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from featdyn.capture import cube, layers, tap
from featdyn.capture.arrays import arrays, gradient_scale
from featdyn.capture.blocks import BUFFERS, Block, BlockWriter
from featdyn.capture.opening import fingerprint, open_run, same
from featdyn.capture.options import CaptureOptions
from featdyn.capture.plan import Plan, plan
from featdyn.capture.probes import Probes
from featdyn.capture.ranks import Ranks
from featdyn.capture.replica import buffers, checksums, with_buffers
from featdyn.errors import TrainingError
from featdyn.store import CheckpointWriter, RunPart, Schema
from featdyn.store.checkpoint import CheckpointFiles
from featdyn.store.files import FileRecord
from featdyn.store.reader import read_block, state_path
from featdyn.validation import validate

_ALIKE = "make the Recorder with the same arguments on every rank"
_ONE_NETWORK = "every rank must record the same whole network, as DistributedDataParallel has it, at the same steps"


@dataclass
class _Work:
    """One checkpoint on its way."""

    files: CheckpointFiles | None = None
    values: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)  # on rank 0, as are the states
    states: dict[str, bytes] = field(default_factory=dict)
    failure: BaseException | None = None

    def discard(self) -> None:
        if self.files is not None:
            self.files.discard()


class Recorder:
    """Record activations and gradients of probe samples, outputs and weights, checkpoint by checkpoint.

    Parameters
    ----------
    model
        Any module; each probe pass leaves its parameters, buffers, gradients, mode and random state untouched.
    probes
        The fixed samples.
    store
        A new folder, or the store of the same recording, which is then continued after its last commit.
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
        self._ranks = Ranks()  # first of all: whatever fails below on one rank, the others hear of it
        try:
            same(self._ranks.all(lambda: self._set_up(model, probes, every, coords, loss, options)), _ALIKE)
            attributes = {**(attributes or {}), "capture": self.options.model_dump(mode="json")}
            # The store comes last: what fails above leaves no folder and no lock behind.
            self._run = open_run(self._ranks, Path(store), self.schema, probes, self.layers, attributes)
        except BaseException:
            self._ranks.close()
            raise

    def _set_up(
        self,
        model: nn.Module,
        probes: Probes,
        every: int,
        coords: Sequence[str],
        loss: Callable[[Tensor, Tensor], Tensor] | None,
        options: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Make ready all but the store; return what must be the same on all ranks."""
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
        self._share = range(self._ranks.rank, self.schema.blocks, self._ranks.size)
        specs = [a for a in self.schema.arrays if a.dims[:1] == ("sample",)]
        self._blocks = BlockWriter(self.schema, specs, self._device, len(self._share))
        features = {name: int(np.prod(shape)) for name, shape in self.layers.items()}
        self._sketches = {name: cube.Sketch(name, n, self.options.sketch) for name, n in features.items()}
        self._commit: Future[None] | None = None
        claims = {"options": self.options, "every": every, "coords": self._coords, "layers": self.layers}
        return claims | {"arrays": self.schema, "probes": fingerprint(probes) if self._ranks.several else 0}

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints; one more may be on its way, see :meth:`wait`."""
        return self._run.checkpoints

    def plan(self, checkpoints: int, state: int = 0) -> Plan:
        """Return what so many checkpoints will need; ``state`` is the bytes kept besides parameters and buffers."""
        state += sum(t.nbytes for t in self._model.state_dict().values())
        return plan(self.schema, state, checkpoints, BUFFERS, self._run.path)

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
        self.wait()
        work = _Work()
        try:
            same(self._ranks.all(lambda: self._begin(work, step, state, coords)), _ONE_NETWORK)
            # It is also the answer that a part of a checkpoint waits for before it writes: rank 0 has the lock.
            theirs = self._ranks.first(lambda: buffers(self._model) if self._ranks.several else {})
            self._ranks.all(lambda: self._probe(work, theirs))
        except BaseException as error:
            work.failure = error
        self._commit = self._blocks.then(lambda blocks: self._finish(work, blocks))
        if work.failure is not None:
            self.wait()

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
            self._run.close()
            self._ranks.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(
        self, work: _Work, step: int, state: Mapping[str, Tensor] | None, coords: Mapping[str, float]
    ) -> dict[str, Any]:
        """Start a checkpoint; return what must be the same on all ranks."""
        if set(coords) != set(self._coords):
            raise ValueError(f"coords must be {', '.join(self._coords) or 'none'}, got {', '.join(coords) or 'none'}")
        work.files = self._run.checkpoint()
        self.steps = step
        if self._ranks.rank == 0:
            work.values = {"checkpoint": np.array(work.files.index, "int64"), "step": np.array(step, "int64")}
            work.values |= {name: np.array(coords[name], "float64") for name in self._coords}
            work.states["model"] = tensors_to_bytes(self._model.state_dict())
            if state is not None:
                work.states["optimizer"] = tensors_to_bytes(state)
        return {"step": step, "parameter": checksums(self._model) if self._ranks.several else {}}

    def _finish(self, work: _Work, blocks: list[Future[None]]) -> None:
        """Commit a checkpoint, or take its files away if anything failed on any rank; in the background."""

        def settle() -> list[FileRecord]:
            try:
                for block in blocks:
                    block.result()
                if work.failure is not None:
                    raise work.failure
                assert work.files is not None
                for name, value in work.values.items():
                    work.files.write(name, value)
                for kind, content in work.states.items():
                    work.files.put(state_path(work.files.index, kind), [content])
                return work.files.hand_over()
            except BaseException:
                work.discard()  # before the others hear of it: then rank 0 can clear what is left
                raise

        def publish() -> int:
            assert isinstance(work.files, CheckpointWriter)
            work.files.commit(record for part in handed for record in part)
            return self._run.checkpoints

        try:
            handed = self._ranks.all(settle)
        except BaseException:
            work.discard()
            raise
        checkpoints = self._ranks.first(publish)
        if isinstance(self._run, RunPart):
            self._run.checkpoints = checkpoints

    def _probe(self, work: _Work, theirs: Mapping[str, Tensor]) -> None:
        """Run the probe pass of one checkpoint over this rank's blocks, handing over block by block."""
        size = min(self.options.batch, self.schema.shard_samples)
        files = work.files
        assert files is not None
        with with_buffers(self._model, theirs):
            for index in self._share:
                samples = self.schema.block_slice(index)
                with self._blocks.filling(index, lambda full: self._write(full, files)) as block:
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

    def _write(self, block: Block, checkpoint: CheckpointFiles) -> None:
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
        values = read_block(self._run.path, self._run.schema, path, checkpoint - 1, block)
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
