"""Going on with a recording: only with the network and loss that it was made with, and from its last step on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from featdyn.capture.follow import close
from featdyn.capture.probes import batch_of
from featdyn.capture.replica import with_tensors
from featdyn.capture.tap import Pass
from featdyn.errors import StoreError
from featdyn.store import Run
from featdyn.store.locate import Store


def last_step(store: Store, model: nn.Module, run_probes: Callable[[Tensor], Pass], batch: int) -> int:
    """Return the step of the last checkpoint of a recording that is to be continued.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs and losses must be what was recorded then, up to rounding, or
    :class:`StoreError` is raised. ``run_probes(places)`` passes probes through the network.
    """
    run = Run(store)
    last = run.checkpoints - 1
    recorded = [name for name in ("logits", "top_logits", "loss") if f"outputs/{name}" in run.nodes]
    stored = {name: torch.from_numpy(run.block(f"outputs/{name}", last, 0).copy()) for name in recorded}
    count, state = min(batch, len(stored[recorded[0]]), 4), run.state(last)
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    with with_tensors(model, {name: state[name] for name, _ in own if name in state}):
        found = run_probes(batch_of(0, count, count))
    around = max(float(found.logits.detach().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max()), 1.0)
    for name, there in stored.items():
        here = found.loss if name == "loss" else found.logits
        here = here.topk(there.shape[-1], dim=-1).values if name == "top_logits" else here
        here, there = here.float().cpu(), there[:count]
        what = "loss" if name == "loss" else "network"
        if name != "loss":  # at padding nothing is stored
            here = here.where(~there.isnan(), torch.nan)
        if not close(there, here, around):
            raise StoreError(
                f"{store}: holds another recording (with the weights of its checkpoint {last} this {what} gives other "
                "values than are there): choose another path"
            )
    return int(run.values("step")[last])
