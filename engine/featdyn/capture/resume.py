"""Going on with a recording: only with the network and loss that it was made with, and from where it ends.

A recorder commits in the background, so a process that is killed may leave a checkpoint of its own that is ahead of
the store; and whoever goes on from an older one is behind it. Neither shows in names and shapes: weights tell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from featdyn.capture.arrays import gradient_scale
from featdyn.capture.follow import close
from featdyn.capture.probes import batch_of
from featdyn.capture.recording import Recording
from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter
from featdyn.store.locate import Store

CHOOSE = "choose another path, or accept the change (accept_changes, --accept-changes), which is put on record"
FEW = 16
"""So many probes tell whether it is the same recording."""
GRADIENT = 0.02
"""Of the largest gradient: what float16 and another device may change. Our own choice."""
NAMED = 5
"""So many missing steps are named one by one."""
FITTED = 1e-3
"""A loss below which a gradient may be rounding, so that it tells nothing. Our own choice."""


def last_checkpoint(
    store: Store,
    recording: Recording,
    batch: int,
    accept: Callable[[Mapping[str, tuple[str, str]]], None] | None = None,
) -> tuple[int, bool]:
    """Return the step of the last checkpoint of a recording that is to be continued, and whether the network has its
    weights.

    What a network or a loss computes is not seen in names and shapes. So some probes pass the network once more with
    the last checkpoint's weights: outputs, losses and the gradient at the first layer that has one must be what was
    recorded then, up to rounding, or :class:`StoreError` is raised, or ``accept`` is told.
    """
    run = Run(store)
    last = run.checkpoints - 1
    gradients = [a.path for a in run.schema.arrays if a.path.startswith("layers/") and a.path.endswith("/gradient")][:1]
    outputs = [f"outputs/{name}" for name in ("logits", "top_logits", "loss") if f"outputs/{name}" in run.nodes]
    count = min(batch, run.schema.samples, FEW)
    with recording.holding(run, last) as at_last:
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
    return int(run.values("step")[last]), at_last


def begun(store: Store, last: int, what: str = "") -> StoreError:
    """Return what is said to who begins anew where a recording is whose last step this is; ``what`` tells by which."""
    return StoreError(
        f"{store}: {what}holds a recording to step {last} already: to go on with it, load what "
        "Run(store).state(checkpoint) has of its last checkpoint, give resume=True and count from there; to begin "
        "anew, give overwrite=True or choose another path"
    )


def check_begin(
    run: RunWriter, step: int | None, at_last: bool, due: Callable[[int], bool], *, accept_changes: bool
) -> None:
    """See that a training which stands at a step goes on where a recording ends; put on record where it does not.

    Without a step it is taken to be the recording's last. ``at_last`` says whether the network has the weights recorded
    there, ``due`` at which steps checkpoints were to be. Raises :class:`StoreError` where the training is behind the
    recording, or has other weights at its last step, unless that is accepted.
    """
    last = int(Run(run.place).values("step")[-1])
    load = f"load what Run(store).state({run.checkpoints - 1}) has"
    if step is None or step == last:
        if at_last:
            return
        why = f"the weights given are not those of its last checkpoint, step {last}"
        ways = f"{load}, or call start(step=...) with the step that they are of"
        changed = {"weights": (f"at step {last} as recorded", "others, with which training went on")}
    elif step < last:
        why = f"holds a recording to step {last}, and training goes on from step {step}"
        ways = f"{load}, which is of step {last}"
        changed = {"training": (f"recorded to step {last}", f"gone on from step {step}; recorded beyond {last} only")}
    else:
        missed = [str(each) for each in range(last + 1, step) if due(each)]
        if not missed:
            return
        more = f", ... ({len(missed)} in all)" if len(missed) > NAMED else ""
        lack = f"of step{'s' * (len(missed) > 1)} {', '.join(missed[:NAMED])}{more}"
        print(
            f"{run.place}: checkpoints {lack} were due and never committed: training goes on from step {step}",
            file=sys.stderr,
        )
        run.accept({"checkpoints": (f"all that were due to step {last}", f"none {lack}: never committed")})
        return
    if not accept_changes:
        raise StoreError(f"{run.place}: {why}: {ways}; {CHOOSE}")
    run.accept(changed)


def _alike(before: Tensor, now: Tensor, dtype: torch.dtype) -> bool:
    """Whether gradients, computed in ``dtype``, are the same up to rounding."""
    allowed = max(GRADIENT, 16 * torch.finfo(dtype).eps) * float(before.abs().nan_to_num(nan=0.0).max())
    return torch.allclose(before.float(), now.float(), rtol=0.0, atol=allowed, equal_nan=True)
