"""Would averaging over the last checkpoints predict better than the last one: their weights, or their predictions?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.composites.averaging import AVERAGES, CELLS, AveragingOptions
from featdyn.analysis.composites.averaging.networks import AveragedNetworks
from featdyn.analysis.composites.predictions import NO_COMMON_PREDICTION, NO_PREDICTION, interval_of
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import labelled
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.weights import refuse_other_function
from featdyn.analysis.status import FEW, NO_TRAINING_PROBES, NOT_FINITE, Status
from featdyn.statistics.resampling import difference_interval, share_interval

DIMS = CELLS.split()
STATUSES = {
    "status": ("accuracy", NO_PREDICTION),
    "change_status": ("change", NO_COMMON_PREDICTION),
    "loss_status": ("loss", NOT_FINITE),
}
"""Variables that say why others are missing, of which number and for which reason, beside that no average is there."""


def averaging(context: Context[AveragingOptions]) -> xr.Dataset:
    """Average the last checkpoints and compare with the last one alone."""
    run = context.run
    sets, labels = labelled(run, context.sets)
    train = ProbeSets.of(run).member(context.options.train)
    windows = np.arange(1, min(context.options.window, run.checkpoints) + 1)
    rebuild = partial(AveragedNetworks, run, context.model, context.call, labels, np.flatnonzero(train))
    networks = rebuild()
    if context.model is not None:
        refuse_other_function(run, networks.asked, networks.states, networks.batches[0])
    context.admit(networks.plan(len(windows)))
    blocks, shape = range(run.schema.blocks), (len(windows), len(labels))
    prediction, loss = np.full((len(AVERAGES), *shape), -1), np.full((len(AVERAGES), *shape), np.nan)
    of_probes = Status(("average", "window", "probe"), prediction.shape)
    statuses = {name: Status(DIMS, (len(AVERAGES), len(sets.names), len(windows))) for name in STATUSES}
    with context.stage(networks, rebuild) as stage:
        of_blocks = stage.map(AveragedNetworks.predictions, [(block, len(windows)) for block in blocks])
        for block, scores in zip(blocks, context.each(of_blocks), strict=True):
            prediction[1, :, run.schema.block_slice(block)], loss[1, :, run.schema.block_slice(block)] = scores
        of_windows = stage.map(AveragedNetworks.weights, windows.tolist())
        for w, of_window in enumerate(context.each(of_windows)):
            if of_window is None:
                why = FEW if train.any() else NO_TRAINING_PROBES
                of_probes.mark(why, (0, w))
                for status in statuses.values():
                    status.mark(why, (0, slice(None), w))
            else:
                prediction[0, w], loss[0, w] = of_window
    of_probes.mark(NOT_FINITE, prediction < 0)
    computed = statuses["status"].computed
    values = _numbers(prediction, loss, labels, sets)
    for name, (of, reason) in STATUSES.items():
        statuses[name].mark(reason, ~np.isfinite(values[of]))
    steps = run.coords["step"].values
    return xr.Dataset(
        {name: (DIMS, np.where(computed, array, np.nan)) for name, array in values.items()}
        | {"prediction": (of_probes.dims, np.where(prediction < 0, np.nan, prediction).astype(np.float32))}
        | {"prediction_status": of_probes.variable()}
        | {name: status.variable() for name, status in statuses.items()},
        coords={
            "average": np.array(AVERAGES, dtype=object),
            "set": np.array(sets.names, dtype=object),
            "set_size": ("set", sets.sizes),
            "window": windows,
            "first_step": ("window", steps[::-1][: len(windows)]),
            "probe": run.coords["sample"].values,
        },
    )


def _numbers(
    prediction: NDArray[np.int64], loss: NDArray[np.float64], labels: NDArray[np.int64], sets: ProbeSets
) -> dict[str, NDArray[Any]]:
    """Return what predictions and losses ``(average, window, probe)`` say, ``(average, set, window)``."""
    right, known = prediction == labels, prediction >= 0
    last = AVERAGES.index("predictions"), 0
    change = right.astype(np.int8) - right[last].astype(np.int8)
    columns: dict[str, list[NDArray[Any]]] = {}
    for mine, origins in ((member, sets.origins[member]) for member in sets.members):
        there, both = (of[..., mine] for of in (known, known & known[last]))
        accuracy = interval_of(share_interval, there, origins, right[..., mine])
        gain = interval_of(difference_interval, both, origins, change[..., mine])
        mean = loss[..., mine].mean(-1)
        found = {"loss": np.where(np.isfinite(mean), mean, np.nan), "without_prediction": (~there).sum(-1)}
        found |= accuracy.named("accuracy") | gain.named("change")
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    return {name: np.stack(column, 1) for name, column in columns.items()}
