"""Going on with a recording: only with the network and loss that it was made with, and from its last step on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from featdyn.capture import tap
from featdyn.capture.follow import close
from featdyn.capture.probes import Probes
from featdyn.errors import StoreError
from featdyn.store import Run
from featdyn.store.locate import Store


def last_step(store: Store, model: nn.Module, probes: Probes, loss: tap.Loss, batch: int) -> int:
    """Return the step of the last checkpoint of a recording that is to be continued.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs and losses must be what was recorded then, up to rounding, or
    :class:`StoreError` is raised.
    """
    run = Run(store)
    last = run.checkpoints - 1
    device = tap.device_of(model)
    stored = {name: torch.from_numpy(run.block(f"outputs/{name}", last, 0).copy()) for name in ("logits", "loss")}
    count = min(batch, len(stored["loss"]), 4)
    found = tap.run(_At(model, run.state(last)), *probes.batch(0, count, count, device), [], gradients=False, loss=loss)
    for name, values, what in (("logits", found.logits, "network"), ("loss", found.loss, "loss")):
        if not close(stored[name][:count], values.float().cpu(), found.logits):
            raise StoreError(
                f"{store}: holds another recording (with the weights of its checkpoint {last} this {what} gives other "
                "values than are there): choose another path"
            )
    return int(run.values("step")[last])


class _At(nn.Module):
    """A network with other weights, which are not copied into it."""

    def __init__(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self.state = {name: state[name].to(tensor.device) for name, tensor in own if name in state}

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(self.model, self.state, (inputs,), tie_weights=False)
        return found
