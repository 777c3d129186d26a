"""Record while a Hugging Face ``Trainer`` trains: ``Trainer(..., callbacks=[Record(probes, "run.zarr")])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from featdyn.adapters.attached import Attached
from featdyn.capture import Probes


class Record(TrainerCallback):  # type: ignore[misc]  # of a library without types here
    """Record a model at its optimizer steps (``state.global_step``).

    Parameters
    ----------
    probes, store, every, options
        As :class:`featdyn.capture.Recorder` takes them. Inputs are best a dict, as the model takes them by name.
        ``coords`` are not taken: nobody says their values here.
    """

    def __init__(self, probes: Probes, store: str | Path, *, every: int | str = 1, **options: Any) -> None:
        self._attached = Attached(probes, store, every=every, **options)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Record where training begins."""
        self._attached.begin(model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record when it is due; where the trainer saves a checkpoint next, commit that first."""
        self._attached.at(state.global_step)
        if control.should_save:
            self._attached.wait()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Commit what is recorded: the trainer may save a checkpoint next."""
        self._attached.wait()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Commit what is recorded: where the best is kept, the trainer decides now whether to save a checkpoint."""
        self._attached.wait()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the last step."""
        self._attached.end()
