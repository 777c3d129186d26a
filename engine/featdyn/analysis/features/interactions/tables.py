"""Outputs of a network of which players are masked: one table for each probe, cut and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from featdyn.analysis.features.interactions import InteractionsOptions
from featdyn.analysis.features.interactions.masking import Masking, Moments, components, entries
from featdyn.analysis.features.interactions.regions import Places, channels, choose, regions, superpixels, words
from featdyn.analysis.inputs.class_labels import class_logits
from featdyn.analysis.inputs.features_at_cuts import Batch
from featdyn.analysis.inputs.positions import mask_of
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.errors import FeatdynError
from featdyn.networks import Cut, state_for
from featdyn.statistics.interactions import log_odds
from featdyn.store import Run

ROWS = 256  # masked features that pass the suffix together
Found = tuple[NDArray[np.float32], NDArray[np.intp]]


@dataclass(frozen=True)
class Asked:
    """The probes of a table: places in the run, ascending, and all labels; which probes means are taken over."""

    probes: NDArray[np.intp]
    labels: NDArray[np.int64]
    members: NDArray[np.bool_]


class MaskedOutputs:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, asked: Asked, options: InteractionsOptions) -> None:
        self._parts, self._asked, self._options = parts, asked, options
        self._ids, self._real = run.coords["sample"].values, mask_of(run)
        self._moments = lru_cache(1)(self._moments_at)

    def tables(self, item: tuple[int, int]) -> Found:
        """Return log-odds ``(cut, probe, subset)`` and players ``(cut, probe, player)`` of a batch at a checkpoint.

        Where there are too few players, these are -1 and log-odds NaN.
        """
        t, b = item
        batch, state, cuts = self._parts.features.batches[b], self._parts.states[t], self._parts.cuts
        mine = self._asked.probes[(self._asked.probes >= batch.start) & (self._asked.probes < batch.stop)]
        found = np.full((len(cuts), len(mine), 2**self._options.players), np.nan, np.float32)
        players = np.full((len(cuts), len(mine), self._options.players), -1)
        with torch.inference_mode():
            for c, z in enumerate(self._parts.features(batch, t)):
                for i, probe in enumerate(mine):
                    chosen = self._chosen(z[probe - batch.start], int(probe))
                    if chosen is None:
                        continue
                    masking, players[c, i] = self._masking(c, t, z[probe - batch.start], *chosen), chosen[1]
                    logits = self._logits(cuts[c], state, masking, batch, int(probe))
                    with np.errstate(invalid="ignore"):
                        found[c, i] = log_odds(class_logits(logits), np.int64(self._asked.labels[probe]))
        return found, players

    def _chosen(self, z: Tensor, probe: int) -> tuple[Places, Places] | None:
        """Return into which sets a probe's entries fall, and its players; None where there are too few.

        They follow from the shape and the probe alone, so that they are the same at all checkpoints.
        """
        count, shape, kind = self._options.players, tuple(z.shape), self._options.kind
        if kind == "superpixels":
            if len(shape) != 3:
                raise FeatdynError(f"superpixels are of images (channel, height, width), not of inputs {shape}")
            whole = superpixels(z.double().cpu().numpy(), count)
        elif kind == "words":
            whole = words(shape, count, None if self._real is None else self._real[probe])
        elif kind == "patches":
            whole = regions(shape, count)
        else:
            whole = channels(shape, count)
        if whole is None:
            return None
        if kind == "components":
            return whole[0], np.arange(count)
        return whole[0], choose(whole[1], count, self._options.seed, str(self._ids[probe]))

    def _masking(self, c: int, t: int, z: Tensor, of_entry: Places, players: Places) -> Masking:
        if self._options.kind == "components":
            return components(z, self._moments(t)[c], len(players))
        return entries(z, of_entry, players, self._value(c, t, z))

    def _value(self, c: int, t: int, z: Tensor) -> Tensor:
        """Return what masked entries become."""
        masked = self._options.masked
        if not z.is_floating_point():
            if masked != "zero":
                raise FeatdynError("inputs are integers, which have no mean: leave --masked at zero, and give --token")
            return torch.full((), self._options.token, dtype=z.dtype, device=z.device)
        if masked == "zero":
            return torch.zeros((), dtype=z.dtype, device=z.device)
        moments = self._moments(t)[c]
        return (moments.mean if masked == "mean" else moments.channel_mean).to(z)

    def _moments_at(self, t: int) -> list[Moments]:
        """Return those of the features at each cut: a pass over all probes of the sets."""
        places, covariance = np.flatnonzero(self._asked.members), self._options.kind == "components"
        batches = self._parts.features.over(t, places)
        of_cut: list[Moments] = []
        for c in range(len(self._parts.cuts)):
            of_cut.append(Moments.of((z[c] for _, z in batches), covariance=covariance))
            batches = self._parts.features.over(t, places)  # again for each cut: no features are kept
        return of_cut

    def _logits(
        self, cut: Cut, state: dict[str, Tensor], masking: Masking, batch: Batch, probe: int
    ) -> NDArray[np.float64]:
        """Return the outputs ``(subset, class)`` of the suffix on a probe's masked features."""
        suffix, row, outputs = state_for(cut.suffix, state), probe - batch.start, []
        count = 2**self._options.players
        for start in range(0, count, ROWS):
            masked = masking(np.arange(start, min(start + ROWS, count)))

            def inputs(rows: int = len(masked)) -> Tensor:
                return batch.inputs[row : row + 1].expand(rows, *batch.inputs.shape[1:])

            outputs.append(functional_call(cut.suffix, suffix, (cut.handed(masked, inputs),)).double().cpu())
        return torch.cat(outputs).numpy()


def of_batches(run: Run, parts: Stitchable, probes: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the places among ``probes`` of those in each recorded batch."""
    return [np.flatnonzero((probes >= start) & (probes < stop)) for _, start, stop in parts.features.batches.spans]
