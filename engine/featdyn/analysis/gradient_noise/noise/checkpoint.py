"""Noise at one checkpoint after the other: what one task does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.gradient_noise.gram_arrays import gram_of, stacked, to_arrays
from featdyn.analysis.gradient_noise.linear_response import Features, doubled
from featdyn.analysis.gradient_noise.noise import NoiseOptions
from featdyn.analysis.gradient_noise.noise.curvature import quotients
from featdyn.analysis.gradient_noise.sampler import Sampler, flat, moved, parameters, unflattened
from featdyn.analysis.gradient_noise.training_data import Given, training_data
from featdyn.analysis.inputs.one_input import Inputs
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable, exact_cuts
from featdyn.errors import FeatdynError
from featdyn.statistics.blas import one_thread
from featdyn.store import Run
from featdyn.training.batches import mixed_seed
from featdyn_kernels.eigh import gram_eigh

TIMED = 8
"""Steps that are pushed through the network to see how long it takes."""
FAMILIES = {"": ("parameter", "feature"), "permuted_": ("permuted", "permuted_feature")}
"""Draws with the labels in use, and with permuted ones: names of their inner products, and of those of the moves."""

Values: TypeAlias = dict[str, Any]
State: TypeAlias = Mapping[str, Tensor]


class NoiseAt:
    """Samples any checkpoint of a run."""

    def __init__(
        self, run: Run, parts: Stitchable, sets: ProbeSets, options: NoiseOptions, given: Given | None
    ) -> None:
        self._options, self._states = options, parts.states
        data = training_data(run, given, options.data_dir, options.rate, parts.call)
        self.sampler = Sampler(data, options.batch_size, options.seed, options.statistics == "stored")
        self.probes = chosen(run, sets, options)
        inputs = Inputs(run, exact=True).at(self.probes).to(parts.features.device)
        self._names = [parameters(cut.prefix, parts.model) for cut in parts.cuts]
        if frozen := [cut.name for cut, names in zip(parts.cuts, self._names, strict=True) if not names]:
            rest = ", ".join(cut.name for cut in parts.cuts if cut.name not in frozen) or "others"
            raise FeatdynError(
                f"{run.path}: no parameter before cut {', '.join(frozen)} is trained, so there is no noise: ask at "
                f"{rest}"
            )
        masks = parts.features.padded.items()
        real = {name: mask[self.probes].to(parts.features.device) for name, mask in masks}
        model, cuts = exact_cuts(run, parts) if len(self.probes) else (parts.model, parts.cuts)
        self._features = Features(model, cuts, inputs, real)
        self._places = [places(self.sampler.model, names, self._names[-1]) for names in self._names]

    def rate(self, t: int) -> float:
        """Return the learning rate at a checkpoint."""
        return self.sampler.data.rate(t)

    def seconds(self, draws: int) -> float:
        """Return how long a checkpoint of so many draws takes, by one of them and a few moves of features."""
        state, names, options = self._states[0], self._names[-1], self._options
        self.sampler.at(state)
        once = self.sampler.threads
        list(self._draws(once))  # the first pass is slower
        start = time.perf_counter()
        gradients = list(self._draws(once))
        singles = self.sampler.samples / self.sampler.batch_size + draws * bool(options.curvature)
        found = (draws + singles) / once * (time.perf_counter() - start)
        if len(self.probes):
            few = min(TIMED, draws)
            start = time.perf_counter()
            with self.sampler.one_thread():
                self._features.response(state, [flat(gradients[0][0], names)] * few, names)
            found += (2 + options.permuted) * draws / few * (time.perf_counter() - start)
        return found

    def sample(self, item: tuple[int, int | None]) -> list[xr.Dataset]:
        """Return what is found for each cut at t; the other number is the checkpoint to which drift is measured."""
        with self.sampler.one_thread():
            return self._sample(*item)

    def _sample(self, t: int, next_t: int | None) -> list[xr.Dataset]:
        state, rate, whole = self._states[t], self.rate(t), self._names[-1]
        later = None if next_t is None else self._states[next_t]
        self.sampler.at(state)
        full = self.sampler.full()
        g = flat(full, whole)
        around = moved(doubled(state), -rate * g, whole)  # where the step leads without noise
        ways = self._ways(state, later)
        found: list[Values] = [{"gradient_norm": ((), float(flat(full, names).norm()))} for names in self._names]
        drawn = [list(draws) for draws in zip(*self._draws(self._options.draws), strict=True)]
        for family in list(FAMILIES)[: 1 + self._options.permuted]:
            draws = drawn.pop(0)
            noise = torch.stack([(flat(draw, whole).double() - g).cpu() for draw in draws])  # most memory is there
            steps = (-rate * xi for xi in noise)
            moves = self._features.response(around, steps, whole) if len(self.probes) else []
            control = [] if family else self._control(around, t)
            for c, names in enumerate(self._names):
                xi = noise[:, self._places[c]]
                found[c] |= to_arrays(FAMILIES[family][0], gram_of(xi.numpy()))
                found[c] |= _drift(family, xi, state, later, names)
                if moves:
                    found[c] |= stacked(FAMILIES[family][1], [gram_of(z.numpy()) for z in moves[c]])
                    found[c][f"{family}feature_drift_dot"] = (
                        ("probe", "draw"),
                        torch.einsum("pdf,pf->pd", moves[c], ways[c]).numpy(),
                    )
                    found[c]["feature_drift_square"] = "probe", ways[c].square().sum(1).numpy()
                if not family:
                    if moves:
                        lengths = rate * xi.norm(dim=1)[:, None]
                        found[c] |= stacked("control", [gram_of((z * lengths).numpy()) for z in control[c]])
                    found[c] |= self._curvature(xi, names, t, c) | self._wide(xi)
                del xi  # before there is that of the next cut
            if not family:
                for mine, of_cut in zip(found, self._rounding(around, rate, draws[0], g, moves), strict=True):
                    mine |= of_cut
            del draws, noise, steps, moves, control  # before there are those of other labels
        lacking = self._features.lacking
        said = {"feature_moves": f"central differences in float64: {lacking}"} if lacking else {}
        return [xr.Dataset(values, attrs=said) for values in found]

    def _draws(self, count: int) -> Iterator[tuple[dict[str, Tensor], ...]]:
        """Yield the gradients of mini-batches, of each family of :data:`FAMILIES` that is asked for."""
        if self._options.permuted:
            return self.sampler.with_permuted(count, self._options.replacement)
        return ((draw,) for draw in self.sampler.draws(count, self._options.replacement))

    def _ways(self, state: State, later: State | None) -> list[Tensor]:
        """Return how far features go to the next sampled checkpoint, ``(probe, feature)``; NaN at the last."""
        if not len(self.probes):
            return []
        before = self._features.at(state)
        after = [z * torch.nan for z in before] if later is None else self._features.at(later)
        return [(b - a).cpu() for a, b in zip(before, after, strict=True)]

    def _control(self, around: State, t: int) -> list[Tensor]:
        """Return, at each cut, what random steps of length 1 do to features, ``(probe, draw, feature)``.

        A random step of all parameters serves all cuts: features do not depend on parameters behind them, and of a
        response that is linear a step's length can be taken out afterwards.
        """
        if not len(self.probes):
            return []
        whole, random = self._names[-1], self._random(6, t)
        size, lengths = sum(around[name].numel() for name in whole), list[list[Tensor]]()

        def steps() -> Iterator[Tensor]:
            for _ in range(self._options.draws):
                step = torch.randn(size, generator=random, dtype=torch.float64)
                pieces = unflattened(step, around, whole)
                lengths.append([flat(pieces, names).norm().cpu() for names in self._names])
                yield step

        moves = self._features.response(around, steps(), whole)
        of_cut = torch.tensor(lengths, dtype=torch.float64).T[:, None, :, None]
        return [z / length for z, length in zip(moves, of_cut, strict=True)]

    def _rounding(self, around: State, rate: float, draw: State, g: Tensor, moves: list[Tensor]) -> Iterator[Values]:
        """Yield, for each cut, how much of the first draw is rounding, and how far its step is from linear."""
        whole = self._names[-1]
        xi = flat(draw, whole).double() - g
        error = xi * torch.nan  # dropout draws otherwise in another precision
        if not self.sampler.random and self.sampler.exact:
            exact = next(self.sampler.draws(1, self._options.replacement, dtype=torch.float64))
            error = flat(draw, whole).double() - flat(exact, whole)
        if moves:
            after = self._features.at(moved(around, -rate * xi, whole))
            steps = [(b - a).cpu() for a, b in zip(self._features.at(around), after, strict=True)]
            lost = self._features.response(around, [-rate * error], whole)
        by_name = [unflattened(vector, around, whole) for vector in (error, xi)]
        for c, names in enumerate(self._names):
            found: Values = {"rounding": ((), _share(*(flat(one, names)[None] for one in by_name))[0])}
            if moves:
                found["feature_rounding"] = "probe", _share(lost[c][:, 0], moves[c][:, 0])
                found["feature_nonlinear"] = "probe", _share(steps[c] - moves[c][:, 0], steps[c])
            yield found

    def _curvature(self, xi: Tensor, names: list[str], t: int, c: int) -> Values:
        if not self._options.curvature:
            return {}
        inputs, labels = self.sampler.subset(self._options.curvature)
        random = self._random(7, t, c)
        isotropic = (torch.randn(xi.shape[1], generator=random) for _ in xi)
        with self.sampler.at_rest() as model:
            along = [quotients(model, self.sampler.data.loss, inputs, labels, v, names) for v in (xi, isotropic)]
        return {"noise_curvature": ("draw", along[0]), "isotropic_curvature": ("draw", along[1])}

    def _wide(self, xi: Tensor) -> Values:
        """Return what is as long as the parameters."""
        found: Values = {}
        kept = min(self._options.directions, len(xi) - 1, xi.shape[1])
        if self._options.keep == "raw":
            found["draws"] = ("draw", "parameter"), xi.float().numpy()
        if kept:
            centred = xi - xi.mean(0)
            with one_thread(len(xi)):
                _, vectors = gram_eigh(centred.numpy(), kept)
            found["directions"] = ("direction", "parameter"), np.asarray(vectors)[:, ::-1].T.astype(np.float32)
        return found

    def _random(self, *purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self._options.seed, *purpose))


def chosen(run: Run, sets: ProbeSets, options: NoiseOptions) -> NDArray[np.intp]:
    """Return the probes whose features are moved, ascending: those of a test set first."""
    first = sets.index(options.test) or 0
    found: list[int] = []
    for s in (first, *(s for s in range(len(sets.names)) if s != first)):
        left = options.probes - len(found)
        found += sets.choose(run, left, options.seed, per_origin=True)[s].tolist()
    return np.sort(np.array(found, dtype=np.intp))


def places(model: nn.Module, names: list[str], whole: list[str]) -> slice | Tensor:
    """Return where parameters ``names`` stand among those of ``whole``, which lie one after the other."""
    sizes = [dict(model.named_parameters())[name].numel() for name in whole]
    if names == whole[: len(names)]:
        return slice(sum(sizes[: len(names)]))  # takes no copy
    starts = dict(zip(whole, accumulate(sizes, initial=0), strict=False))
    return torch.cat([starts[name] + torch.arange(sizes[whole.index(name)]) for name in names])


def _drift(family: str, xi: Tensor, state: State, later: State | None, names: list[str]) -> Values:
    """Return products with the way of the parameters to the next sampled checkpoint; NaN at the last."""
    start = flat(state, names).double().cpu()
    way = start * torch.nan if later is None else flat(later, names).double().cpu() - start
    return {f"{family}drift_dot": ("draw", (xi @ way).numpy()), "drift_square": ((), float(way @ way))}


def _share(part: Tensor, whole: Tensor) -> NDArray[np.float64]:
    """Return ``|part| / |whole|`` of rows; NaN where the whole is zero."""
    length = whole.norm(dim=1)
    return torch.where(length > 0, part.norm(dim=1) / length, torch.nan).double().cpu().numpy()
