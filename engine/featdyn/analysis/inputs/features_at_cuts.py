"""The features of a run's probes at its cuts, read from the store or computed again.

Batches have the shape they had when the run was recorded, so that what follows repeats the plain model's own
arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.inputs.feature_source import Rates, Source
from featdyn.analysis.inputs.one_input import Inputs, as_given
from featdyn.analysis.inputs.positions import padded_cuts
from featdyn.analysis.inputs.prefixes import Prefixes, PrefixOrder, pieces_of
from featdyn.analysis.inputs.weights import default_device, device_for
from featdyn.capture.axis import pooled
from featdyn.capture.probes import filled
from featdyn.capture.tap import device_of
from featdyn.functional import functional_call
from featdyn.networks import Cut, features_at, state_for
from featdyn.store import Run


@dataclass(frozen=True)
class Batch:
    """Probes that pass the network together: samples ``start:stop`` of one block, filled up to so many rows."""

    block: int
    start: int
    stop: int
    rows: int
    load: Callable[[str], Tensor] = field(repr=False)
    """Reads what is recorded of them under ``inputs``, when it is asked for: stored features need no inputs."""

    @cached_property
    def inputs(self) -> Tensor:
        """What the network takes."""
        return self.load("input")

    @cached_property
    def labels(self) -> Tensor:
        """The labels in use."""
        return self.load("target")

    def part(self, start: int, stop: int) -> Batch:
        """Return some of its probes, counted from its first, and no rows to fill up."""
        return Batch(
            self.block, self.start + start, self.start + stop, stop - start,
            lambda name: self.load(name)[start:stop],
        )  # fmt: skip


class Batches(Sequence[Batch]):
    """The probes in the batches in which they were recorded; in memory is one block of their inputs."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self._run, self._device = run, device
        self.size = min(run.described("capture").get("batch", run.schema.shard_samples), run.schema.shard_samples)
        self.spans: list[tuple[int, int, int]] = []  # block, start, stop
        for block in range(run.schema.blocks):
            samples = run.schema.block_slice(block)
            for start in range(samples.start, samples.stop, self.size):
                self.spans.append((block, start, min(start + self.size, samples.stop)))
        self._held: dict[str, tuple[int, Tensor]] = {}  # block, and its values
        self._inputs = Inputs(run)

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        span = self.spans[index]
        return Batch(*span, self.size, partial(self._load, *span))

    def _load(self, block: int, start: int, stop: int, name: str) -> Tensor:
        samples = self._run.schema.block_slice(block)
        held, values = self._held.get(name, (None, None))
        if values is None or held != block:
            if name == "input":
                values = self._inputs.of(samples)
            else:
                values = as_given(self._run, name, self._run.values(f"inputs/{name}", samples))
            self._held[name] = block, values
        return filled(values, start - samples.start, stop - samples.start, self.size).to(self._device)

    def rows(self, batch: Batch) -> tuple[int, slice]:
        """Return the place of the recorded batch that a batch is, or is part of, and the rows that it has of it."""
        index = next(i for i, (_, start, stop) in enumerate(self.spans) if start <= batch.start < stop)
        first = batch.start - self.spans[index][1]
        return index, slice(first, first + batch.rows)

    def of_block(self, block: int) -> list[int]:
        """Return the places of a block's batches."""
        return [i for i, span in enumerate(self.spans) if span[0] == block]


def measure_rates(run: Run, model: nn.Module, cuts: Sequence[Cut], stored: set[str]) -> Rates:
    """Time one prefix pass and one read, to choose between them."""
    device = device_of(model)
    batch = Batches(run, device)[0]
    prefix = features_at(model, cuts)
    with torch.inference_mode():
        prefix(batch.inputs)
        _wait(device)
        start = time.perf_counter()
        prefix(batch.inputs)
        _wait(device)
    macs = cuts[-1].prefix_macs * len(batch.inputs) / (time.perf_counter() - start)
    read = next((cut.name for cut in cuts if cut.name in stored), None)
    if read is None:
        return Rates(macs, float("inf"))
    start = time.perf_counter()
    return Rates(macs, run.block(f"layers/{read}/activation", 0, 0).nbytes / (time.perf_counter() - start))


