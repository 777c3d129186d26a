"""Are features of a run alike, and what can be read from them: CKA and linear probes on some probes of each set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.dissect import Dissected
from featdyn.analysis.probing import fit
from featdyn.analysis.sets import Sets
from featdyn.statistics import cka
from featdyn.statistics.blas import one_thread
from featdyn.statistics.resampling import wilson
from featdyn.store import Run


@dataclass(frozen=True)
class Found:
    """What one checkpoint adds at one cut."""

    gram: NDArray[np.float32]  # (n, n) of the probes that CKA is of
    right: list[float]  # for each set, the accuracy of the linear probe
    penalty: float


FIT = 8
"""So many float64 matrices of training probes are held by the fit of a linear probe, at most."""


class Similarity:
    """CKA and linear probes of a run.

    Parameters
    ----------
    kept
        For each set the probes that take part. CKA is of test probes where there are any, else of the first set;
        linear probes learn from training probes.
    """

    def __init__(self, run: Run, parts: Dissected, sets: Sets, kept: list[NDArray[np.intp]]) -> None:
        self._parts, self._kept = parts, kept
        self.name = "test" if "test" in sets.names else sets.names[0]
        self._alike = sets.names.index(self.name)
        self._train = sets.names.index("train") if "train" in sets.names else None
        coords = run.coords
        self._labels = coords["true_label" if "true_label" in coords else "label"].values

    @property
    def task_bytes(self) -> int:
        """Bytes that :meth:`at` holds, beside batches on their way."""
        cuts, train = self._parts.cuts, 0 if self._train is None else len(self._kept[self._train])
        probes, widest = sum(map(len, self._kept)), 4 * max(prod(cut.shape) for cut in cuts)
        gram = 4 * len(self._kept[self._alike]) ** 2
        return probes * (self._parts.sample_bytes + 2 * widest) + len(cuts) * gram + FIT * 8 * train**2

    @property
    def result_bytes(self) -> int:
        """Bytes that :meth:`collect` holds."""
        n, matrices = len(self._kept[self._alike]), len(self._parts.cuts) * len(self._parts.states)
        return min(4 * matrices * n**2, cka.HELD) + 4 * 8 * n**2 + 12 * 8 * matrices**2

    def at(self, t: int) -> list[Found]:
        """Return what is found at one checkpoint for each cut: its features at all of them are in memory at once."""
        found, train = [], self._train
        features = self._parts.features.whole(t, np.concatenate(self._kept))
        while features:
            of_sets: Sequence[Tensor] = torch.split(features.pop(0).flatten(1), [len(mine) for mine in self._kept])
            mean = of_sets[self._alike if train is None else train].mean(0)
            z = [part - mean for part in of_sets]
            gram = _inner(z[self._alike], z[self._alike])
            right, penalty = [np.nan] * len(z), np.nan
            if train is not None and np.isfinite(own := _inner(z[train], z[train])).all():
                with one_thread(len(own)):
                    probe = fit(own, self._labels[self._kept[train]])
                penalty = probe.penalty
                for s, mine in enumerate(self._kept):
                    said = probe.left_out if s == train else probe.predict(_inner(z[s], z[train]))
                    right[s] = float((said == self._labels[mine]).mean())
            found.append(Found(gram, right, penalty))
        return found

    def collect(self, found: Iterable[list[Found]]) -> xr.Dataset:
        """Return CKA between all cuts and checkpoints, and the accuracy of linear probes, from all checkpoints."""
        cuts, steps, sizes = len(self._parts.cuts), len(self._parts.states), [len(mine) for mine in self._kept]
        right, penalty = np.full((cuts, len(sizes), steps), np.nan), np.full((cuts, steps), np.nan)
        grams = cka.Grams(cuts * steps, sizes[self._alike])
        for t, of_cuts in enumerate(found):
            for c, mine in enumerate(of_cuts):
                grams.put(c * steps + t, mine.gram)
                right[c, :, t], penalty[c, t] = mine.right, mine.penalty
        result = xr.Dataset({"used": ("set", sizes)}).set_coords("used")
        alignment = grams.alignment()
        named = {"": alignment.debiased, "_low": alignment.low, "_high": alignment.high}
        for name, values in {"cka": alignment.biased, **{f"cka_debiased{e}": v for e, v in named.items()}}.items():
            square = values.reshape(cuts, steps, cuts, steps).transpose(0, 2, 1, 3)
            result[name] = ("cut", "cut2", "t1", "t2"), square
        if self._train is not None:
            bounds = [wilson(right[:, s], size) for s, size in enumerate(sizes)]
            result["linear_accuracy"] = ("cut", "set", "t"), right
            result["linear_accuracy_low"] = ("cut", "set", "t"), np.stack([low for low, _ in bounds], 1)
            result["linear_accuracy_high"] = ("cut", "set", "t"), np.stack([high for _, high in bounds], 1)
            result["linear_penalty"] = ("cut", "t"), penalty
        return result


def _inner(a: Tensor, b: Tensor) -> NDArray[np.float32]:
    product: NDArray[np.float32] = (a @ b.T).cpu().numpy()
    return product
