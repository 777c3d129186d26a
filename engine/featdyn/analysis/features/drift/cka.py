"""Are features of a run alike, and what can be read from them: CKA and linear probes on some probes of each set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.features.drift import DriftOptions
from featdyn.analysis.features.drift.linear_probe import fit
from featdyn.analysis.inputs.class_labels import grouping_labels
from featdyn.analysis.inputs.probe_sets import ProbeSets, one_of_each
from featdyn.analysis.inputs.rounded_away import vectors_rounded_away
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import DEAD, FEW, NO_LABELS, NO_TRAINING_PROBES, NOT_FINITE, ONE_CLASS, Status
from featdyn.statistics import cka
from featdyn.statistics.blas import one_thread
from featdyn.statistics.resampling import share_interval
from featdyn.store import Run

FIT = 8
"""So many float64 matrices of training probes are held by the fit of a linear probe, at most."""
ACROSS = ("cut", "cut2", "t1", "t2")
NEGATIVE = "similarity_to_itself_is_not_positive"


@dataclass(frozen=True)
class Found:
    """What one checkpoint adds at one cut; reasons are "" where nothing is missing."""

    gram: NDArray[np.float32]  # (n, n) of the probes that CKA is of
    alike: str
    right: list[NDArray[np.bool_]]  # for each set, which probes the linear probe has right
    wrong: list[str]  # for each set, why there is none
    penalty: float
    untrained: str


NOT_AMONG = "training_probes_are_not_among_the_sets"


class Similarity:
    """CKA and linear probes of a run, on the probes ``kept`` of each set.

    CKA is of test probes where there are any, else of the first set, one of each image: copies would be alike whatever
    the features. Linear probes learn from training probes.
    """

    def __init__(
        self, run: Run, parts: Stitchable, sets: ProbeSets, kept: list[NDArray[np.intp]], options: DriftOptions
    ) -> None:
        self._run = run
        self._parts, self._kept, self._names = parts, kept, sets.names
        self.name = options.test if options.test in sets.names else sets.names[0]
        self._alike, self._train = sets.names.index(self.name), sets.index(options.train)
        coords = run.coords
        self.labels = next((name for name in ("true_label", "label") if name in coords), "")
        """The coordinate that linear probes are fitted to and judged by."""
        self._no_training = NOT_AMONG if ProbeSets.of(run).member(options.train).any() else NO_TRAINING_PROBES
        self._labels = grouping_labels(run, self.labels)
        self._origins = [sets.origins[mine] for mine in kept]
        images = self._origins[self._alike]
        single = one_of_each(np.arange(len(images)), images, np.random.default_rng(options.seed))
        self._single = torch.from_numpy(single)
        # Of each set, the places of those that have a label.
        self._labelled = [np.flatnonzero(self._labels[mine] >= 0) for mine in kept]

    @property
    def images(self) -> int:
        """How many probes CKA is of."""
        return len(self._single)

    @property
    def task_bytes(self) -> int:
        """Bytes that :meth:`at` holds, beside batches on their way."""
        cuts, train = self._parts.cuts, 0 if self._train is None else len(self._kept[self._train])
        probes, widest = sum(map(len, self._kept)), 4 * max(prod(cut.shape) for cut in cuts)
        gram = 4 * self.images**2
        return probes * (self._parts.sample_bytes + 2 * widest) + len(cuts) * gram + FIT * 8 * train**2

    @property
    def result_bytes(self) -> int:
        """Bytes that :meth:`collect` holds."""
        n, matrices = self.images, len(self._parts.cuts) * len(self._parts.states)
        return min(4 * matrices * n**2, cka.HELD) + 4 * 8 * n**2 + 12 * 8 * matrices**2

    def at(self, t: int) -> list[Found]:
        """Return what is found at one checkpoint for each cut: its features at all of them are in memory at once."""
        found, train = list[Found](), self._train
        features = self._parts.features.whole(t, np.concatenate(self._kept))
        while features:
            z: Sequence[Tensor] = torch.split(features.pop(0).flatten(1), [len(mine) for mine in self._kept])
            cut = self._parts.cuts[len(found)].name
            flaws = [self._rounded(cut, part) or _flaw(part) for part in z]
            single = z[self._alike][self._single.to(z[self._alike].device)]
            alike, gram = self._rounded(cut, single) or _flaw(single), np.zeros((self.images, self.images), np.float32)
            if not alike:  # by its own mean, from which that of other sets may be far away
                gram = _own(_centred(single, _mean(single))[0])
            untrained = self._untrained(flaws)
            right, penalty = [np.zeros(0, bool)] * len(z), np.nan
            if train is not None and not untrained:
                z = [part[torch.from_numpy(mine).to(part.device)] for part, mine in zip(z, self._labelled, strict=True)]
                mean = _mean(z[train])
                own, unit = _centred(z[train], mean)
                of_train = _own(own)
                with one_thread(len(own)):
                    probe = fit(of_train, self._labels_of(train), self._origins_of(train))
                penalty = probe.penalty
                for s, part in enumerate(z):
                    if flaws[s] != NOT_FINITE and len(part):
                        said = probe.left_out
                        if s != train:  # in its own unit, as another set's may be far from the training set's
                            other, of_other = _centred(part, mean)
                            inner = np.ldexp(_inner(other, own).astype(np.float64), of_other - unit)
                            said = probe.predict(inner, self._origins_of(s))
                        right[s] = said == self._labels_of(s)
            wrong = [untrained or (NOT_FINITE if flaw == NOT_FINITE else "") for flaw in flaws]
            wrong = [why or ("" if len(mine) else NO_LABELS) for why, mine in zip(wrong, self._labelled, strict=True)]
            found.append(Found(gram, alike, right, wrong, penalty, untrained))
        return found

    def _rounded(self, cut: str, z: Tensor) -> str:
        if self._parts.sources[cut] != "stored":
            return ""
        spec, x = self._run.schema[f"layers/{cut}/activation"], z.numpy(force=True)
        return vectors_rounded_away(spec, x, averaged=False)

    def _labels_of(self, s: int) -> NDArray[np.int64]:
        return np.asarray(self._labels[self._kept[s][self._labelled[s]]])

    def _origins_of(self, s: int) -> NDArray[np.int64]:
        return self._origins[s][self._labelled[s]]

    def _untrained(self, flaws: list[str]) -> str:
        """Return why no linear probe can be fitted, or nothing."""
        if self._train is None:
            return self._no_training
        if not any(len(mine) for mine in self._labelled):
            return NO_LABELS
        if len(np.unique(self._origins_of(self._train))) < 2:
            return FEW
        if len(np.unique(self._labels_of(self._train))) < 2:
            return ONE_CLASS
        return flaws[self._train]

    def collect(self, found: Iterable[list[Found]]) -> xr.Dataset:
        """Return CKA between all cuts and checkpoints, and the accuracy of linear probes, from all checkpoints."""
        cuts, steps, sizes = len(self._parts.cuts), len(self._parts.states), [len(mine) for mine in self._kept]
        shape = cuts, len(sizes), steps
        accuracy, status = np.full((3, *shape), np.nan), Status(("cut", "set", "t"), shape)
        penalty, fitted = np.full((cuts, steps), np.nan), Status(("cut", "t"), (cuts, steps))
        grams, flaws = cka.Grams(cuts * steps, self.images), np.full((cuts, steps), "", dtype=object)
        for t, of_cuts in enumerate(found):
            for c, mine in enumerate(of_cuts):
                grams.put(c * steps + t, mine.gram)
                flaws[c, t], penalty[c, t] = mine.alike, mine.penalty
                if mine.untrained:
                    fitted.mark(mine.untrained, (c, t))
                for s, reason in enumerate(mine.wrong):
                    if reason:
                        status.mark(reason, (c, s, t))
                        continue
                    share = share_interval(mine.right[s], groups=self._origins_of(s))
                    accuracy[:, c, s, t] = share.estimate, share.low, share.high
        result = self._alignment(grams, flaws)
        for values, name in zip(accuracy, ("", "_low", "_high"), strict=True):
            result[f"linear_accuracy{name}"] = status.dims, values
        result["linear_status"], result["penalty_status"] = status.variable(), fitted.variable()
        result["linear_penalty"] = fitted.dims, penalty
        return result.assign_coords(used=("set", sizes))

    def _alignment(self, grams: cka.Grams, flaws: NDArray[np.object_]) -> xr.Dataset:
        cuts, steps = flaws.shape
        found, n, result = grams.alignment(), self.images, xr.Dataset()
        for name, explained, least, values in (
            ("cka", "cka_status", n >= 2, found.biased),
            ("cka_debiased", "cka_debiased_status", n >= 4, found.debiased),
            ("cka_debiased_low", "cka_interval_status", n >= 5, found.low),
            ("cka_debiased_high", "cka_interval_status", n >= 5, found.high),
        ):
            square = values.reshape(cuts, steps, cuts, steps).transpose(0, 2, 1, 3)
            status = Status(ACROSS, square.shape)
            if not least:
                status.mark(FEW)
            for reason in dict.fromkeys((NOT_FINITE, *flaws[flaws != ""])):
                own = flaws == reason
                if own.any():
                    status.mark(reason, own[:, None, :, None] | own[None, :, None, :])
            status.mark(NEGATIVE, np.isnan(square))
            result[name], result[explained] = (ACROSS, np.where(status.computed, square, np.nan)), status.variable()
        return result


def _flaw(z: Tensor) -> str:
    """Return why features ``(probe, feature)`` cannot be compared, or nothing."""
    if not bool(z.isfinite().all()):
        return NOT_FINITE
    spread, size = (z - z[:1]).abs().amax(), z.abs().amax()
    return "" if bool(spread > torch.finfo(z.dtype).eps * size) else DEAD


def _mean(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of features, as a number of their own precision and what that leaves of it."""
    exact = z.mean(0, dtype=torch.float64)
    mean = exact.to(z.dtype)
    return mean, (exact - mean).to(z.dtype)


def _centred(z: Tensor, mean: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return features less a mean, in a unit 2^e in which their products stay within float32, and e."""
    z = (z - mean[0]).sub_(mean[1])  # of features close to each other nothing is lost, however far from 0 they are
    exponent = math.frexp(float(torch.linalg.vector_norm(z, torch.inf)))[1]
    if abs(exponent) <= 40:
        return z, 0
    exponent = max(-126, min(126, exponent))
    return z.mul_(2.0**-exponent), exponent


def _own(z: Tensor) -> NDArray[np.float32]:
    return _inner(z, z)


def _inner(a: Tensor, b: Tensor) -> NDArray[np.float32]:
    product: NDArray[np.float32] = (a @ b.T).cpu().numpy()
    return product
