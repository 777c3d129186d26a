"""The features of a run's probes at its cuts, read from the store or computed again.

Batches have the shape they had when the run was recorded, so that what follows repeats the plain model's own
arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from featdyn.analysis.source import Rates, Source
from featdyn.capture import Probes
from featdyn.capture.tap import device_of
from featdyn.networks import Cut, features_at, state_for
from featdyn.store import Run


@dataclass(frozen=True)
class Batch:
    """Probes that pass the network together: samples ``start:stop`` of one block, filled up to a fixed shape."""

    block: int
    start: int
    stop: int
    inputs: Tensor
    labels: Tensor


def batches(run: Run, device: torch.device) -> Iterator[Batch]:
    """Yield the probes in the batches in which they were recorded."""
    inputs, labels = run.values("inputs/input"), run.values("inputs/target")
    probes = Probes(torch.from_numpy(inputs), torch.from_numpy(labels))
    size = min(run.attributes["capture"]["batch"], run.schema.shard_samples)
    for block in range(run.schema.blocks):
        samples = run.schema.block_slice(block)
        for start in range(samples.start, samples.stop, size):
            stop = min(start + size, samples.stop)
            yield Batch(block, start, stop, *probes.batch(start, stop, size, device))


def measure_rates(run: Run, model: nn.Module, cuts: Sequence[Cut], stored: set[str]) -> Rates:
    """Time one prefix pass and one read, to choose between them."""
    device = device_of(model)
    batch = next(batches(run, device))
    prefix = features_at(model, cuts)
    with torch.inference_mode():
        prefix(batch.inputs)
        _wait(device)
        start = time.perf_counter()
        prefix(batch.inputs)
        _wait(device)
    macs = cuts[-1].prefix_macs * len(batch.inputs) / (time.perf_counter() - start)
    rate = float("inf")
    for cut in cuts:
        if cut.name in stored:
            start = time.perf_counter()
            rate = run.block(f"layers/{cut.module}/activation", 0, 0).nbytes / (time.perf_counter() - start)
            break
    return Rates(macs, rate)


def _wait(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Features:
    """The features at all cuts for one batch and one t1, from the store or from one prefix pass."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        cuts: Sequence[Cut],
        states: Sequence[dict[str, Tensor]],
        sources: dict[str, Source],
    ) -> None:
        self._run, self._cuts, self._sources, self._device = run, cuts, sources, device_of(model)
        computed = [cut for cut in cuts if sources[cut.name] == "recomputed"]
        self._prefix = features_at(model, computed) if computed else None
        self._states = [state_for(self._prefix, state) if self._prefix is not None else {} for state in states]

    def __call__(self, batch: Batch, t1: int) -> list[Tensor]:
        """Return the features ``(N, ...)`` of a batch at each cut, of checkpoint ``t1``."""
        computed: Iterator[Tensor] = iter(())
        if self._prefix is not None:
            computed = iter(functional_call(self._prefix, self._states[t1], (batch.inputs,)))
        return [
            self._read(cut, batch, t1) if self._sources[cut.name] == "stored" else next(computed) for cut in self._cuts
        ]

    def whole(self, t1: int, kept: NDArray[np.intp]) -> list[Tensor]:
        """Return the features of some probes ``(len(kept), ...)`` at each cut, made in the recorded batches.

        All of them are in memory at once.
        """
        found: list[Tensor] = []
        for batch in batches(self._run, self._device):
            mine = np.flatnonzero((kept >= batch.start) & (kept < batch.stop))
            if not len(mine):
                continue
            rows = torch.from_numpy(kept[mine] - batch.start).to(self._device)
            with torch.inference_mode():
                for c, z in enumerate(self(batch, t1)):
                    if len(found) == c:
                        found.append(torch.empty(len(kept), *z.shape[1:], device=self._device))
                    found[c][torch.from_numpy(mine).to(self._device)] = z[rows].float()
        return found

    def _read(self, cut: Cut, batch: Batch, t1: int) -> Tensor:
        values = self._run.block(f"layers/{cut.module}/activation", t1, batch.block)
        first = self._run.schema.block_slice(batch.block).start
        index = np.minimum(np.arange(batch.start, batch.start + len(batch.inputs)), batch.stop - 1) - first
        return torch.from_numpy(values[index].astype(np.float32)).to(batch.inputs.device)
