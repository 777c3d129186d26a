"""Record a model while it trains: the one way from a running loop to the store."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from featdyn.capture.asked import asked
from featdyn.capture.cadence import Cadence
from featdyn.capture.call import Call, Loss
from featdyn.capture.fit import Fit
from featdyn.capture.meter import Meter
from featdyn.capture.open_store import check_alike, open_store
from featdyn.capture.options import CaptureOptions
from featdyn.capture.pending_checkpoint import PendingCheckpoint
from featdyn.capture.probed_network import ProbedNetwork
from featdyn.capture.probes import Probes
from featdyn.capture.ranks import Ranks
from featdyn.capture.recording_needs import RecordingNeeds
from featdyn.capture.replica import buffers, checksums
from featdyn.capture.resume import begun, check_begin, last_checkpoint
from featdyn.capture.shards import Shards
from featdyn.capture.values import Number, number, tensors_to_bytes, whole
from featdyn.errors import StoreError
from featdyn.sizes import counted, size
from featdyn.store import Run, RunPart, RunWriter, Schema, locate
from featdyn.store.place import Place
from featdyn.validation import validate

_ALIKE = "make the Recorder with the same arguments on every rank"
_ONE_NETWORK = "every rank must record the same whole network, as DistributedDataParallel has it, at the same steps"


class Recorder:
    """Record activations and gradients of probe samples, outputs and weights, checkpoint by checkpoint.

    Where ``torch.distributed`` is initialised, all ranks record one run together: each makes the recorder with the same
    arguments and calls it at the same steps. Each runs the probe pass of its own blocks of samples (``schema.blocks``
    of at most 1024; rank r has blocks r, r + ranks, ...; with fewer blocks than ranks some have none) and writes their
    shards. Rank 0 alone holds the lock and commits, and what there is one of is rank 0's: weights, buffers, ``state``
    and ``coords``. What fails on one rank is an error on all, and leaves no part of the checkpoint.

    Parameters
    ----------
    model
        Any module; each probe pass leaves its parameters, buffers, gradients, mode and random state untouched.
    store
        A new folder or URL (``s3://bucket/run.zarr``), or the store of a recording. Several ranks need a folder.
    every
        :meth:`step` records at each such step; or a share of the steps (``"1%"``, each hundredth), ``"doubling"`` (1,
        2, 4, ...) or ``"10 per decade"``, see :class:`featdyn.capture.cadence.Cadence`.
    resume
        A training that was stopped goes on with the recording that is there: from its last checkpoint, whose weights
        have been loaded, or from the step that :meth:`start` is told. One that goes on in the same process needs not
        say so; a second start is refused: :meth:`start`, a step that is there, or a network whose weights are those of
        the first checkpoint, not of the last.
    overwrite
        Remove the recording that is there, if nobody writes it and nothing else lies in its folder.
    coords
        Names of the numbers given with each checkpoint besides ``step``, such as ``("epoch", "train_loss")``.
    loss
        ``(outputs, labels) -> (sample,)`` loss of each sample, of all that the model returns; when None the
        cross-entropy of its logits, of one logit the binary one, and of logits and targets at positions the mean or
        sum over those that count (``token_loss``). Without labels and loss there are no gradients.
    forward
        ``(model, inputs) -> outputs``, where the model is not called as ``model(inputs)``, with a dict of inputs as
        ``model(**inputs)``, with a tuple as ``model(*inputs)``.
    output
        Which of several outputs counts as logits: a key, a place, or a function of the outputs; when None the one
        tensor that there is, or what is called ``logits``.
    attributes
        JSON-like notes, stored as attributes of the root.
    accept_changes
        Go on with a store also where network, loss or options are not what they were, as long as its arrays and probes
        are the same; what differs, when, and from which commit on is kept (``run.changes``, ``featdyn info``).
    **options
        Fields of :class:`featdyn.capture.CaptureOptions`: layers, record, gradients, dtype, codec, sketch, batch, pool,
        token_loss. ``layers`` may also be a mapping from patterns to an :class:`featdyn.Axis` or a pool.

    Raises
    ------
    NetworkError
        A layer that does not exist or cannot be recorded, such as one whose rows are not the samples: a few probes are
        tried in batches of other sizes and orders first.
    TypeError, ValueError
        A loss that is not one number a sample, labels that have no cross-entropy, or ``every`` that says no steps.
    StoreError
        The store holds another recording, has a writer, or cannot be written or, by all ranks, be seen.
    TrainingError
        Ranks whose arguments differ.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    >>> probes = Probes(torch.rand(6, 3), [0, 1, 0, 1, 0, 1])
    >>> with Recorder(model, probes, "own.zarr", every=2, layers=["0"]) as recorder:
    ...     recorder.start()  # step 0
    ...     for _ in range(3):
    ...         recorded = recorder.step()  # after each step of the optimizer
    ...     recorder.finish()  # the last step
    >>> recorder.checkpoints, recorder.last_step
    (3, 3)
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Probes,
        store: str | Path,
        *,
        every: int | str = 1,
        resume: bool = False,
        overwrite: bool = False,
        coords: Sequence[str] = (),
        loss: Loss = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        output: str | int | Callable[[Any], Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        accept_changes: bool = False,
        **options: Any,
    ) -> None:
        self.meter = Meter()
        self._ranks = Ranks()  # first of all: whatever fails below on one rank, the others hear of it
        try:
            if resume and overwrite:
                raise ValueError("resume goes on with a recording, overwrite removes it: give one of them")
            patterns, self._axes = asked(options.get("layers"))
            options |= {} if patterns is None else {"layers": patterns}
            call = Call(forward, output, loss)
            check_alike(self._ranks.all(lambda: self._set_up(model, probes, every, coords, call, options)), _ALIKE)
            self._ranks.all(lambda: self._network.needs(1, 0, locate(store)).check(store))
            self._commit: Future[None] | None = None
            self._planned = False
            identity = self._network.identity
            noted = {"capture": self.options.model_dump(mode="json"), "identity": identity, "call": call.said}
            # The store comes last: what fails above leaves no folder and no lock behind.
            self._run = open_store(
                self._ranks, store, self.schema, probes, self.layers, {**(attributes or {}), **noted},
                overwrite=overwrite, accept_changes=accept_changes,
            )  # fmt: skip
            try:
                run, few, recording = self._run, self.options.batch, self._network.recording
                accept = run.accept if accept_changes and isinstance(run, RunWriter) else None
                self._last, self._at_last = self._ranks.first(
                    lambda: last_checkpoint(run.place, recording, few, accept) if run.checkpoints else (-1, True)
                )
                anew = not resume and not self._at_last and run.checkpoints > 1
                if anew and self._ranks.first(lambda: recording.holds(Run(run.place), 0)):
                    raise begun(run.place, self._last)
                self._resume, self._accepts = resume or run.checkpoints == 0, accept_changes
                self._begun = False  # whether it is known that what comes follows on the last checkpoint
            except BaseException:
                self._run.close()
                raise
            self.steps = max(0, self._last)
            self.meter.follow(run.place)
            self._given: dict[str, float] | None = None  # with the step that was counted last, if any was
            keeps = self._network.kept_bytes(run.schema) > 0
            self._shards = Shards(
                run.place, run.schema, self.layers, self.options, recording.missing, keeps=keeps,
                moments=self._network.moments,
            )  # fmt: skip
        except BaseException:
            self._ranks.close()
            raise

    def _foretell(self) -> None:
        """Say what a checkpoint takes and how many there is room for, before the first and unless :meth:`plan` did."""
        if self.checkpoints or self._ranks.rank:
            return
        for said in self._network.recording.said:
            print(f"{self._run.place}: {said}", file=sys.stderr)
        if self._planned:
            return
        needs = self.plan(1)
        room = "" if needs.free is None else f"; {size(needs.free)} are free, room for {needs.free // needs.disk:,}"
        print(
            f"{self._run.place}: {counted(len(self.layers), 'layer')} of {counted(self.schema.samples, 'probe')}, "
            f"{size(needs.disk)} a checkpoint before compression{room}",
            file=sys.stderr,
        )

    def _set_up(
        self,
        model: nn.Module,
        probes: Probes,
        every: int | str,
        coords: Sequence[str],
        call: Call,
        given: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Make ready all but the store; return what must be the same on all ranks."""
        self.options = validate(CaptureOptions, given, "capture")
        self.cadence, self._coords = Cadence(every), tuple(coords)
        self._network = self._probed(model, probes, replace(call, tokens=self.options.token_loss))
        return {"options": self.options, "every": every, "coords": self._coords} | self._network.claims

    def _probed(self, model: nn.Module, probes: Probes, call: Call) -> ProbedNetwork:
        return ProbedNetwork(model, probes, self.options, self._axes, call, self._coords, self._ranks)

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The recorded layers, and the shape of one sample's features in each."""
        return self._network.layers

    @property
    def schema(self) -> Schema:
        """The arrays of a store as this recorder makes it."""
        return self._network.schema

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints; one more may be on its way, see :meth:`wait`."""
        return self._run.checkpoints

    @property
    def place(self) -> Place:
        """Where the store lies."""
        return self._run.place

    @property
    def last_step(self) -> int:
        """The step of the last checkpoint, -1 before the first."""
        return self._last

    def plan(self, checkpoints: int, state: int = 0) -> RecordingNeeds:
        """Return what so many checkpoints will need; ``state`` is the bytes kept besides parameters and buffers."""
        self._planned = True
        return self._network.needs(checkpoints, state, self._run.place)

    def start(self, *, step: int | None = None, **coords: Number) -> None:
        """Begin: record where training begins, or see that it goes on where a recording ends.

        A training that stands beyond the recording's last step, as a kill may leave it, is recorded now where a
        checkpoint is due; those that were due in between are put on record as missing (``run.changes``), and said.
        Coordinates that are not given are NaN.

        Parameters
        ----------
        step
            Training steps done. None is 0, or where a recording is resumed its last.
        **coords
            As :meth:`record` takes them.

        Raises
        ------
        StoreError
            The store held a recording and the recorder was not made with ``resume=True``; training is behind the
            recording, or has other weights at its last step, and ``accept_changes`` was not given.
        """
        self.wait()
        if not self._resume:
            raise begun(self._run.place, self._last)
        begin = None if step is None else whole("step", step)
        given = {**dict.fromkeys(self._coords, math.nan), **coords}
        if not self.checkpoints:
            self.record(step=begin or 0, state=None, **given)
        elif self._begun:
            if begin not in (None, self.steps):
                raise StoreError(
                    f"{self._run.place}: this recorder has begun and stands at step {self.steps}, not {begin}: to go "
                    "on from another step make a new one with resume=True"
                )
        else:
            self._go_on(begin, lambda: self._network.recording.holds(Run(self._run.place), self.checkpoints - 1))
            if self.steps > self._last and self.cadence.due(self.steps):
                self.record(step=self.steps, state=None, **given)

    def finish(self) -> None:
        """Record the last step that :meth:`step` counted, unless it is there already, with what that was given."""
        self.wait()
        if self._given is not None and self.steps > self._last:
            self.record(step=self.steps, state=None, **self._given)

    def step(self, **coords: Number) -> bool:
        """Count one training step, from the store's last on, and record when it is due; return whether it was.

        To be called after each step of the optimizer: where gradients are accumulated, not for each micro-batch.
        Raises :class:`StoreError` as :meth:`start` does, where that was not called.
        """
        given = self._numbers(coords)
        if not self._begun:
            self._go_on(None, lambda: self._at_last)  # as it was before this step
        self._given = given
        self.steps += 1
        due = self.steps > self._last and self.cadence.due(self.steps)
        if due:
            self.record(step=self.steps, state=None, **coords)
        return due

    def _go_on(self, step: int | None, at_last: Callable[[], bool]) -> None:
        """See that training goes on where the recording ends, and count from there."""
        due, accepts = self.cadence.due, self._accepts
        if self.checkpoints:
            run = cast(RunWriter, self._run)  # on rank 0
            self._ranks.first(lambda: check_begin(run, step, at_last(), due, accept_changes=accepts))
        self._begun, self.steps = True, max(0, self._last) if step is None else step

    def record(self, *, step: int, state: Mapping[str, Tensor] | None = None, **coords: Number) -> None:
        """Record one checkpoint; it is written and committed in the background while training goes on.

        The next call waits until it is committed, and so do :meth:`wait` and :meth:`close`; what went wrong in the
        background is raised there. Everything is copied before this returns.

        Parameters
        ----------
        step
            Training steps done, more than at the checkpoint before.
        state
            Further tensors to keep with it by name, such as the optimizer's, readable as ``run.state(t, "optimizer")``.
        **coords
            A number for each name in ``coords``, or a tensor of one (such as the loss).

        Raises
        ------
        StoreError, TypeError, ValueError
            The step is not beyond that of the checkpoint before, or what is given is not of these kinds.
        TrainingError
            Outputs are not finite, an activation or gradient is NaN, does not fit float16 or vanishes in it; parameters
            differ between ranks, or a rank has ended.
        """
        with self.meter:
            self.wait()
            self._foretell()
            pending = PendingCheckpoint(Fit(self.options, self._network.recording.probes.odd))
            try:
                check_alike(self._ranks.all(lambda: self._begin(pending, step, state, coords)), _ONE_NETWORK)
                # It is also the answer that a part of a checkpoint waits for before it writes: rank 0 has the lock.
                theirs = self._ranks.first(lambda: buffers(self._network.model) if self._ranks.several else {})
                self._ranks.all(lambda: self._network.probe(pending, theirs, self._shards))
            except BaseException as error:
                pending.failure = error
            self._commit = self._network.blocks.then(lambda blocks: self._finish(pending, blocks))
            if pending.failure is not None:
                self.wait()
        if not self._ranks.rank:
            self.meter.tell(self._run.place)

    def wait(self) -> None:
        """Wait until the last checkpoint is committed; raise what went wrong with it."""
        commit, self._commit = self._commit, None
        if commit is not None:
            with self.meter:
                commit.result()

    def close(self) -> None:
        """Wait for the last checkpoint and release the store."""
        try:
            self.wait()
        finally:
            self._network.blocks.close()
            self._run.close()
            self._ranks.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(
        self, pending: PendingCheckpoint, step: int, state: Mapping[str, Tensor] | None, coords: Mapping[str, Number]
    ) -> dict[str, Any]:
        """Start a checkpoint; return what must be the same on all ranks."""
        numbers, step = self._numbers(coords), whole("step", step)
        if step <= self._last:
            there = "is there already" if step in Run(self._run.place).values("step") else "is not there"
            raise begun(self._run.place, self._last, f"step {step} {there}; it ")
        self._network.check_shapes()
        pending.files = self._run.checkpoint()
        self.steps = pending.step = step
        self._begun = True
        if self._ranks.rank == 0:
            pending.values = {"checkpoint": np.array(pending.files.index, "int64"), "step": np.array(step, "int64")}
            pending.values |= {name: np.array(value, "float64") for name, value in numbers.items()}
            pending.states["model"] = self._network.content()
            if state is not None:
                pending.states["optimizer"] = [tensors_to_bytes(state)]
        return {"step": step, "parameter": checksums(self._network.model) if self._ranks.several else {}}

    def _numbers(self, coords: Mapping[str, Number]) -> dict[str, float]:
        if set(coords) != set(self._coords):
            raise ValueError(f"coords must be {', '.join(self._coords) or 'none'}, got {', '.join(coords) or 'none'}")
        return {name: number(name, coords[name]) for name in self._coords}

    def _finish(self, pending: PendingCheckpoint, blocks: list[Future[None]]) -> None:
        if self._network.moments is not None:
            pending.states |= {kind: [tensors_to_bytes(got)] for kind, got in self._network.moments.take().items()}
        checkpoints = pending.finish(self._ranks, blocks)
        self._last = pending.step
        if isinstance(self._run, RunPart):
            self._run.checkpoints = checkpoints
