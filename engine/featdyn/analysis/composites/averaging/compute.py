"""Would averaging over the last checkpoints predict better than the last one: their weights, or their predictions?

Averaged weights are those of Izmailov et al., "Averaging weights leads to wider optima and better generalization"
(2018), here a plain mean over recorded checkpoints; that BatchNorm statistics are then estimated on the training
probes, and not on the whole training set, is our own choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.func import functional_call

from featdyn.analysis.composites.batchnorm_statistics import norms, reestimated
from featdyn.analysis.inputs.features_at_cuts import Batches, inputs_of
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import BETWEEN
from featdyn.analysis.inputs.weights import States, network, prepare
from featdyn.analysis.options import AveragingOptions
from featdyn.capture.tap import device_of
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.errors import FeatdynError
from featdyn.networks.twin import eval_twin
from featdyn.statistics.resampling import difference_interval, wilson
from featdyn.store import Run
from featdyn.validation import validate

AVERAGES = ("weights", "predictions")
DIMS = ("average", "set", "window")


def averaging(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Average the last checkpoints and compare with the last one alone.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.AveragingOptions`.

    Returns
    -------
    xarray.Dataset
        For each number of last checkpoints ``window`` and each average ("weights": one network with the mean of their
        parameters and BatchNorm statistics estimated anew; "predictions": the mean of their softmax outputs):
        ``accuracy (average, set, window)`` with 95 % Wilson bounds ``accuracy_low`` and ``_high``; ``loss``, the mean
        cross-entropy; ``change``, its accuracy minus the recorded last network's, with ``change_low`` and ``_high``,
        95 % score bounds; ``prediction (average, window, probe)``. At ``window`` 1 "predictions" is the
        last network itself, and "weights" that network with statistics estimated anew: what a larger window gains
        beyond it comes from averaging.

    Raises
    ------
    FeatdynError
        The network has BatchNorm and there are no training probes to estimate its statistics on.
    """
    chosen = validate(AveragingOptions, options, "averaging")
    sets, labels = ProbeSets.of(run), run.coords["label"].values
    windows = np.arange(1, min(chosen.window, run.checkpoints) + 1)
    networks = _Networks(run, model, sets)
    workers.admit(networks.plan(len(windows)))
    blocks = range(run.schema.blocks)
    of_weights: list[_Scores] = []
    with workers.stage(networks, partial(_Networks, run, model, sets)) as stage:
        recorded = stage.map(_Networks.predictions, [(block, len(windows)) for block in blocks])
        of_predictions = [np.concatenate(parts, -1) for parts in zip(*recorded, strict=True)]
        for scores in stage.map(_Networks.weights, windows.tolist()):
            of_weights.append(scores)
            if progress:
                progress(len(of_weights), len(windows))
    of_each = zip(map(np.stack, zip(*of_weights, strict=True)), of_predictions, strict=True)
    prediction, loss = (np.stack(both) for both in of_each)  # (average, window, probe)
    right = prediction == labels
    change = right.astype(np.int8) - right[AVERAGES.index("predictions"), 0].astype(np.int8)
    columns: dict[str, list[NDArray[Any]]] = {}
    for mine in sets.members:
        size = int(mine.sum())
        accuracy = right[..., mine].mean(-1)
        low, high = wilson(accuracy, size)
        found = difference_interval(change[..., mine])
        values = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "loss": loss[..., mine].mean(-1)}
        values |= {"change": change[..., mine].mean(-1), "change_low": found.low, "change_high": found.high}
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    steps = run.coords["step"].values
    return xr.Dataset(
        {name: (DIMS, np.stack(column, 1)) for name, column in columns.items()}
        | {"prediction": (("average", "window", "probe"), prediction)},
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


_Scores: TypeAlias = tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]
"""Predicted class and cross-entropy of probes."""