def _wait(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Features:
    """The features at all cuts for one batch and one t1, from the store or from one prefix pass.

    With an ``order`` the network is larger than memory, and prefixes pass piece by piece between its ``places``.

    Without a model all are read. With ``masked``, and where the run has a mask, features at padding are 0, and of some
    probes there are means over the positions that are none; suffixes cannot use such.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module | None,
        cuts: Sequence[Cut],
        states: Sequence[dict[str, Tensor]],
        sources: dict[str, Source],
        *,
        masked: bool = False,
        places: Sequence[Cut] = (),
        order: PrefixOrder | None = None,
    ) -> None:
        masks = padded_cuts(run, cuts, sources) if masked else {}
        self.padded = {name: torch.from_numpy(mask) for name, mask in masks.items()}
        """Which positions are no padding ``(probe, position)``, of the cuts that have some."""
        self._run, self._cuts, self._sources = run, cuts, sources
        self.device = default_device() if model is None else device_for(model)
        self._stored = [f"layers/{cut.name}/activation" for cut in cuts if sources[cut.name] == "stored"]
        self._blocks: dict[str, tuple[tuple[int, int], NDArray[Any]]] = {}
        self.batches = Batches(run, self.device)
        computed = [cut for cut in cuts if sources[cut.name] == "recomputed"]
        self._prefix = features_at(model, computed) if model is not None and computed else None
        self._states = states
        self.computed = computed
        self._made: Prefixes | None = None
        """Of a network larger than memory."""
        if order is not None:
            self._made = Prefixes(pieces_of(run, places, self.device), computed, self.batches, order)

    @property
    def stored_bytes(self) -> int:
        """Bytes read from the store for all probes at one checkpoint."""
        return sum(self._run.schema[path].nbytes for path in self._stored)

    @property
    def block_bytes(self) -> int:
        """Bytes of the blocks that are held: inputs, and what is read of each stored cut."""
        rows = self._run.schema.shard_samples
        shapes = [node["shape"] for path, node in self._run.nodes.items() if path.startswith("inputs/input")]
        inputs: int = sum(4 * prod(shape[1:]) for shape in shapes)
        return rows * (inputs + sum(self._run.schema[path].sample_bytes for path in self._stored))

    def __call__(self, batch: Batch, t1: int) -> list[Tensor]:
        """Return the features ``(N, ...)`` of a batch at each cut, of checkpoint ``t1``."""
        found = self._as_made(batch, t1)
        for c, cut in enumerate(self._cuts):
            if (real := self.padded.get(cut.name)) is not None:
                mine = filled(real, batch.start, batch.stop, batch.rows).to(self.device)
                found[c] = pooled(found[c], mine, "none")
        return found

    def _as_made(self, batch: Batch, t1: int) -> list[Tensor]:
        computed = iter(() if self._prefix is None else self._computed(batch, t1))
        return [
            self.read(cut, batch, t1) if self._sources[cut.name] == "stored" else next(computed) for cut in self._cuts
        ]

    def _computed(self, batch: Batch, t1: int) -> list[Tensor]:
        """Return the features at the cuts that are computed, by one prefix pass, or as an earlier one has left them."""
        if self._made is not None:
            return self._made.at(batch, t1)
        assert self._prefix is not None
        kept = self._run.kept if self.device.type == "cpu" else None
        # A batch of other rows is another pass: its rounding may differ.
        keys = [
            (cut.name, cut.method, t1, batch.block, batch.start, batch.stop, batch.rows)
            for cut in self._cuts
            if self._sources[cut.name] == "recomputed"
        ]
        held = [z for key in keys if kept is not None and (z := kept.get(key)) is not None]
        if len(held) == len(keys):
            return [z.clone() for z in held]  # who is given them may change them
        state = state_for(self._prefix, self._states[t1])
        found = list(functional_call(self._prefix, state, (batch.inputs,)))
        if kept is not None:
            for key, z in zip(keys, found, strict=True):
                kept.put(key, z.detach().clone())
        return found

    def of(self, batch: Batch, t1: int, rows: NDArray[np.intp]) -> list[Tensor]:
        """Return the features ``(rows, ...)`` of some rows of a batch at each cut.

        Where few are asked for and all is stored, the chunks that hold them are read, not the block.
        """
        specs = [self._run.schema[path] for path in self._stored]
        few = all(len(rows) * self._run.schema.chunk_samples(spec) <= batch.rows for spec in specs)
        if not few or len(specs) < len(self._cuts) or self.padded:
            return [z[torch.from_numpy(rows).to(self.device)] for z in self(batch, t1)]
        places = rows + batch.start - self._run.schema.block_slice(batch.block).start
        found = []
        for spec in specs:
            parts = [self._run.block(spec.path, t1, batch.block, rows=slice(i, i + 1)) for i in places.tolist()]
            found.append(torch.from_numpy(np.concatenate(parts)).to(self.device).float())
        return found

    def over(self, t1: int, kept: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], list[Tensor]]]:
        """Yield the features of some probes batch by batch, made in the recorded batches: places in ``kept``, and the
        features ``(places, ...)`` at each cut, float32, or float64 where the network computes so.

        Probes are in any order, each as often as it is wanted; one that there is not raises ``ValueError``.
        """
        if len(kept) and not 0 <= kept.min() <= kept.max() < self._run.schema.samples:
            raise ValueError(f"kept must lie in 0 to {self._run.schema.samples - 1}, got {kept.min()} to {kept.max()}")
        for i, (_, start, stop) in enumerate(self.batches.spans):
            mine = np.flatnonzero((kept >= start) & (kept < stop))
            if not len(mine):
                continue
            rows = kept[mine] - start
            together = bool((np.diff(rows) == 1).all())  # as most sets are: no copy then
            index = slice(rows[0], rows[-1] + 1) if together else torch.from_numpy(rows).to(self.device)
            with torch.inference_mode():
                found = [z[index].to(torch.promote_types(z.dtype, torch.float32)) for z in self(self.batches[i], t1)]
                for c, cut in enumerate(self._cuts):
                    if (real := self.padded.get(cut.name)) is not None:
                        found[c] = pooled(found[c], real[kept[mine]].to(self.device), "mean")
                yield mine, found

    def whole(self, t1: int, kept: NDArray[np.intp]) -> list[Tensor]:
        """Return the features of some probes ``(len(kept), ...)`` at each cut: all of them are in memory at once."""
        found: list[Tensor] = []
        for mine, features in self.over(t1, kept):
            for c, z in enumerate(features):
                if len(found) == c:
                    found.append(torch.empty(len(kept), *z.shape[1:], dtype=z.dtype, device=self.device))
                found[c][torch.from_numpy(mine).to(self.device)] = z
        return found

    def read(self, cut: Cut, batch: Batch, t1: int) -> Tensor:
        """Return the stored features of a batch at one cut, float32."""
        held, values = self._blocks.get(cut.name, (None, None))
        if values is None or held != (t1, batch.block):  # several batches share a block, which may be compressed
            self._blocks.pop(cut.name, None)
            del values  # the block before is not held beside this one
            values = self._run.block(f"layers/{cut.name}/activation", t1, batch.block)
            self._blocks[cut.name] = (t1, batch.block), values
        first = self._run.schema.block_slice(batch.block).start
        part = values[batch.start - first : batch.stop - first]
        short = batch.rows - len(part)
        whole = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part.copy()
        return torch.from_numpy(whole).to(self.device).float()  # torch converts halves faster than numpy
