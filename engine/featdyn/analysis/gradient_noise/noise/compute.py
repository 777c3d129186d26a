"""What mini-batches add to the gradient, at fixed weights, and what that does to features in one step.

Stored as an analysis's result rather than with each checkpoint, as everything follows from the weights that the store
holds: any run can be sampled afterwards, again, and with other options, and what was committed stays as it was. What is
sampled is our own choice (feature dynamics, section 3.2): that of arXiv 2509.20334 was not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from featdyn.analysis.gradient_noise.gram_arrays import stacked, to_arrays
from featdyn.analysis.gradient_noise.noise.curvature import quotients
from featdyn.analysis.gradient_noise.sampler import Sampler, flat, moved, parameters
from featdyn.analysis.inputs.features_at_cuts import inputs_of
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.analysis.options import NoiseOptions
from featdyn.capture.tap import device_of
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.networks import features_at, state_for
from featdyn.statistics import Gram
from featdyn.statistics.blas import one_thread
from featdyn.store import Run
from featdyn.training.batches import mixed_seed
from featdyn.validation import validate
from featdyn_kernels.eigh import gram_eigh

WIDE = ("directions", "draws")
"""Arrays as long as the parameters, which differ from cut to cut."""


def noise(
    run: Run, *, progress: Callable[[int, int], None] | None = None, workers: Workers = SERIAL, **options: Any
) -> xr.Dataset:
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
    workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`. A CPU sums gradients of convolutions in an order that
        depends on how many threads a process has, so results of processes with as many threads have the same bits, and
        others those of float32 within rounding.
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
    parts, sets = cut_network(run, None, chosen.cuts, "recomputed"), ProbeSets.of(run)
    at = _Checkpoint(run, parts, sets, chosen)
    times = list(range(run.checkpoints - 1, -1, -chosen.every))[::-1]
    items = list(zip(times, [*times[1:], None], strict=True))
    workers.admit(at.plan(len(items)))
    by_cut: list[list[xr.Dataset]] = [[] for _ in parts.cuts]
    with workers.stage(at, parts.around(_Checkpoint, run, sets, chosen)) as stage:
        for done, found in enumerate(stage.map(_Checkpoint.sample, items), 1):
            for mine, of_t in zip(by_cut, found, strict=True):
                mine.append(of_t)
            if progress:
                progress(done, len(items))
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
    """Samples one checkpoint after the other."""

    def __init__(self, run: Run, parts: Stitchable, sets: ProbeSets, options: NoiseOptions) -> None:
        self._options, self._parts, self._steps = options, parts, run.values("step")
        self.sampler = Sampler(run, options.data_dir, options.batch_size, options.seed, options.statistics == "stored")
        first = sets.names.index("test") if "test" in sets.names else 0
        order = np.argsort(~sets.members[first], kind="stable")  # test probes first
        self.probes: NDArray[np.intp] = np.sort(order[: options.probes])
        self._inputs = inputs_of(run, self.probes).to(device_of(parts.model))
        self._names = [parameters(cut.prefix) for cut in parts.cuts]
        self._prefix = features_at(parts.model, parts.cuts)

    def plan(self, tasks: int) -> Plan:
        """Return what all checkpoints will need."""
        options, cuts, sampler = self._options, self._parts.cuts, self.sampler
        n, probes, params = options.draws, len(self.probes), [cut.prefix_params for cut in cuts]
        passes = sampler.samples / sampler.batch_size + n * (1 + bool(options.curvature))
        macs = 3 * tasks * passes * sampler.batch_size * (cuts[0].prefix_macs + cuts[0].suffix_macs)
        wide = 4 * (min(options.directions, n - 1) + n * (options.keep == "raw"))
        found = sum(8 * n * (n + 3) * (1 + 2 * probes) + wide * p for p in params)
        return Plan(
            f"{tasks} checkpoints x {n} gradients of {sampler.batch_size} samples at {len(cuts)} cuts, about "
            f"{macs / 1e12:.3g} T multiply-adds",
            tasks=tasks,
            reads=0,
            task={
                "gradients": (n + 4) * self._parts.states.nbytes + sampler.pass_bytes(options.curvature),
                "noise": 8 * n * max(params) + 3 * 8 * max(params) * min(options.directions, n - 1),
                "features": 3 * probes * n * self._parts.sample_bytes,
                "of its result": found,
            },
            state=self._parts.held | {"training data": sampler.data_bytes},
            result={"result": 2 * tasks * found},
        )

    def sample(self, item: tuple[int, int | None]) -> list[xr.Dataset]:
        """Return what is found for each cut at t; the other number is the checkpoint to which drift is measured."""
        t, next_t = item
        state, rate = self._parts.states[t], self.sampler.rate(int(self._steps[t]))
        later = None if next_t is None else self._parts.states[next_t]
        self.sampler.at(state)
        full, draws = self.sampler.full(), list(self.sampler.draws(self._options.draws, self._options.replacement))
        whole = self._names[-1]
        g = flat(full, whole)
        base = moved(state, -rate * g, whole)
        before, every = self._features(base), range(len(self._names))
        shifted = self._shifts(base, (-rate * (flat(draw, whole).double() - g) for draw in draws), whole, before, every)
        ways: list[Tensor] = []
        if later is not None:
            way = flat(later, whole) - flat(state, whole)
            ways = self._shifts(state, [way], whole, self._features(state), every)
        found = []
        for c, names in enumerate(self._names):
            g = flat(full, names)
            xi = torch.empty(len(draws), len(g), dtype=torch.float64)  # where there is most memory
            for row, draw in zip(xi, draws, strict=True):
                row.copy_(flat(draw, names).double() - g)
            values: dict[str, Any] = to_arrays("parameter", Gram.of(xi.numpy())) | {
                "gradient_norm": ((), float(g.norm()))
            }
            way = flat(later, names).double() - flat(state, names) if later is not None else g * torch.nan
            values |= {"drift_dot": ("draw", (xi @ way.cpu()).numpy()), "drift_square": ((), float(way @ way))}
            if len(self.probes):
                steps = self._isotropic(rate * xi.norm(dim=1), xi.shape[1], t, c)
                (control,) = self._shifts(base, steps, names, before, [c])
                values |= stacked("feature", [Gram.of(z.numpy()) for z in shifted[c]])
                values |= stacked("control", [Gram.of(z.numpy()) for z in control])
                d = ways[c][:, 0].double() if ways else shifted[c][:, 0].double() * torch.nan
                dots = torch.stack([one.double() @ along for one, along in zip(shifted[c], d, strict=True)])
                values["feature_drift_dot"] = ("probe", "draw"), dots.numpy()
                values["feature_drift_square"] = "probe", (d * d).sum(1).numpy()
            found.append(xr.Dataset(values | self._curvature(xi, names, t, c) | self._wide(xi)))
        return found

    def _features(self, state: dict[str, Tensor]) -> list[Tensor]:
        """Return the probes' features at each cut, ``(probe, feature)``."""
        with torch.inference_mode():
            found = functional_call(self._prefix, state_for(self._prefix, state), (self._inputs,))
        return [z.flatten(1) for z in found]

    def _shifts(
        self, state: dict[str, Tensor], steps: Iterable[Tensor], names: list[str], before: list[Tensor],
        at: Sequence[int],
    ) -> list[Tensor]:  # fmt: skip
        """Return how far features at some cuts move for each step of the parameters, ``(probe, step, feature)``."""
        if not len(self.probes):
            return []
        moves: list[list[Tensor]] = [[] for _ in at]
        for step in steps:
            after = self._features(moved(state, step, names))
            for mine, c in zip(moves, at, strict=True):
                mine.append(after[c] - before[c])
        return [torch.stack(mine, 1).cpu() for mine in moves]

    def _isotropic(self, lengths: Tensor, size: int, t: int, c: int) -> Iterator[Tensor]:
        """Yield random steps ``(size,)`` of these lengths."""
        random = torch.Generator().manual_seed(mixed_seed(self._options.seed, 6, t, c))
        for length in lengths:
            step = torch.randn(size, generator=random, dtype=torch.float64)
            yield step * (length / step.norm())

    def _curvature(self, xi: Tensor, names: list[str], t: int, c: int) -> dict[str, Any]:
        if not self._options.curvature:
            return {}
        inputs, labels = self.sampler.subset(self._options.curvature)
        random = torch.Generator().manual_seed(mixed_seed(self._options.seed, 7, t, c))
        isotropic = (torch.randn(xi.shape[1], generator=random) for _ in xi)
        model = self.sampler.model.eval()  # the loss as a function of the parameters alone; at() sets the mode anew
        along = [quotients(model, inputs, labels, v, names) for v in (xi, isotropic)]
        return {"noise_curvature": ("draw", along[0]), "isotropic_curvature": ("draw", along[1])}

    def _wide(self, xi: Tensor) -> dict[str, Any]:
        """Return what is as long as the parameters; the last to see ``xi``, which is centred in place."""
        found: dict[str, Any] = {}
        kept = min(self._options.directions, len(xi) - 1, xi.shape[1])
        if self._options.keep == "raw":
            found["draws"] = ("draw", "parameter"), xi.float().numpy()
        if kept:
            xi -= xi.mean(0)
            with one_thread(len(xi)):
                _, vectors = gram_eigh(xi.numpy(), kept)
            found["directions"] = ("direction", "parameter"), np.asarray(vectors)[:, ::-1].T.astype(np.float32)
        return found
