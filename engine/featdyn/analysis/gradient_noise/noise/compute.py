"""What mini-batches add to the gradient, at fixed weights, and what that does to features in one step.

Stored as an analysis's result rather than with each checkpoint, as everything follows from the weights that the store
holds: any run can be sampled afterwards, again, and with other options, and what was committed stays as it was.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import xarray as xr

from featdyn.analysis.context import Context
from featdyn.analysis.gradient_noise.linear_response import pushed_bytes
from featdyn.analysis.gradient_noise.noise import NoiseOptions
from featdyn.analysis.gradient_noise.noise.checkpoint import NoiseAt
from featdyn.analysis.gradient_noise.sampler import Sampler
from featdyn.analysis.gradient_noise.training_data import Given
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import NOT_FINITE, STILL, Status
from featdyn.compute import Plan
from featdyn.sizes import duration
from featdyn.store import Run

WIDE = ("directions", "draws")
"""Arrays as long as the parameters, which differ from cut to cut."""
RANDOM_LAYERS, FLOAT32 = "layers_are_random", "the_network_does_not_run_in_float64"
VECTORS = 16
"""So many times the parameters are held beside the gradients of the draws, in float64 some of them, at most."""


def noise(context: Context[NoiseOptions]) -> xr.Dataset:
    """Sample the noise of mini-batch gradients at a run's checkpoints, of the recipe's network or of the user's."""
    run, options, given = context.run, context.options, None
    if context.model is not None:
        given = Given.of(context.model, context.batches or (), context.loss)
    parts, sets = context.stitchable(masked=True), context.sets
    at = NoiseAt(run, parts, sets, options, given)
    times = options.sampled(run.checkpoints)
    items = list(zip(times, [*times[1:], None], strict=True))
    # Nothing says whether batches and a loss that are given are those of an earlier result.
    known = _known(context.known, items, run.checkpoints) if given is None else None
    todo = [item for item in items if item[0] not in known["t"]] if known is not None else items
    context.admit(plan(run, at, parts, options, len(todo)))
    done = [] if known is None else [known]

    def result() -> xr.Dataset:
        """Return what is known so far."""
        found = (xr.concat(done, "t") if len(done) > 1 else done[0]).sortby("t").transpose("cut", "t", ...)
        coords = {
            "cut": np.array([cut.name for cut in parts.cuts], dtype=object),
            "step": ("t", run.values("step")[found["t"].values]),
            "rate": ("t", [at.rate(t) for t in found["t"].values], {"long_name": "learning rate", "units": "1"}),
            "probe": run.coords["sample"].values[at.probes],
            "prefix_params": ("cut", [cut.prefix_params for cut in parts.cuts]),
        }
        apart = at.sampler.apart + ([] if options.replacement else ["batches without replacement"])
        return (
            found.assign(_statuses(found, at.sampler))
            .assign_coords(coords)
            .assign_attrs(
                batch_size=at.sampler.batch_size,
                samples=at.sampler.samples,
                training_data=at.sampler.data.origin,
                center="estimated" if apart else "known",
                center_because=", ".join(apart) or "the full gradient is the mean over draws",
            )
        )

    with context.stage(at, parts.around(NoiseAt, run, sets, options, given)) as stage:
        for (t, _), found in zip(todo, context.each(stage.map(NoiseAt.sample, todo)), strict=True):
            done.append(_of_cuts(parts, found).expand_dims(t=[t]))
            context.keep(result)
    return result()


def _of_cuts(parts: Stitchable, found: list[xr.Dataset]) -> xr.Dataset:
    """Return what was found at the cuts of one checkpoint as one data set."""
    wide = {
        f"{name}_{cut.name}": of_cut[name].rename(parameter=f"parameter_{cut.name}")
        for cut, of_cut in zip(parts.cuts, found, strict=True)
        for name in WIDE
        if name in of_cut
    }
    return xr.concat([of_cut.drop_vars(WIDE, errors="ignore") for of_cut in found], "cut").assign(wide)


