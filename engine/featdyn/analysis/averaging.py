"""Would averaging over the last checkpoints predict better than the last one: their weights, or their predictions?

Averaged weights are those of Izmailov et al., "Averaging weights leads to wider optima and better generalization"
(2018), here a plain mean over recorded checkpoints; that BatchNorm statistics are then estimated on the training
probes, and not on the whole training set, is our own choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from featdyn.analysis.features import Batches
from featdyn.analysis.network import States, network, prepare
from featdyn.analysis.options import AveragingOptions
from featdyn.analysis.sets import Sets
from featdyn.capture.tap import device_of
from featdyn.errors import FeatdynError
from featdyn.statistics.resampling import bootstrap_bounds, bootstrap_weights, wilson
from featdyn.store import Run
from featdyn.validation import validate

AVERAGES = ("weights", "predictions")
DIMS = ("average", "set", "window")


def averaging(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Average the last checkpoints and compare with the last one alone.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.AveragingOptions`.

    Returns
    -------
    xarray.Dataset
        For each number of last checkpoints ``window`` and each average ("weights": one network with the mean of their
        parameters and BatchNorm statistics estimated anew; "predictions": the mean of their softmax outputs):
        ``accuracy (average, set, window)`` with 95 % Wilson bounds ``accuracy_low`` and ``_high``; ``loss``, the mean
        cross-entropy; ``change``, its accuracy minus the recorded last network's, with ``change_low`` and ``_high``,
        95 % bounds over resampled probes; ``prediction (average, window, probe)``. At ``window`` 1 "predictions" is the
        last network itself, and "weights" that network with statistics estimated anew: what a larger window gains
        beyond it comes from averaging.

    Raises
    ------
    FeatdynError
        The network has BatchNorm and there are no training probes to estimate its statistics on.
    """
    chosen = validate(AveragingOptions, options, "averaging")
    model = network(run) if model is None else prepare(deepcopy(model), channels_last=False)
    sets, labels = Sets.of(run), run.coords["label"].values
    windows = np.arange(1, min(chosen.window, run.checkpoints) + 1)
    found = []  # per window and average, (probe, class)
    both = zip(_weights(run, model, sets, len(windows)), _predictions(run, len(windows)), strict=True)
    for done, pair in enumerate(both, 1):
        found.append(pair)
        if progress:
            progress(done, len(windows))
    logs = np.array(found).swapaxes(0, 1)  # (average, window, probe, class)
    prediction = logs.argmax(-1)
    loss = -logs[..., np.arange(len(labels)), labels]
    right = prediction == labels
    change = right.astype(np.int8) - right[AVERAGES.index("predictions"), 0].astype(np.int8)
    columns: dict[str, list[NDArray[Any]]] = {}
    for mine in sets.members:
        size = int(mine.sum())
        accuracy = right[..., mine].mean(-1)
        low, high = wilson(accuracy, size)
        below, above = bootstrap_bounds(change[..., mine], bootstrap_weights(size, chosen.draws, chosen.seed))
        values = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "loss": loss[..., mine].mean(-1)}
        values |= {"change": change[..., mine].mean(-1), "change_low": below, "change_high": above}
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    steps = run.coords["step"].values
    return xr.Dataset(
        {name: (DIMS, np.stack(column, 1)) for name, column in columns.items()}
        | {"prediction": (("average", "window", "probe"), prediction.astype(np.min_scalar_type(logs.shape[-1])))},
        coords={
            "average": np.array(AVERAGES, dtype=object),
            "set": np.array(sets.names, dtype=object),
            "set_size": ("set", sets.sizes),
            "window": windows,
            "first_step": ("window", steps[::-1][: len(windows)]),
            "probe": run.coords["sample"].values,
        },
        attrs={"options": chosen.model_dump(mode="json")},
    )


def _weights(run: Run, model: nn.Module, sets: Sets, most: int) -> Iterator[NDArray[np.float64]]:
    """Yield the log-probabilities of all probes under the mean of the last 1, 2, ... networks."""
    train = _train(run, model, sets)
    mean: dict[str, Tensor] = {}
    blocks = Batches(run, device_of(model))
    saved = States(run, model)
    for count, state in enumerate((saved[t] for t in reversed(range(len(saved) - most, len(saved)))), 1):
        for name, value in state.items():
            if count == 1 or not value.is_floating_point():
                mean.setdefault(name, value.double() if value.is_floating_point() else value)
            else:
                mean[name] += (value.double() - mean[name]) / count
        model.load_state_dict(mean)
        update_bn(train, model)
        with torch.inference_mode():
            logits = [model(batch.inputs)[: batch.stop - batch.start].cpu().numpy() for batch in blocks]
        yield log_softmax(np.concatenate(logits).astype(np.float64), -1)


def _predictions(run: Run, most: int) -> Iterator[NDArray[np.float64]]:
    """Yield the log of the mean probabilities of the last 1, 2, ... networks, as recorded."""
    logits = run.values("outputs/logits")[::-1][:most].astype(np.float64)
    total = None
    for count, value in enumerate(log_softmax(logits, -1), 1):
        total = value if total is None else np.logaddexp(total, value)
        yield total - np.log(count)


def _train(run: Run, model: nn.Module, sets: Sets) -> list[Tensor]:
    """Return the training probes in batches of nearly one size, for networks with BatchNorm."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return []
    if "train" not in sets.names:
        raise FeatdynError(f"{run.path}: holds no training probes, on which to estimate BatchNorm statistics anew")
    inputs = torch.from_numpy(run.values("inputs/input")[sets.members[sets.names.index("train")]])
    count = -(-len(inputs) // run.attributes["capture"]["batch"])
    return [part.to(device_of(model)) for part in inputs.tensor_split(count)]
