"""Outputs of a network of which players are masked: one table for each probe, cut and checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.interactions import InteractionsOptions
from featdyn.analysis.features.interactions.masker import Masker
from featdyn.analysis.features.interactions.masking import Masking
from featdyn.analysis.inputs.features_at_cuts import Batch
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.suffix_banks import suffixes
from featdyn.classes import class_logits
from featdyn.errors import FeatdynError, first_line
from featdyn.functional import functional_call
from featdyn.networks import state_for
from featdyn.statistics.interactions import log_odds
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

ROWS = 256  # masked features that pass the suffix together
Found = tuple[NDArray[np.float32], NDArray[np.intp]]


@dataclass(frozen=True)
class Asked:
    """The probes of a table: places in the run, ascending, and all labels; which probes means are taken over."""

    probes: NDArray[np.intp]
    labels: NDArray[np.int64]
    members: NDArray[np.bool_]

    def of(self, batch: Batch) -> NDArray[np.intp]:
        """Return the probes of a batch."""
        return self.probes[(self.probes >= batch.start) & (self.probes < batch.stop)]


class MaskedOutputs:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, asked: Asked, options: InteractionsOptions) -> None:
        self._parts, self._asked, self._players = parts, asked, options.players
        self._masker, self._token = Masker(run, parts, asked.members, options), options.token
        self._banks = lru_cache(1)(self._banks_at)

    def tables(self, item: tuple[int, int]) -> Found:
        """Return log-odds ``(cut, probe, subset)`` and players ``(cut, probe, player)`` of a batch at a checkpoint.

        Where there are too few players, these are -1 and log-odds NaN.
        """
        t, b = item
        batch, cuts = self._parts.features.batches[b], self._parts.cuts
        mine = self._asked.of(batch)
        found = np.full((len(cuts), len(mine), 2**self._players), np.nan, np.float32)
        players = np.full((len(cuts), len(mine), self._players), -1)
        with torch.inference_mode():
            for c, z in enumerate(self._parts.features.of(batch, t, mine - batch.start)):
                for i, probe in enumerate(mine):
                    chosen = self._masker(c, t, z[i], int(probe))
                    if chosen is None:
                        continue
                    masking, players[c, i] = chosen
                    label = int(self._asked.labels[probe])
                    found[c, i] = self._log_odds(c, t, masking, batch, int(probe), label)
        return found, players

    def _log_odds(self, c: int, t: int, masking: Masking, batch: Batch, probe: int, label: int) -> NDArray[np.floating]:
        """Return the log-odds ``(subset,)`` that the suffix gives a label on a probe's masked features."""
        cut, row, found = self._parts.cuts[c], probe - batch.start, []
        for subsets in slices(self._players):
            masked = masking(subsets)

            def inputs(rows: int = len(masked)) -> Tensor:
                return batch.inputs[row : row + 1].expand(rows, *batch.inputs.shape[1:])

            handed = cut.handed(masked, inputs)
            if handed.is_floating_point():
                scores = self._banks(t)[c].run(handed, np.full(len(masked), label))
                found.append(scores.log_odds[0].numpy(force=True))
            else:  # such as words, of which kernels know nothing
                state = state_for(cut.suffix, self._parts.states[t])
                with taken(handed, self._token):
                    logits = functional_call(cut.suffix, state, (handed,)).double().numpy(force=True)
                with np.errstate(invalid="ignore"):
                    found.append(log_odds(class_logits(logits), np.int64(label)))
        return np.concatenate(found)

    def _banks_at(self, t: int) -> list[SuffixBank]:
        return suffixes(self._parts, [self._parts.states[t]])


@contextmanager
def taken(masked: Tensor, token: int) -> Iterator[None]:
    """Say so where a network does not know the token that masks words."""
    try:
        yield
    except IndexError as error:
        if masked.is_floating_point():
            raise
        raise FeatdynError(f"the network does not take words masked by --token {token}: {first_line(error)}") from error


def slices(players: int) -> Iterator[NDArray[np.intp]]:
    """Yield all subsets of players, those together that pass the network together."""
    for start in range(0, 2**players, ROWS):
        yield np.arange(start, min(start + ROWS, 2**players))


def of_batches(run: Run, parts: Stitchable, probes: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the places among ``probes`` of those in each recorded batch."""
    return [np.flatnonzero((probes >= start) & (probes < stop)) for _, start, stop in parts.features.batches.spans]
