"""Going on with a recording: only with the network and loss that it was made with, and from its last step on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from featdyn.capture.follow import close
from featdyn.capture.replica import with_tensors
from featdyn.capture.tap import Pass
from featdyn.errors import StoreError
from featdyn.store import Run
from featdyn.store.locate import Store

FEW = 16
"""So many probes tell whether it is the same recording."""
GRADIENT = 0.02
"""Of the largest gradient: what float16 and another device may change. Our own choice."""
FITTED = 1e-3
"""A loss below which a gradient may be rounding, so that it tells nothing. Our own choice."""


def last_step(store: Store, model: nn.Module, run_probes: Callable[[int, Sequence[str]], Pass], batch: int) -> int:
    """Return the step of the last checkpoint of a recording that is to be continued.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs, losses and the gradient at the first layer that has one must be what was
    recorded then, up to rounding, or :class:`StoreError` is raised. ``run_probes(count, layers)`` passes the first
    probes through the network, with the gradients at some layers.
    """
    run = Run(store)
    last = run.checkpoints - 1
    recorded = [name for name in ("logits", "loss") if f"outputs/{name}" in run.nodes]
    stored = {name: torch.from_numpy(run.block(f"outputs/{name}", last, 0).copy()) for name in recorded}
    count, state = min(batch, len(stored["logits"]), FEW), run.state(last)
    paths = [a.path for a in run.schema.arrays if a.path.startswith("layers/") and a.path.endswith("/gradient")][:1]
    layers = [path.split("/")[1] for path in paths]
    own = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    with with_tensors(model, {name: state[name] for name, _ in own if name in state}):
        found = run_probes(count, layers)
    unlike = [
        f"{name} gives other values"
        for name, key in (("network", "logits"), ("loss", "loss"))
        if key in stored and not close(stored[key][:count], getattr(found, key).float().cpu(), found.logits)
    ]
    told = stored.get("loss", torch.zeros(0))[:count].abs() >= FITTED
    for path, layer in zip(paths, layers, strict=True):
        before, now = torch.from_numpy(run.block(path, last, 0)[:count].copy()), found.gradients[layer].cpu()
        if told.any() and not _alike(before[told], now[told]):
            unlike.append("loss gives other gradients")
    for what in unlike:
        raise StoreError(
            f"{store}: holds another recording (with the weights of its checkpoint {last} this {what} than are there): "
            "choose another path"
        )
    return int(run.values("step")[last])


def _alike(before: Tensor, now: Tensor) -> bool:
    """Whether gradients are the same up to rounding."""
    allowed = max(GRADIENT, 16 * torch.finfo(now.dtype).eps) * float(before.abs().nan_to_num(nan=0.0).max())
    return torch.allclose(before.float(), now.float(), rtol=0.0, atol=allowed, equal_nan=True)
