"""What is recorded of the outputs: logits and loss, of tokens by position, and of a whole vocabulary its best.

Logits ``(sample, position, class)`` of more classes than :data:`VOCABULARY` would fill disks: of each position the
:data:`TOP` largest with their classes are kept, and the logit of its target. Both numbers are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featdyn.capture.layers import dims
from featdyn.classes import IGNORED
from featdyn.networks.classes import token_loss
from featdyn.store import ArraySpec

VOCABULARY = 1024
"""Classes from which on logits are not kept: our own choice."""
TOP = 16
"""And how many of the largest are then kept: our own choice."""


@dataclass(frozen=True)
class Outputs:
    """What a recording keeps of outputs.

    Parameters
    ----------
    shape
        Of one sample's output.
    loss
        Whether there is a loss.
    targets
        Whether there are targets at positions, and the loss is their cross-entropy.
    classes
        Whether an output may be logits of classes: targets that are no integers speak against it.
    mask
        The number of positions of the probes' mask, None without.
    reduced
        How a sample's loss comes from those of its positions.
    """

    shape: tuple[int, ...]
    loss: bool
    targets: bool = False
    classes: bool = True
    mask: int | None = None
    reduced: str = "mean"

    @property
    def best_only(self) -> bool:
        """Whether whole logits are too many to keep."""
        return self.classes and len(self.shape) == 2 and self.shape[-1] > VOCABULARY

    @property
    def said(self) -> str:
        """What a user should know before the run, or nothing."""
        if not self.best_only:
            return ""
        target = ", and the target's logit" if self.targets else ""
        return (
            f"of {self.shape[-1]:,} logits at each position the {TOP} largest are stored{target}, not all "
            f"(more than {VOCABULARY:,} classes: our own choice)"
        )

    def arrays(self, samples: int) -> list[ArraySpec]:
        """Return the arrays of a checkpoint."""
        named = {2: ("position", "class")} if self.targets else {1: ("class",)}
        found = []
        if self.best_only:
            at = (samples, self.shape[0])
            place = ("sample", "position")
            notes = [
                {"long_name": f"{what} of the {TOP} largest of {self.shape[1]} logits"} for what in ("value", "class")
            ]
            found.append(ArraySpec("outputs/top_logits", (*place, "rank"), (*at, TOP), "float32", notes[0]))
            found.append(ArraySpec("outputs/top_classes", (*place, "rank"), (*at, TOP), "int32", notes[1]))
            if self.targets:
                note = {"long_name": "logit of the target, NaN where it does not count"}
                found.append(ArraySpec("outputs/target_logit", place, at, "float32", note))
        else:
            axes = ("sample", *(named.get(len(self.shape)) or dims(self.shape)))
            found.append(ArraySpec("outputs/logits", axes, (samples, *self.shape), "float32"))
        if self.targets:
            note = {"long_name": "cross-entropy at each position, NaN where the target does not count"}
            found.append(
                ArraySpec("outputs/token_loss", ("sample", "position"), (samples, self.shape[0]), "float32", note)
            )
        if self.loss:
            said = {"long_name": f"{self.reduced} of the cross-entropies at its positions"} if self.targets else {}
            found.append(ArraySpec("outputs/loss", ("sample",), (samples,), "float32", said))
        return found

    def columns(self, logits: Tensor, loss: Tensor, targets: Tensor | None, real: Tensor | None) -> dict[str, Tensor]:
        """Return what is kept of a batch; of positions that do not count it is 0, and -1 for classes."""
        every = torch.ones((), dtype=torch.bool, device=logits.device)
        there = real[:, :, None].to(logits.device) if self.padded and real is not None else every
        found: dict[str, Tensor] = {}
        if self.best_only:  # logits themselves are too many to be copied
            best = logits.topk(TOP, dim=-1)
            found["outputs/top_logits"] = torch.where(there, best.values, 0)
            found["outputs/top_classes"] = torch.where(there, best.indices.int(), -1)
        else:
            found["outputs/logits"] = torch.where(there, logits, 0) if there.ndim else logits
        if self.targets:
            assert targets is not None
            counts = targets != IGNORED
            found["outputs/token_loss"] = token_loss(logits.float(), targets)
            if self.best_only:
                own = logits.gather(-1, targets.clamp(min=0)[:, :, None])[:, :, 0]
                found["outputs/target_logit"] = torch.where(counts, own, own.new_zeros(()))
        return found | ({"outputs/loss": loss} if self.loss else {})

    @property
    def padded(self) -> bool:
        """Whether outputs have the positions of the mask."""
        return self.mask is not None and len(self.shape) == 2 and self.shape[0] == self.mask

    def missing(self, targets: Tensor | None, real: Tensor | None, samples: slice) -> dict[str, Tensor]:
        """Return of each array that has such, at which ``(sample, position)`` of some samples nothing counts."""
        found = {}
        if self.padded and real is not None:
            found = {"outputs/top_logits" if self.best_only else "outputs/logits": ~real}
        if self.targets:
            assert targets is not None
            found |= dict.fromkeys(("outputs/token_loss", "outputs/target_logit"), targets[samples] == IGNORED)
        return found
