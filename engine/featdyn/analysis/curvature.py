"""How curved the training loss is along given directions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from featdyn.analysis.gradients import flat, unflattened


def quotients(
    model: nn.Module, inputs: Tensor, labels: Tensor, directions: Tensor, names: list[str]
) -> NDArray[np.float64]:
    """Return the Rayleigh quotients ``v'Hv / v'v`` of the Hessian of the mean loss.

    Parameters
    ----------
    model
        In the mode in which its loss is meant; H is taken at its parameters.
    inputs, labels
        The samples of the mean.
    directions
        ``(n, p)``; p parameters, those of ``names`` one after the other.

    Returns
    -------
    float64 array ``(n,)``

    Notes
    -----
    ``Hv`` is the derivative of the gradient along v (Pearlmutter 1994): two passes a direction, and no Hessian is formed.
    """
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    moving = {name: tensors[name] for name in names}
    rest: Mapping[str, Tensor] = {**{k: v for k, v in tensors.items() if k not in moving}, **dict(model.named_buffers())}

    def loss(at: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, {**rest, **at}, (inputs,)), labels)

    found = np.empty(len(directions))
    for i, v in enumerate(directions.float()):
        _, along = jvp(grad(loss), (moving,), (unflattened(v, moving, names),))
        found[i] = float(flat(along, names).double() @ v.double()) / float(v.double() @ v.double())
    return found