def _known(earlier: xr.Dataset | None, items: list[tuple[int, int | None]], checkpoints: int) -> xr.Dataset | None:
    """Return what an earlier result holds of the items: of checkpoints whose drift leads to the same one."""
    if earlier is None:
        return None
    times = earlier["t"].values.tolist()
    asked: list[tuple[int, int | None]] = list(pairwise(times))
    if len(earlier.attrs["identity"]["weights"]) == checkpoints:  # else its last one may say where drift leads, or not
        asked.append((times[-1], None))
    kept = [i for i, item in enumerate(asked) if item in items]
    if not kept:
        return None
    names = [name for name, variable in earlier.data_vars.items() if "flag_meanings" in variable.attrs]
    found = earlier.isel(t=kept).drop_vars(names).load()
    said = {"feature_moves": found.attrs["feature_moves"]} if "feature_moves" in found.attrs else {}
    return found.drop_vars([name for name in found.coords if name != "t"]).drop_attrs().assign_attrs(said)


def _statuses(found: xr.Dataset, sampler: Sampler) -> dict[str, xr.Variable]:
    """Return why values are missing: gradients that are not finite, and shares of what does not move."""
    of_rounding = RANDOM_LAYERS if sampler.random else STILL if sampler.exact else FLOAT32
    checked = {
        "parameter_status": ("parameter_mean_square", NOT_FINITE),
        "feature_status": ("feature_mean_square", NOT_FINITE),
        "rounding_status": ("rounding", of_rounding),
        "feature_rounding_status": ("feature_rounding", of_rounding),
        "feature_nonlinear_status": ("feature_nonlinear", STILL),
        "curvature_status": ("noise_curvature", STILL),
    }
    statuses = {}
    for name, (of, reason) in checked.items():
        if of in found:
            values, kind = found[of], "feature" if "probe" in found[of].dims else "parameter"
            lost = found[f"{kind}_mean_square"].isnull().broadcast_like(values).transpose(*values.dims)
            status = Status(values.dims, values.shape).mark(NOT_FINITE, lost.values)  # type: ignore[arg-type]
            statuses[name] = status.mark(reason, values.isnull().values).variable()
    return statuses


def plan(run: Run, at: NoiseAt, parts: Stitchable, options: NoiseOptions, tasks: int) -> Plan:
    """Return what all checkpoints will need, and how long they will take: one draw is timed."""
    cuts, sampler = parts.cuts, at.sampler
    n, probes, params = options.draws, len(at.probes), [cut.prefix_params for cut in cuts]
    passes = sampler.samples / sampler.batch_size + n * (1 + options.permuted + bool(options.curvature))
    macs = 3 * tasks * passes * sampler.batch_size * (cuts[0].prefix_macs + cuts[0].suffix_macs)
    outputs = prod(run.schema["outputs/logits"].shape[1:]) if "outputs/logits" in run.nodes else 0
    wide = 4 * (min(options.directions, n - 1) + n * (options.keep == "raw"))
    grams = 1 + options.permuted + (2 + options.permuted) * probes
    found = sum(8 * n * (n + 3) * grams + wide * p for p in params)
    return Plan(
        f"{tasks} checkpoints x {n} gradients of {sampler.batch_size} samples at {len(cuts)} cuts, about "
        f"{macs / 1e12:.3g} T multiply-adds, about {duration(tasks * at.seconds(n))} on one worker",
        tasks=tasks,
        reads=0,
        task={
            "gradients": (n * (1 + options.permuted) + VECTORS) * parts.states.nbytes
            + sampler.pass_bytes(options.curvature, outputs)
            + (sampler.threads - 1) * (sampler.pass_bytes(0, outputs) + parts.states.nbytes),
            "noise": 2 * 8 * n * max(params) + 3 * 8 * max(params) * min(options.directions, n - 1),
            "features": 3 * 8 * probes * n * parts.sample_bytes // 4
            + bool(probes) * pushed_bytes(n, max(params), probes, max(prod(cut.shape) for cut in cuts)),
            "of its result": found,
        },
        state=parts.held | {"training data": sampler.data.nbytes},
        result={"result": 2 * tasks * found},
    )
