"""Going on with a recording: only with the network and loss that it was made with, and from its last step on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from featdyn.capture.follow import close
from featdyn.capture.replica import with_tensors
from featdyn.capture.tap import Pass
from featdyn.errors import StoreError
from featdyn.store import Run
from featdyn.store.locate import Store

CHOOSE = "choose another path, or accept the change (accept_changes, --accept-changes), which is put on record"


def last_step(
    store: Store,
    model: nn.Module,
    run_probes: Callable[[int, int, int], Pass],
    batch: int,
    accept: Callable[[Mapping[str, tuple[str, str]]], None] | None = None,
) -> int:
    """Return the step of the last checkpoint of a recording that is to be continued.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs and losses must be what was recorded then, up to rounding, or
    :class:`StoreError` is raised, or ``accept`` is told. ``run_probes(start, stop, size)`` passes probes through the
    network.
    """
    run = Run(store)
    last = run.checkpoints - 1
    recorded = [name for name in ("logits", "loss") if f"outputs/{name}" in run.nodes]
    stored = {name: torch.from_numpy(run.block(f"outputs/{name}", last, 0).copy()) for name in recorded}
    count, state = min(batch, len(stored["logits"]), 4), run.state(last)
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    with with_tensors(model, {name: state[name] for name, _ in own if name in state}):
        found = run_probes(0, count, count)
    for name, what in (("logits", "network"), ("loss", "loss")):
        if name in stored and not close(stored[name][:count], getattr(found, name).float().cpu(), found.logits):
            if accept is None:
                raise StoreError(
                    f"{store}: holds another recording (with the weights of its checkpoint {last} this {what} gives "
                    f"other values than are there): {CHOOSE}"
                )
            accept({f"values of the {what}": (f"as at checkpoint {last}", "others, with the same weights")})
    return int(run.values("step")[last])
