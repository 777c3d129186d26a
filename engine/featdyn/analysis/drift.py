"""Do features move while predictions hold? Motion, similarity, distance of weights, and what a linear probe can read.

That consistency is no artefact of convergence needs features that move (arXiv 2509.20334); which of these measures show
it is our own choice (feature dynamics, section 2.2 item 9, and the tunnel effect of section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.cka import Grams
from featdyn.analysis.dissect import Dissected, dissect
from featdyn.analysis.motion import motion
from featdyn.analysis.options import DriftOptions
from featdyn.analysis.parameters import parameter_distance
from featdyn.analysis.probing import fit
from featdyn.analysis.sets import Sets, spread
from featdyn.statistics.resampling import wilson
from featdyn.store import Run
from featdyn.validation import validate


def drift(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Measure how features and weights drift over training.

    In memory are at most: for motion, features of one recorded batch at all cuts and checkpoints or 1 GiB, whichever
    is less; then, checkpoint by checkpoint, features of ``samples`` probes of each set at all cuts; and for CKA
    ``4 * cuts * T * samples^2`` bytes of Gram matrices, which go to a scratch file beyond 1 GiB. A prefix that is
    recomputed runs once for motion, and once more for the batches that hold those ``samples``.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.DriftOptions`.

    Returns
    -------
    xarray.Dataset
        What :func:`featdyn.analysis.motion.motion` and :func:`featdyn.analysis.parameters.parameter_distance` give;
        ``cka`` and ``cka_debiased`` with ``_low`` and ``_high``, ``(cut, cut2, t1, t2)``, linear CKA between cut at t1
        and cut2 at t2 (:mod:`featdyn.analysis.cka`), on test probes where there are any;
        ``linear_accuracy`` with ``_low`` and ``_high`` (Wilson), ``(cut, set, t)``, of a linear probe fitted to the
        training probes' true labels, on training probes each left out in turn; ``linear_penalty (cut, t)``, its ridge
        penalty (:mod:`featdyn.analysis.probing`). ``used (set)``: probes behind CKA and linear probes.

    Raises
    ------
    NetworkError
        The network cannot be cut, or there is no such cut.
    """
    chosen = validate(DriftOptions, options, "drift")
    parts, sets = dissect(run, model, chosen.cuts, chosen.features), Sets.of(run)
    kept = spread(run, sets, chosen.samples)
    done, total = 0, run.checkpoints * (run.schema.samples + sum(map(len, kept)))

    def count(probes: int) -> None:
        nonlocal done
        done += probes
        if progress:
            progress(done, total)

    result = xr.merge([parts.coords(run, sets), motion(run, parts, sets, count), parameter_distance(parts)])
    result = result.merge(_similarity(run, parts, sets, kept, count))
    coords, names = run.coords, result["cut"].values
    result = result.assign_coords(
        t=np.arange(run.checkpoints), step=("t", coords["step"].values), cut2=names, probe=coords["sample"].values
    )
    if "split" in coords:
        result = result.assign_coords(split=("probe", coords["split"].values))
    return result.assign_attrs(options=chosen.model_dump(mode="json"), cka_set=_similar(sets))


def _similarity(
    run: Run, parts: Dissected, sets: Sets, kept: list[NDArray[np.intp]], count: Callable[[int], None]
) -> xr.Dataset:
    """Return CKA and linear probes: one checkpoint at a time, all its features at once."""
    cuts, steps = len(parts.cuts), len(parts.states)
    alike = sets.names.index(_similar(sets))
    train = sets.names.index("train") if "train" in sets.names else None
    coords = run.coords
    labels = coords["true_label" if "true_label" in coords else "label"].values
    grams = Grams(cuts * steps, len(kept[alike]))
    right = np.full((cuts, len(kept), steps), np.nan)
    penalty = np.full((cuts, steps), np.nan)
    for t in range(steps):
        for c, features in enumerate(_centred(parts, t, kept, train if train is not None else alike)):
            grams.put(c * steps + t, _inner(features[alike], features[alike]))
            if train is None:
                continue
            own = _inner(features[train], features[train])
            if not np.isfinite(own).all():
                continue
            probe = fit(own, labels[kept[train]])
            penalty[c, t] = probe.penalty
            for s, mine in enumerate(kept):
                said = probe.left_out if s == train else probe.predict(_inner(features[s], features[train]))
                right[c, s, t] = (said == labels[mine]).mean()
        count(sum(map(len, kept)))
    found = xr.Dataset({"used": ("set", [len(mine) for mine in kept])}).set_coords("used")
    alignment = grams.alignment()
    named = {"": alignment.debiased, "_low": alignment.low, "_high": alignment.high}
    for name, values in {"cka": alignment.biased, **{f"cka_debiased{e}": v for e, v in named.items()}}.items():
        square = values.reshape(cuts, steps, cuts, steps).transpose(0, 2, 1, 3)
        found[name] = ("cut", "cut2", "t1", "t2"), square
    if train is not None:
        bounds = [wilson(right[:, s], len(mine)) for s, mine in enumerate(kept)]
        found["linear_accuracy"] = ("cut", "set", "t"), right
        found["linear_accuracy_low"] = ("cut", "set", "t"), np.stack([low for low, _ in bounds], 1)
        found["linear_accuracy_high"] = ("cut", "set", "t"), np.stack([high for _, high in bounds], 1)
        found["linear_penalty"] = ("cut", "t"), penalty
    return found


def _centred(parts: Dissected, t: int, kept: list[NDArray[np.intp]], centre: int) -> Iterator[list[Tensor]]:
    """Yield for each cut the features ``(n, F)`` of each set, from which the mean of one set was taken."""
    sizes = [len(mine) for mine in kept]
    for z in parts.features.whole(t, np.concatenate(kept)):
        of_sets: Sequence[Tensor] = torch.split(z.flatten(1), sizes)
        mean = of_sets[centre].mean(0)
        yield [part - mean for part in of_sets]


def _inner(a: Tensor, b: Tensor) -> NDArray[np.float32]:
    product: NDArray[np.float32] = (a @ b.T).cpu().numpy()
    return product


def _similar(sets: Sets) -> str:
    return "test" if "test" in sets.names else sets.names[0]
