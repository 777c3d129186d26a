"""A recorder that follows somebody else's training: what all callbacks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from featdyn.capture import Probes, Recorder


class Attached:
    """Records before training, after the optimizer steps that ``every`` says, and at the end.

    Parameters are those of :class:`featdyn.capture.Recorder`; the model comes with the training.
    """

    def __init__(self, probes: Probes, store: str | Path, *, every: int | str, **options: Any) -> None:
        self._arguments = probes, store
        self._options = {"every": every, **options}
        self._recorder: Recorder | None = None
        self._step = -1

    def begin(self, model: nn.Module, step: int) -> None:
        """Open the store, and record where training begins unless that is there already.

        A training that goes on beyond its first step goes on with the recording, also where a new one would overwrite
        it. Raises :class:`StoreError` as :meth:`featdyn.capture.Recorder.start` does.
        """
        how = {"resume": True, "overwrite": False} if step else {}
        recorder = Recorder(model, *self._arguments, **{**self._options, **how})
        try:
            recorder.start(step=step)
        except BaseException:
            recorder.close()
            raise
        self._recorder, self._step = recorder, step

    def wait(self) -> None:
        """Wait until what is recorded is committed, so that a checkpoint that the trainer saves is not ahead of it."""
        if self._recorder is not None:
            self._recorder.wait()

    def at(self, step: int) -> None:
        """Record when so many optimizer steps are done, if that is due; a step that was seen counts once."""
        if self._recorder is not None and step != self._step:
            self._step = step
            if self._recorder.cadence.due(step) and step > self._recorder.last_step:
                self._recorder.record(step=step)

    def end(self) -> None:
        """Record the last step and release the store."""
        if self._recorder is not None:
            self._recorder.wait()
            if self._step > self._recorder.last_step:
                self._recorder.record(step=self._step)
            self.release()

    def release(self) -> None:
        """Release the store without recording more."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()
