"""How curved the training loss is along given directions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featdyn.analysis.gradient_noise.sampler import flat


def quotients(
    model: nn.Module, inputs: Tensor, labels: Tensor, directions: Iterable[Tensor], names: list[str]
) -> NDArray[np.float64]:
    """Return the Rayleigh quotients ``v'Hv / v'v`` of the Hessian of the mean loss.

    Parameters
    ----------
    model
        In the mode in which its loss is meant; H is taken at its parameters.
    inputs, labels
        The samples of the mean.
    directions
        n of them, ``(p,)``; p parameters, those of ``names`` one after the other.

    Returns
    -------
    float64 array ``(n,)``

    Notes
    -----
    ``Hv`` is the gradient of ``g'v`` (Pearlmutter 1994): one more pass a direction, and no Hessian is formed.
    """
    moving = [dict(model.named_parameters())[name] for name in names]
    first = torch.autograd.grad(F.cross_entropy(model(inputs), labels), moving, create_graph=True)
    gradient = flat(dict(zip(names, first, strict=True)), names)
    found = []
    for v in directions:
        v = v.to(gradient)
        second = torch.autograd.grad(gradient @ v, moving, retain_graph=True, materialize_grads=True)
        along = flat(dict(zip(names, second, strict=True)), names)
        found.append(float(along.double() @ v.double()) / float(v.double() @ v.double()))
    return np.array(found)