class _Networks:
    """What tasks need."""

    def __init__(self, run: Run, model: nn.Module | None, sets: ProbeSets) -> None:
        self._run = run
        self._model = eval_twin(network(run) if model is None else prepare(model, channels_last=False))
        self._states = States(run, self._model)
        self._labels = run.coords["label"].values
        self._train: NDArray[np.intp] = np.array([], np.intp)
        if norms(self._model):
            if "train" not in sets.names:
                raise FeatdynError(
                    f"{run.path}: holds no training probes, on which to estimate BatchNorm statistics anew"
                )
            self._train = np.flatnonzero(sets.members[sets.names.index("train")])

    def plan(self, windows: int) -> Plan:
        """Return what so many windows will need."""
        run, own = self._run, self._states.nbytes
        batches = Batches(run, device_of(self._model))
        inputs, logits = 4 * prod(run.nodes["inputs/input"]["shape"][1:]), run.schema["outputs/logits"]
        layers = BETWEEN * 4 * _widest(self._model, batches[0].inputs[:1])
        return Plan(
            f"{windows} windows x {run.schema.samples:,} probes",
            tasks=windows + run.schema.blocks,
            reads=windows * logits.nbytes,
            task={
                "weights": 4 * own,
                "batches": batches.size * (layers + 2 * inputs),
                "logits": 6 * 8 * run.schema.shard_samples * logits.shape[-1],
            },
            state={"weights": (1 + self._states.room) * own, "blocks": run.schema.shard_samples * inputs},
            result={"predictions": 4 * 16 * windows * run.schema.samples},
        )

    def weights(self, window: int) -> _Scores:
        """Return the scores of all probes under the mean of the last so many networks, ``(probe,)`` each."""
        batches = Batches(self._run, device_of(self._model))
        state = reestimated(self._model, self._mean(window), self._training(batches.size))
        found = []
        for batch in batches:
            rows = batch.stop - batch.start
            with torch.inference_mode():
                logits = functional_call(self._model, state, (batch.inputs,))[:rows]
            logs = log_softmax(logits.cpu().numpy().astype(np.float64), -1)
            found.append(self._scores(logs, slice(batch.start, batch.stop)))
        predictions, losses = zip(*found, strict=True)
        return np.concatenate(predictions), np.concatenate(losses)

    def predictions(self, item: tuple[int, int]) -> _Scores:
        """Return the scores ``(window, probe)`` of one block under the mean recorded softmax of the last networks."""
        block, windows = item
        found, total = [], None
        for count in range(1, windows + 1):
            logits = self._run.block("outputs/logits", self._run.checkpoints - count, block)
            logs = log_softmax(logits.astype(np.float64), -1)
            total = logs if total is None else np.logaddexp(total, logs)
            found.append(self._scores(total - np.log(count), self._run.schema.block_slice(block)))
        predictions, losses = zip(*found, strict=True)
        return np.stack(predictions), np.stack(losses)

    def _scores(self, logs: NDArray[np.float64], probes: slice) -> _Scores:
        kind = np.min_scalar_type(logs.shape[-1])
        return logs.argmax(-1).astype(kind), -logs[np.arange(len(logs)), self._labels[probes]]

    def _mean(self, window: int) -> dict[str, Tensor]:
        """Return the mean of the last states, of their floating-point tensors."""
        own, mean = self._model.state_dict(), dict[str, Tensor]()
        for count in range(1, window + 1):
            for name, value in self._states[len(self._states) - count].items():
                if count == 1:
                    mean[name] = value.double() if value.is_floating_point() else value
                elif value.is_floating_point():
                    mean[name] += (value.double() - mean[name]) / count
        return {name: torch.empty_like(own[name]).copy_(value) for name, value in mean.items()}

    def _training(self, size: int) -> Iterator[Tensor]:
        """Yield the training probes in batches of nearly one size."""
        for part in np.array_split(self._train, -(-len(self._train) // size)):
            yield inputs_of(self._run, part).to(device_of(self._model))


def _widest(model: nn.Module, one: Tensor) -> int:
    """Return how many values the largest output of a layer has, for one sample."""
    found = [one.numel()]

    def note(_: nn.Module, __: Any, out: Any) -> None:
        found.extend([out.numel()] if isinstance(out, Tensor) else [])

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model(one)
    for hook in hooks:
        hook.remove()
    return max(found)
