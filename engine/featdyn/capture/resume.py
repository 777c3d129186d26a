"""Going on with a recording: only with the network and loss that it was made with, and from its last step on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from featdyn.capture.arrays import gradient_scale
from featdyn.capture.follow import close
from featdyn.capture.probes import batch_of
from featdyn.capture.recording import Recording
from featdyn.errors import StoreError
from featdyn.store import Run
from featdyn.store.locate import Store

CHOOSE = "choose another path, or accept the change (accept_changes, --accept-changes), which is put on record"
FEW = 16
"""So many probes tell whether it is the same recording."""
GRADIENT = 0.02
"""Of the largest gradient: what float16 and another device may change. Our own choice."""
FITTED = 1e-3
"""A loss below which a gradient may be rounding, so that it tells nothing. Our own choice."""


def last_step(
    store: Store,
    recording: Recording,
    batch: int,
    accept: Callable[[Mapping[str, tuple[str, str]]], None] | None = None,
) -> int:
    """Return the step of the last checkpoint of a recording that is to be continued.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs, losses and the gradient at the first layer that has one must be what was
    recorded then, up to rounding, or :class:`StoreError` is raised, or ``accept`` is told.
    """
    run = Run(store)
    last = run.checkpoints - 1
    gradients = [a.path for a in run.schema.arrays if a.path.startswith("layers/") and a.path.endswith("/gradient")][:1]
    outputs = [f"outputs/{name}" for name in ("logits", "top_logits", "loss") if f"outputs/{name}" in run.nodes]
    count = min(batch, run.schema.samples, FEW)
    with recording.holding(run, last):
        found = recording.columns(batch_of(0, count, count))
    before = {path: torch.from_numpy(run.block(path, last, 0)[:count].copy()) for path in [*outputs, *gradients]}
    # At padding nothing is stored.
    now = {path: found[path].cpu().where(~there.isnan(), torch.nan) for path, there in before.items()}
    logits = found[outputs[0]].detach().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    around = max(float(logits.abs().max()), 1.0)
    unlike = [
        f"values of the {'loss' if path == 'outputs/loss' else 'network'}"
        for path in outputs
        if not close(before[path], now[path].float(), around)
    ]
    told = before.get("outputs/loss", torch.zeros(0, device="cpu")).abs() >= FITTED
    for path in gradients if told.any() else ():
        here = now[path] / gradient_scale(recording.options)
        if not _alike(before[path][told], here[told], found[outputs[0]].dtype):
            unlike.append("gradients of the loss")
    for what in unlike:
        if accept is None:
            raise StoreError(
                f"{store}: holds another recording (with the weights of its checkpoint {last} the {what} are others "
                f"than there): {CHOOSE}"
            )
        accept({what: (f"as at checkpoint {last}", "others, with the same weights")})
    return int(run.values("step")[last])


def begun(store: Store, last: int, what: str = "") -> StoreError:
    """Return what is said to who begins anew where a recording is whose last step this is; ``what`` tells by which."""
    return StoreError(
        f"{store}: {what}holds a recording to step {last} already: to go on with it, load what "
        "Run(store).state(checkpoint) has of its last checkpoint, give resume=True and count from there; to begin "
        "anew, give overwrite=True or choose another path"
    )


def begins_anew(store: Store, model: nn.Module) -> bool:
    """Whether a network is as at the first checkpoint of a recording that has moved on: its training begins again."""
    run = Run(store)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return run.checkpoints > 1 and _holds(run, 0, own) and not _holds(run, run.checkpoints - 1, own)


def _holds(run: Run, checkpoint: int, own: Mapping[str, Tensor]) -> bool:
    state = run.state(checkpoint)
    return all(name in state and torch.equal(state[name], tensor.detach().cpu()) for name, tensor in own.items())


def _alike(before: Tensor, now: Tensor, dtype: torch.dtype) -> bool:
    """Whether gradients, computed in ``dtype``, are the same up to rounding."""
    allowed = max(GRADIENT, 16 * torch.finfo(dtype).eps) * float(before.abs().nan_to_num(nan=0.0).max())
    return torch.allclose(before.float(), now.float(), rtol=0.0, atol=allowed, equal_nan=True)
