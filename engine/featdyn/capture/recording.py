"""What a pass of probes through a network gives, as it is recorded: set up once, the same for every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from featdyn.capture import kept_moments, tap
from featdyn.capture import layers as cut_layers
from featdyn.capture.arrays import gradient_scale
from featdyn.capture.asked import token_targets
from featdyn.capture.axis import Axis
from featdyn.capture.call import Call
from featdyn.capture.follow import output_shape
from featdyn.capture.handed_on import HandedOn
from featdyn.capture.layout import picked_outputs, unsure_positions
from featdyn.capture.options import CaptureOptions
from featdyn.capture.outputs import Outputs
from featdyn.capture.probes import Probes
from featdyn.capture.replica import holds, with_state
from featdyn.errors import NetworkError, TrainingError
from featdyn.networks.classes import check_classes
from featdyn.store import Run


class Recording:
    """A network, probes, and how each layer and the outputs are recorded.

    Raises as :class:`featdyn.capture.Recorder` does. With ``several`` ranks only layers that modules return are found.
    """

    has_weights = True
    """Whether the network must have its weights when this is made."""

    def __init__(
        self,
        model: nn.Module,
        probes: Probes,
        options: CaptureOptions,
        axes: Mapping[str, Axis],
        call: Call,
        *,
        several: bool = False,
    ) -> None:
        self.model, self.options, self.call = model, options, call
        self._handed_on = HandedOn()
        for name, tensor in model.state_dict(keep_vars=True).items():
            if is_lazy(tensor):
                raise NetworkError(
                    f"the network's {name} has no shape yet (a lazy module): run the network once on a batch before"
                )
            if self.has_weights and isinstance(tensor, Tensor) and tensor.is_meta:
                raise NetworkError(f"the network's {name} has no values (device meta): give it some before")
            if isinstance(tensor, Tensor) and tensor.is_inference():
                raise NetworkError(
                    f"the network's {name} was made in torch.inference_mode, where tensors neither train nor have "
                    "gradients: make the network outside of it"
                )
        self.device = tap.device_of(model)
        shape = output_shape(model, probes.few(self.device, 2)[0], call)
        loss = not (call.loss is None and probes.labels is None)
        by_token = loss and call.loss is None and len(shape) == 3
        self.probes = token_targets(probes, shape) if by_token else probes
        labels = self.probes.labels
        if loss and call.loss is None:
            check_classes(shape, labels)
        if options.gradients and not loss:
            raise ValueError("without labels there is no loss to differentiate: give loss=, or gradients=False")
        mask = None if probes.mask is None else probes.mask.shape[1]
        classes = not isinstance(labels, Tensor) or labels.dtype == torch.int64
        self.outputs = Outputs(shape[1:], loss, by_token, classes, mask, options.token_loss)
        moments = options.record == "moments"
        if moments and several:
            raise ValueError("record='moments' is for one process: each rank would keep those of its own probes")
        self.layouts, self._taps = cut_layers.select(
            model, *self.probes.few(self.device), options.layers, gradients=options.gradients, call=call,
            modules_only=several, axes=axes, pool="mean" if moments else options.pool, mask=self.probes.mask_named,
            handed_on=self._handed_on,
        )  # fmt: skip
        if moments:
            self.layouts = {name: layer.as_vector() for name, layer in self.layouts.items()}
            kept_moments.check(self.layouts, self.outputs.shape)
        named = {name: self.probes.mask_named(layer.axis.mask) for name, layer in self.layouts.items()}
        self._masks = {name: found for name, found in named.items() if found is not None}
        self._several = {
            name: str(one.axis.output) for name, one in self.layouts.items() if one.axis.output is not None
        }
        said = self.outputs.said, unsure_positions(self.layouts), picked_outputs(self.layouts)
        self.said = [line for line in said if line]

    @contextmanager
    def holding(self, run: Run, checkpoint: int) -> Iterator[bool]:
        """Let the network have the weights of a recorded checkpoint for a while; give whether it has them anyway."""
        state, model = run.state(checkpoint), self.model
        already = holds(state, model)
        with with_state(model, state):
            yield already

    def holds(self, run: Run, checkpoint: int) -> bool:
        """Whether the network has the weights of a recorded checkpoint."""
        return holds(run.state(checkpoint), self.model)

    def passed(self, places: Tensor, layers: Sequence[str] = (), *, gradients: bool = False) -> tap.Pass:
        """Run the probes at these places through the network as one batch."""
        batch = self.probes.rows(places, self.device)
        asked: dict[str, Any] = {"gradients": gradients, "call": self.call, "handed_on": self._handed_on}
        asked["outputs"] = self._several
        try:
            return tap.run(self.model, *batch, layers, taps=self._taps if layers else None, **asked)
        except tap.StaleError:  # the network was changed since it was taken apart
            assert self._taps is not None
            few, _ = self.probes.few(self.device)
            self._taps = cut_layers.taps_again(self.model, few, self._taps, self.call)
        return tap.run(self.model, *batch, layers, taps=self._taps, **asked)

    def columns(self, places: Tensor) -> dict[str, Tensor]:
        """Return by their paths what is recorded of the probes at these places, ``(places, ...)``; padding is 0.

        Raises :class:`TrainingError` where something has not one row for each.
        """
        passed = self.passed(places, list(self.layouts), gradients=self.options.gradients)
        scale = gradient_scale(self.options)
        real = None if self.probes.mask is None else self.probes.mask[places].to(self.device)
        there = {name: mask[places].to(self.device) for name, mask in self._masks.items()}
        found = {}
        for name, values in passed.activations.items():
            found[f"layers/{name}/activation"] = self.layouts[name].recorded(name, values, there.get(name))
        for name, values in passed.gradients.items():
            kept = self.layouts[name].recorded(name, values, there.get(name), gradient=True)
            exact = kept.float() if kept.itemsize < 4 else kept  # scaled, they might not fit
            found[f"layers/{name}/gradient"] = exact if scale == 1 else exact * scale
        targets = self.probes.labels[places].to(self.device) if self.outputs.targets else None
        found |= self.outputs.columns(passed.logits, passed.loss, targets, real)
        for path, values in found.items():
            if len(values) != len(places):  # else its rows were not the samples'
                raise TrainingError(f"{path} has {len(values)} rows for a batch of {len(places)} samples")
        return found

    def missing(self, samples: slice) -> dict[str, Tensor]:
        """Return of arrays with positions at which ``(sample, position)`` of some samples nothing is recorded."""
        mask, labels = self.probes.mask, self.probes.labels
        real = None if mask is None else mask[samples]
        found = self.outputs.missing(labels if self.outputs.targets else None, real, samples)
        for name, own in self._masks.items():
            if self.layouts[name].positions:
                found |= dict.fromkeys((f"layers/{name}/activation", f"layers/{name}/gradient"), ~own[samples])
        return found
