"""The module inside wrappers, whose names are those that its author gave."""

from __future__ import annotations

import sys

from torch import nn
from torch.optim.swa_utils import AveragedModel


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, DDP, DataParallel, an averaged model or PEFT, however many there are.

    ``model.compile()`` wraps nothing. What PEFT has put into the layers stays there.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile, whose class is not public
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)):
            inner = model.module
        elif (peft := sys.modules.get("peft")) and isinstance(model, peft.PeftModel):
            inner = model.get_base_model()
        if not isinstance(inner, nn.Module):
            return model
        model = inner
