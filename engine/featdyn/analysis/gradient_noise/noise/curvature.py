"""How curved the training loss is along given directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.gradient_noise.linear_response import derivatives_of_every_kind
from featdyn.analysis.gradient_noise.sampler import flat
from featdyn.capture.nest import Nest, mapped


def quotients(
    model: nn.Module,
    mean_loss: Callable[[Any, Any], Tensor],
    inputs: Nest,
    labels: Nest,
    directions: Iterable[Tensor],
    names: list[str],
) -> NDArray[np.float64]:
    """Return the Rayleigh quotients ``v'Hv / v'v`` of the Hessian of the mean loss over samples, float64 ``(n,)``.

    H is taken at the model's parameters, in its mode. Each of the n directions ``(p,)`` holds the p parameters of
    ``names`` one after the other; its length does not matter. NaN along those that are zero or not finite. ``Hv`` is
    the gradient of ``g'v`` (Pearlmutter 1994): one more pass a direction, and no Hessian is formed.
    """
    moving = [dict(model.named_parameters())[name] for name in names]
    with derivatives_of_every_kind():
        loss = mean_loss(model(mapped(Tensor.clone, inputs)), labels)
        first = torch.autograd.grad(loss, moving, create_graph=True)
        gradient = flat(dict(zip(names, first, strict=True)), names)
        found = []
        for v in directions:
            unit = (v.double() / v.double().norm()).to(gradient)
            second = torch.autograd.grad(gradient @ unit, moving, retain_graph=True, materialize_grads=True)
            along = flat(dict(zip(names, second, strict=True)), names)
            found.append(float(along.double() @ unit.double()))
    return np.array(found)
