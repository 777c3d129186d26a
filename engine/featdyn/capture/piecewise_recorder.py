"""Records a network larger than memory at checkpoints that exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from featdyn.capture.call import Call
from featdyn.capture.options import CaptureOptions
from featdyn.capture.piecewise import Opened, Piecewise
from featdyn.capture.probed_pieces import ProbedPieces
from featdyn.capture.probes import Probes
from featdyn.capture.recorder import Recorder
from featdyn.errors import NetworkError


class PiecewiseRecorder(Recorder):
    """A recorder of a network that goes piece by piece, without gradients.

    ``room`` and ``said`` are as :class:`featdyn.capture.probed_pieces.ProbedPieces` takes them. Other parameters and
    errors are those of :class:`featdyn.capture.Recorder`; NetworkError also where the room is too little.
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
        self._pieces, self._room, self._said = network, room, said
        super().__init__(network.network, probes, store, **options)

    def _probed(self, model: nn.Module, probes: Probes, call: Call) -> ProbedPieces:
        limit = self._pieces, self._room, self._said
        return ProbedPieces(*limit, probes, self.options, self._axes, call, self._coords, self._ranks)

    def __enter__(self) -> Self:
        return self

    def record_with(self, step: int, weights: Opened) -> None:
        """Record a checkpoint, and return when it is committed."""
        with self._pieces.holding(weights):
            self.record(step=step)
            self.wait()


def few_inputs(probes: Probes) -> Tensor:
    """Return some inputs, ``(N, ...)``; NetworkError where a sample has several, of which pieces know nothing."""
    found = probes.few(torch.device("cpu"))[0]
    if not isinstance(found, Tensor):
        raise NetworkError(
            "a network larger than memory passes piece by piece if it takes one tensor, and these probes have several"
        )
    return found
