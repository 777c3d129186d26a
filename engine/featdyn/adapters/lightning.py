"""Record while a Lightning ``Trainer`` trains: ``Trainer(callbacks=[Record(probes, "run.zarr", every=100)])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    from pytorch_lightning import Callback, LightningModule, Trainer

from featdyn.adapters.attached import Attached
from featdyn.capture import Probes


class Record(Callback):  # type: ignore[misc]  # of a library without types here
    """Record a ``LightningModule`` at its optimizer steps (``trainer.global_step``).

    Parameters
    ----------
    probes, store, every, options
        As :class:`featdyn.capture.Recorder` takes them. ``coords`` are not taken: nobody says their values here.
    """

    def __init__(self, probes: Probes, store: str | Path, *, every: int | str = 1, **options: Any) -> None:
        self._attached = Attached(probes, store, every=every, **options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record where training begins."""
        self._attached.begin(pl_module, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Record when it is due."""
        self._attached.at(trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Commit first what is recorded."""
        self._attached.wait()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the last step."""
        self._attached.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what is recorded."""
        self._attached.release()
