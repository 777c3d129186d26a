"""Predictions of every composite network: the prefix of checkpoint t1 with the suffix of checkpoint t2.

Loops are ordered so that no prefix is computed, and no feature read, more than once: for each batch of probes and
each t1, the features at all cuts are made once and meet the suffixes of all t2 while they are at hand. Batches have the
shape they had when the run was recorded, so that the diagonal repeats the plain model's own arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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
from featdyn_kernels.stitch import SuffixBank


@dataclass(frozen=True)
class Composites:
    """What the grid left, per cut, t1, t2 and probe."""

    prediction: NDArray[np.uint16]
    loss: NDArray[np.float32]
    paths: list[str]  # how each cut's suffixes ran: "fused" or "general"


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
        start = time.perf_counter()
        prefix(batch.inputs)
    macs = cuts[-1].prefix_macs * len(batch.inputs) / (time.perf_counter() - start)
    rate = float("inf")
    for cut in cuts:
        if cut.name in stored:
            start = time.perf_counter()
            rate = run.block(f"layers/{cut.module}/activation", 0, 0).nbytes / (time.perf_counter() - start)
            break
    return Rates(macs, rate)


def evaluate(
    run: Run,
    model: nn.Module,
    cuts: Sequence[Cut],
    states: Sequence[dict[str, Tensor]],
    sources: dict[str, Source],
    progress: Callable[[int, int], None] | None = None,
) -> Composites:
    """Run every composite on every probe.

    Parameters
    ----------
    model
        The network in eval mode; the cuts are its own.
    states
        Parameters and buffers of each checkpoint. Buffers travel with their layers: a suffix brings the BatchNorm
        statistics of its own checkpoint.
    sources
        Where the features at each cut come from.
    progress
        Called with (pairs done, pairs in all).
    """
    steps, device = len(states), device_of(model)
    shape = (len(cuts), steps, steps, run.schema.samples)
    prediction, loss = np.empty(shape, np.uint16), np.empty(shape, np.float32)
    banks = [SuffixBank.from_states(cut.suffix, states) for cut in cuts]
    features = _Features(run, model, cuts, states, sources)
    parts = list(batches(run, device))
    done, total = 0, len(parts) * steps
    with torch.inference_mode():
        for batch in parts:
            rows, span = batch.stop - batch.start, slice(batch.start, batch.stop)
            for t1 in range(steps):
                for c, z in enumerate(features(batch, t1)):
                    found = banks[c].run(z, batch.labels)
                    prediction[c, t1, :, span] = found.predictions[:, :rows].cpu().numpy()
                    loss[c, t1, :, span] = found.loss[:, :rows].cpu().numpy()
                done += 1
                if progress:
                    progress(done, total)
    return Composites(prediction, loss, [bank.path.name for bank in banks])


class _Features:
    """The features at all cuts for one batch and one t1, from the store or from one prefix pass."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        cuts: Sequence[Cut],
        states: Sequence[dict[str, Tensor]],
        sources: dict[str, Source],
    ) -> None:
        self._run, self._cuts, self._sources = run, cuts, sources
        computed = [cut for cut in cuts if sources[cut.name] == "recomputed"]
        self._prefix = features_at(model, computed) if computed else None
        self._states = [state_for(self._prefix, state) if self._prefix is not None else {} for state in states]

    def __call__(self, batch: Batch, t1: int) -> list[Tensor]:
        computed: Iterator[Tensor] = iter(())
        if self._prefix is not None:
            computed = iter(functional_call(self._prefix, self._states[t1], (batch.inputs,)))
        return [
            self._read(cut, batch, t1) if self._sources[cut.name] == "stored" else next(computed) for cut in self._cuts
        ]

    def _read(self, cut: Cut, batch: Batch, t1: int) -> Tensor:
        values = self._run.block(f"layers/{cut.module}/activation", t1, batch.block)
        first = self._run.schema.block_slice(batch.block).start
        index = np.minimum(np.arange(batch.start, batch.start + len(batch.inputs)), batch.stop - 1) - first
        return torch.from_numpy(values[index].astype(np.float32)).to(batch.inputs.device)
