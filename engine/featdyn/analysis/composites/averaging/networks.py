"""One network of the mean weights of the last checkpoints, and the mean of what they predict."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from featdyn.analysis.composites.batchnorm_statistics import OneValue, batch_norms, nearly_equal, reestimated
from featdyn.analysis.inputs.features_at_cuts import Batches
from featdyn.analysis.inputs.one_input import Inputs, of_one_input
from featdyn.analysis.inputs.stitchable import BETWEEN
from featdyn.analysis.inputs.weights import States, network_of
from featdyn.analysis.inputs.widest import widest
from featdyn.capture.call import Call
from featdyn.capture.tap import device_of
from featdyn.classes import class_logits
from featdyn.compute import Plan
from featdyn.functional import functional_call
from featdyn.networks import predicted_classes
from featdyn.networks.twin import eval_twin
from featdyn.store import Run

Scores: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Predicted class of probes, -1 where a logit is NaN, and cross-entropy."""


class AveragedNetworks:
    """What tasks need: classes ``labels (probe,)``, and the places of the training probes, on which BatchNorm
    statistics are estimated anew.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module | None,
        call: Call,
        labels: NDArray[np.int64],
        train: NDArray[np.intp],
    ) -> None:
        self.asked = of_one_input(run, network_of(run, model), call)
        self.model = eval_twin(self.asked)
        self._run, self._labels, self._train = run, labels, train
        self.states = States(run, self.model)
        self._normalised = bool(batch_norms(self.model))

    @property
    def batches(self) -> Batches:
        """The probes as they were recorded."""
        return Batches(self._run, device_of(self.model))

    def plan(self, windows: int) -> Plan:
        """Return what so many windows will need."""
        run, own, batches = self._run, self.states.nbytes, self.batches
        inputs, logits = batches[0].inputs[:1].nbytes, run.schema["outputs/logits"]
        layers = BETWEEN * 4 * widest(self.model, batches[0].inputs[:1])
        return Plan(
            f"{windows} windows x all {run.schema.samples:,} probes",
            tasks=windows + run.schema.blocks,
            reads=windows * logits.nbytes,
            task={
                "weights": 4 * own,
                "batches": batches.size * (layers + 2 * inputs),
                "logits": 6 * 8 * run.schema.shard_samples * max(2, logits.shape[-1]),
            },
            state={"weights": (1 + self.states.room) * own, "blocks": run.schema.shard_samples * inputs},
            result={"predictions": 4 * 16 * windows * run.schema.samples},
        )

    def weights(self, window: int) -> Scores | None:
        """Return the scores of all probes under the mean of the last so many networks, ``(probe,)`` each.

        None where BatchNorm has too few training probes for statistics.
        """
        batches, state = self.batches, self._mean(window)
        if self._normalised:
            if not len(self._train):
                return None
            parts = (self._train[part] for part in nearly_equal(len(self._train), batches.size))
            inputs = (Inputs(self._run).at(part).to(device_of(self.model)) for part in parts)
            try:
                state = reestimated(self.model, state, inputs)
            except OneValue:
                return None
        found = []
        for batch in batches:
            rows = batch.stop - batch.start
            with torch.inference_mode():
                logits = functional_call(self.model, state, (batch.inputs.clone(),))[:rows]
            logs = _log_shares(class_logits(logits.double().cpu().numpy()))
            found.append(self._scores(logs, slice(batch.start, batch.stop)))
        predictions, losses = zip(*found, strict=True)
        return np.concatenate(predictions), np.concatenate(losses)

    def predictions(self, item: tuple[int, int]) -> Scores:
        """Return the scores ``(window, probe)`` of one block under the mean recorded softmax of the last networks."""
        block, windows = item
        found, total = [], None
        for count in range(1, windows + 1):
            logits = self._run.block("outputs/logits", self._run.checkpoints - count, block)
            logs = _log_shares(class_logits(logits.astype(np.float64)))
            total = logs if total is None else np.logaddexp(total, logs)
            found.append(self._scores(total - np.log(count), self._run.schema.block_slice(block)))
        predictions, losses = zip(*found, strict=True)
        return np.stack(predictions), np.stack(losses)

    def _scores(self, logs: NDArray[Any], probes: slice) -> Scores:
        return predicted_classes(logs), -logs[np.arange(len(logs)), self._labels[probes]]

    def _mean(self, window: int) -> dict[str, Tensor]:
        """Return the mean of the last states, of their floating-point tensors."""
        own, mean = self.model.state_dict(), dict[str, Tensor]()
        for count in range(1, window + 1):
            for name, value in self.states[len(self.states) - count].items():
                if count == 1:
                    mean[name] = value.double() if value.is_floating_point() else value
                elif value.is_floating_point():
                    apart = value.double() - mean[name]
                    mean[name] += torch.where(value == mean[name], 0.0, apart) / count  # of infinities, as in a mask
        return {name: torch.empty_like(own[name]).copy_(value) for name, value in mean.items()}


def _log_shares(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logarithm of softmax; of infinite logits its limit, in which they share all."""
    top = logits.max(-1, keepdims=True)
    found: NDArray[np.float64] = log_softmax(np.where(top == np.inf, np.where(logits == top, 0.0, -np.inf), logits), -1)
    return found
