"""Outputs of a masked network and of linear probes on its layers: one table for each probe, layer and checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.interactions.masker import Masker
from featdyn.analysis.features.interactions.masking import Masking
from featdyn.analysis.features.interactions.tables import Asked, slices, taken
from featdyn.analysis.features.layer_interactions import LayerInteractionsOptions
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import DEAD, FEW, NO_TRAINING_PROBES, NOT_FINITE, ONE_CLASS
from featdyn.capture.axis import pooled
from featdyn.classes import class_logits
from featdyn.functional import functional_call
from featdyn.networks import features_at, state_for
from featdyn.statistics import softmax_probe
from featdyn.statistics.interactions import log_odds
from featdyn.store import Run

UNSEEN = "no_training_probe_has_its_label"


@dataclass(frozen=True)
class LayerProbe:
    """A linear probe of one layer's features: logits are ``(z - mean) @ weights + intercept``."""

    classes: NDArray[np.int64]
    mean: Tensor
    weights: Tensor  # (feature, class)
    intercept: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: NDArray[np.int64], origins: NDArray[np.int64]) -> LayerProbe | str:
        """Return the probe of training features ``(n, ...)``, or why there is none."""
        flat = features.flatten(1).to(torch.float64, copy=True)  # which is written to below
        if (classes := len(np.unique(labels))) < 2:
            return ONE_CLASS
        if len(labels) < 2 * classes or len(np.unique(origins)) < 2:
            return FEW
        if not torch.isfinite(flat).all():
            return NOT_FINITE
        mean = flat.mean(0)
        flat -= mean
        gram = (flat @ flat.T).cpu().numpy()
        if not gram.diagonal().max() > 0:
            return DEAD
        probe = softmax_probe.fit(gram, labels, origins)
        weights = torch.from_numpy(probe.weights).to(flat)
        return cls(probe.classes, mean, flat.T @ weights, torch.from_numpy(probe.intercept).to(flat))

    def logits(self, features: Tensor) -> NDArray[np.float64]:
        """Return logits ``(n, class)`` of features ``(n, ...)``."""
        found: NDArray[np.float64] = ((features.flatten(1).double() - self.mean) @ self.weights + self.intercept).numpy(
            force=True
        )
        return found


@dataclass(frozen=True)
class BatchTables:
    """Of the probes of one batch at one checkpoint."""

    v: NDArray[np.float32]  # (cut, probe, subset)
    output: NDArray[np.float32]  # (probe, subset)
    region: NDArray[np.intp]  # (probe, player), -1 where there are too few players
    reasons: dict[tuple[int, int], str]
    """Why there is no table of a cut and a probe, both by place."""


class LayerTables:
    """What tasks need: the network at its layers, and its input as a cut, which ``again`` makes."""

    def __init__(
        self,
        run: Run,
        parts: Stitchable,
        again: Callable[[], Stitchable],
        asked: Asked,
        fitted: NDArray[np.intp],
        origins: NDArray[np.int64],
        options: LayerInteractionsOptions,
    ) -> None:
        self._parts, self._asked, self._fitted, self._players = parts, asked, fitted, options.players
        self._token = options.token
        self._origins, self._inputs = origins, again()
        self._masker = Masker(run, self._inputs, asked.members, options)
        self._layers = features_at(parts.model, parts.cuts)
        self._readers = lru_cache(1)(self._readers_at)

    def tables(self, item: tuple[int, int]) -> BatchTables:
        """Return the tables of a batch at a checkpoint."""
        t, b = item
        batch, cuts = self._parts.features.batches[b], self._parts.cuts
        mine, readers = self._asked.of(batch), self._readers(t)
        v = np.full((len(cuts), len(mine), 2**self._players), np.nan, np.float32)
        output, region = np.full(v.shape[1:], np.nan, np.float32), np.full((len(mine), self._players), -1)
        reasons: dict[tuple[int, int], str] = {}
        with torch.inference_mode():
            inputs = self._inputs.features(batch, t)[0]
            for i, probe in enumerate(mine):
                z, label = inputs[probe - batch.start], int(self._asked.labels[probe])
                if (chosen := self._masker(0, t, z, int(probe))) is None:
                    continue
                masking, region[i] = chosen
                for c, reader in enumerate(readers):
                    if isinstance(reader, str):
                        reasons[c, i] = reader
                    elif label not in reader.classes:
                        reasons[c, i] = UNSEEN
                for subsets in slices(self._players):
                    self._fill(t, int(probe), masking, subsets, readers, label, v[:, i], output[i])
        return BatchTables(v, output, region, reasons)

    def _fill(
        self,
        t: int,
        probe: int,
        masking: Masking,
        subsets: NDArray[np.intp],
        readers: list[LayerProbe | str],
        label: int,
        v: NDArray[np.float32],
        output: NDArray[np.float32],
    ) -> None:
        """Compute some columns of a probe's tables, in one pass for all layers and the output."""
        cuts, state, masked = self._parts.cuts, self._parts.states[t], masking(subsets)
        with taken(masked, self._token):
            features = functional_call(self._layers, state_for(self._layers, state), (masked,))
        last = cuts[-1]
        handed = last.handed(features[-1], lambda: masked)
        logits = functional_call(last.suffix, state_for(last.suffix, state), (handed,)).double().numpy(force=True)
        with np.errstate(invalid="ignore"):
            output[subsets] = log_odds(class_logits(logits), np.int64(label))
            for c, (reader, z) in enumerate(zip(readers, features, strict=True)):
                if isinstance(reader, LayerProbe) and label in reader.classes:
                    place = np.searchsorted(reader.classes, label)
                    v[c, subsets] = log_odds(reader.logits(self._own(c, z, probe)), np.int64(place))

    def _own(self, c: int, z: Tensor, probe: int) -> Tensor:
        """Return features as linear probes take them: of positions with padding the mean over the others."""
        real = self._parts.features.padded.get(self._parts.cuts[c].name)
        if real is None:
            return z
        return pooled(z, real[[probe]].expand(len(z), -1).to(z.device), "mean")

    def _readers_at(self, t: int) -> list[LayerProbe | str]:
        """Return the linear probe of each layer, or why there is none: layer by layer, so that one is in memory."""
        labels = self._asked.labels[self._fitted]
        if not len(labels):
            return [NO_TRAINING_PROBES] * len(self._parts.cuts)
        found: list[LayerProbe | str] = []
        for c in range(len(self._parts.cuts)):
            features: Tensor | None = None
            for places, z in self._parts.features.over(t, self._fitted):
                if features is None:
                    features = z[c].new_empty(len(labels), *z[c].shape[1:])
                features[torch.from_numpy(places).to(features.device)] = z[c]
            assert features is not None
            found.append(LayerProbe.of(features, labels, self._origins[self._fitted]))
        return found
