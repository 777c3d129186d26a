"""Which players of a probe's features or input are masked, and what masked ones become."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.interactions import Players
from featdyn.analysis.features.interactions.masking import Masking, Moments, components, entries
from featdyn.analysis.features.interactions.regions import Places, channels, choose, regions, superpixels, words
from featdyn.analysis.inputs.positions import mask_of
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.errors import FeatdynError
from featdyn.store import Run


class Masker:
    """The maskings of a run's features at its cuts; means are those over the probes of ``members (probe,)``."""

    def __init__(self, run: Run, parts: Stitchable, members: NDArray[np.bool_], options: Players) -> None:
        self._parts, self._members, self._options = parts, members, options
        self._ids, self._real = run.coords["sample"].values, mask_of(run)
        self._moments = lru_cache(1)(self._moments_at)

    def __call__(self, c: int, t: int, z: Tensor, probe: int) -> tuple[Masking, Places] | None:
        """Return the masking of one probe's features ``z`` at a cut and checkpoint, and its players.

        None where there are too few. Players follow from the shape and the probe alone, so that they are the same at
        all checkpoints.
        """
        whole = self._regions(z, probe)
        if whole is None:
            return None
        count = self._options.players
        if self._options.kind == "components":
            return components(z, self._moments(t)[c], count), np.arange(count)
        players = choose(whole[1], count, self._options.seed, str(self._ids[probe]))
        return entries(z, whole[0], players, self._value(c, t, z)), players

    def _regions(self, z: Tensor, probe: int) -> tuple[Places, Places] | None:
        """Return into which sets a probe's entries fall, and which of them may be players; None where too few may."""
        count, shape, kind = self._options.players, tuple(z.shape), self._options.kind
        if kind == "superpixels":
            if len(shape) != 3:
                raise FeatdynError(f"superpixels are of images (channel, height, width), not of inputs {shape}")
            return superpixels(z.double().cpu().numpy(), count)
        if kind == "words":
            return words(shape, count, None if self._real is None else self._real[probe])
        return regions(shape, count) if kind == "patches" else channels(shape, count)

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
        places, covariance = np.flatnonzero(self._members), self._options.kind == "components"
        return [  # a pass for each cut: no features are kept
            Moments.of((z[c] for _, z in self._parts.features.over(t, places)), covariance=covariance)
            for c in range(len(self._parts.cuts))
        ]
