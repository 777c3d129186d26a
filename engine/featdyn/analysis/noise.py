"""What mini-batches add to the gradient, at fixed weights, and what that does to features in one step.

Stored as an analysis's result rather than with each checkpoint, as everything follows from the weights that the store
holds: any run can be sampled afterwards, again, and with other options, and what was committed stays as it was. What is
sampled is our own choice (feature dynamics, section 3.2): that of arXiv 2509.20334 was not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from featdyn.analysis.curvature import quotients
from featdyn.analysis.dissect import Dissected, dissect
from featdyn.analysis.gradients import Sampler, flat, moved, parameters
from featdyn.analysis.grams import stacked, to_arrays
from featdyn.analysis.options import NoiseOptions
from featdyn.analysis.sets import Sets
from featdyn.networks import features_at, state_for
from featdyn.statistics import Gram
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.eigh import gram_eigh

WIDE = ("directions", "draws")
"""Arrays as long as the parameters, which differ from cut to cut."""


def noise(run: Run, *, progress: Callable[[int, int], None] | None = None, **options: Any) -> xr.Dataset:
    """Sample the noise of mini-batch gradients at a run's checkpoints.

    For the parameters before each cut: ``xi_k = g_k - g``, gradients of the mean loss of mini-batches minus that of the
    whole training set. For features of probes at each cut: ``dz_k = z(theta - r g_k) - z(theta - r g)``, what the noise
    of one step of plain SGD moves them by (eval mode, r the checkpoint's learning rate), and the control: the same with
    isotropic Gaussian noise in place of xi_k, of the same norm.

    Parameters
    ----------
    run
        Made by ``featdyn train``; its training data must be at hand.
    progress
        Called with (checkpoints done, in all).
    **options
        Fields of :class:`featdyn.analysis.options.NoiseOptions`.

    Returns
    -------
    xarray.Dataset
        The fields of :class:`featdyn.statistics.Gram` of the draws: ``parameter_...`` over (cut, t, ...),
        ``feature_...`` and ``control_...`` over (cut, t, probe, ...). ``gradient_norm (cut, t)`` of g. ``drift_dot
        (cut, t, draw)``: products of xi_k with the way of the parameters to the next sampled checkpoint, and
        ``drift_square (cut, t)`` its squared length; ``feature_drift_dot (cut, t, probe, draw)`` and
        ``feature_drift_square (cut, t, probe)`` of features; NaN at the last checkpoint. ``directions_<cut> (t,
        direction, parameter_<cut>)``, float32, orthonormal, largest variance first; with ``keep="raw"`` also
        ``draws_<cut> (t, draw, parameter_<cut>)``. With ``curvature`` also ``noise_curvature`` and
        ``isotropic_curvature (cut, t, draw)``, Rayleigh quotients of the Hessian along xi_k and along random vectors.

    Raises
    ------
    FeatdynError
        The run has no recipe, or its training data are missing.
    """
    chosen = validate(NoiseOptions, options, "noise")
    parts, sets = dissect(run, None, chosen.cuts, "recomputed"), Sets.of(run)
    at = _Checkpoint(run, parts, sets, chosen)
    times = list(range(run.checkpoints - 1, -1, -chosen.every))[::-1]
    by_cut: list[list[xr.Dataset]] = [[] for _ in parts.cuts]
    for done, t in enumerate(times, 1):
        for mine, found in zip(by_cut, at(t, times[done] if done < len(times) else None), strict=True):
            mine.append(found)
        if progress:
            progress(done, len(times))
    of_cut = [xr.concat(found, "t") for found in by_cut]
    wide = {
        f"{name}_{cut.name}": found[name].rename(parameter=f"parameter_{cut.name}")
        for cut, found in zip(parts.cuts, of_cut, strict=True)
        for name in WIDE
        if name in found
    }
    common = xr.concat([found.drop_vars(WIDE, errors="ignore") for found in of_cut], "cut")
    coords = {
        "cut": np.array([cut.name for cut in parts.cuts], dtype=object),
        "t": times,
        "step": ("t", run.values("step")[times]),
        "probe": run.coords["sample"].values[at.probes],
        "prefix_params": ("cut", [cut.prefix_params for cut in parts.cuts]),
    }
    return (
        common.assign(wide)
        .assign_coords(coords)
        .assign_attrs(
            options=chosen.model_dump(mode="json") | {"data_dir": None},
            batch_size=at.sampler.batch_size,
            samples=at.sampler.samples,
            center="estimated" if at.sampler.normalised or not chosen.replacement else "known",
        )
    )


class _Checkpoint:
    """Samples one checkpoint."""

    def __init__(self, run: Run, parts: Dissected, sets: Sets, options: NoiseOptions) -> None:
        self._options, self._parts, self._steps = options, parts, run.values("step")
        self.sampler = Sampler(run, options.data_dir, options.batch_size, options.seed, options.statistics == "stored")
        first = sets.names.index("test") if "test" in sets.names else 0
        order = np.argsort(~sets.members[first], kind="stable")  # test probes first
        self.probes: NDArray[np.intp] = np.sort(order[: options.probes])
        self._inputs = torch.from_numpy(run.values("inputs/input")[self.probes])
        self._names = [parameters(cut.prefix) for cut in parts.cuts]
        self._prefix = features_at(parts.model, parts.cuts)
        self._random = torch.Generator().manual_seed(options.seed)

    def __call__(self, t: int, next_t: int | None) -> Iterator[xr.Dataset]:
        """Yield what is found for each cut; ``next_t`` is the checkpoint to which drift is measured."""
        state, rate = self._parts.states[t], self.sampler.rate(int(self._steps[t]))
        later = None if next_t is None else self._parts.states[next_t]
        self.sampler.at(state)
        full, draws = self.sampler.full(), list(self.sampler.draws(self._options.draws, self._options.replacement))
        whole = self._names[-1]
        base = moved(state, -rate * flat(full, whole), whole)
        before = self._features(base)
        steps = [-rate * (flat(draw, whole).double() - flat(full, whole)) for draw in draws]
        shifted = self._shifts(base, steps, whole, before)
        ways = (
            None
            if later is None
            else self._shifts(state, [flat(later, whole) - flat(state, whole)], whole, self._features(state))
        )
        for c, names in enumerate(self._names):
            g = flat(full, names)
            xi = torch.stack([flat(draw, names) for draw in draws]).double() - g
            values: dict[str, Any] = to_arrays("parameter", Gram.of(xi.numpy())) | {
                "gradient_norm": ((), float(g.norm()))
            }
            way = flat(later, names).double() - flat(state, names) if later is not None else g * torch.nan
            values |= {"drift_dot": ("draw", (xi @ way).numpy()), "drift_square": ((), float(way @ way))}
            if len(self.probes):
                values |= stacked("feature", [Gram.of(z.numpy()) for z in shifted[c]])
                values |= stacked("control", [Gram.of(z.numpy()) for z in self._control(base, xi * rate, c, before)])
                d = ways[c][:, 0].double() if ways is not None else shifted[c][:, 0].double() * torch.nan
                dots = torch.einsum("pdf,pf->pd", shifted[c].double(), d)
                values["feature_drift_dot"] = ("probe", "draw"), dots.numpy()
                values["feature_drift_square"] = "probe", (d * d).sum(1).numpy()
            values |= self._wide(xi) | self._curvature(xi, names)
            yield xr.Dataset(values)

    def _features(self, state: dict[str, Tensor]) -> list[Tensor]:
        """Return the probes' features at each cut, ``(probe, feature)``."""
        with torch.inference_mode():
            found = functional_call(self._prefix, state_for(self._prefix, state), (self._inputs,))
        return [z.flatten(1) for z in found]

    def _shifts(
        self, state: dict[str, Tensor], steps: list[Tensor], names: list[str], before: list[Tensor]
    ) -> list[Tensor]:
        """Return how far features move for each step of the parameters, by cut, ``(probe, step, feature)``."""
        if not len(self.probes):
            return []
        after = [self._features(moved(state, step, names)) for step in steps]
        return [torch.stack([z[c] - before[c] for z in after], 1) for c in range(len(before))]

    def _control(self, base: dict[str, Tensor], scaled: Tensor, c: int, before: list[Tensor]) -> Tensor:
        """Return the same for isotropic steps, each as long as one of ``scaled``, of the parameters before cut c."""
        steps = torch.randn(scaled.shape, generator=self._random, dtype=torch.float64)
        steps *= scaled.norm(dim=1, keepdim=True) / steps.norm(dim=1, keepdim=True)
        return self._shifts(base, list(steps), self._names[c], before)[c]

    def _wide(self, xi: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {}
        kept = min(self._options.directions, len(xi) - 1, xi.shape[1])
        if kept:
            _, vectors = gram_eigh((xi - xi.mean(0)).numpy(), kept)
            found["directions"] = ("direction", "parameter"), np.asarray(vectors)[:, ::-1].T.astype(np.float32)
        if self._options.keep == "raw":
            found["draws"] = ("draw", "parameter"), xi.float().numpy()
        return found

    def _curvature(self, xi: Tensor, names: list[str]) -> dict[str, Any]:
        if not self._options.curvature:
            return {}
        inputs, labels = self.sampler.subset(self._options.curvature)
        random = torch.randn(xi.shape, generator=self._random)
        model = self.sampler.model.eval()  # the loss as a function of the parameters alone; at() sets the mode anew
        along = [quotients(model, inputs, labels, v, names) for v in (xi, random)]
        return {"noise_curvature": ("draw", along[0]), "isotropic_curvature": ("draw", along[1])}
