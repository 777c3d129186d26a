"""The optimizers of a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from featdyn.training.options import TrainingOptions

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al. 2024, steep at zero: five steps bring singular values to about 0.7 to 1.2."""


def optimizer_of(model: nn.Module, options: TrainingOptions) -> Optimizer:
    """Return the optimizer that a recipe asks for, over all parameters of a model."""
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adam":
        return Adam(model.parameters(), rate, weight_decay=decay)
    if options.optimizer == "adamw":
        return AdamW(model.parameters(), rate, weight_decay=decay)
    if options.optimizer == "muon":
        return Muon(model, rate, options.momentum, decay)
    return SGD(model.parameters(), rate, momentum=options.momentum, weight_decay=decay)


class Muon(AdamW):
    """Muon for the weights of hidden layers and AdamW for all else, as its authors advise (Jordan et al. 2024).

    All else is what is no matrix (biases, normalisation, positions), embeddings, and the last linear layer. The weight
    of a convolution is a matrix, outputs by all the rest. One learning rate and one decoupled weight decay serve both:
    steps of Muon are given the size of AdamW's (Liu et al., arXiv 2502.16982). ``torch.optim.Muon`` is the same for
    matrices; it takes nothing else, and computes in bfloat16.
    """

    def __init__(self, model: nn.Module, rate: float, momentum: float, decay: float) -> None:
        hidden = hidden_weights(model)
        mine = {id(p) for p in hidden}
        super().__init__([p for p in model.parameters() if id(p) not in mine], rate, weight_decay=decay)
        if hidden:
            self.add_param_group({"params": hidden, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step from the gradients that are there."""
        others, *hidden = groups = self.param_groups
        self.param_groups = [others]
        loss = super().step(closure)
        self.param_groups = groups
        for group in hidden:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(self._direction(p, p.grad, group["momentum"]), alpha=group["lr"])
        return loss

    def _direction(self, p: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        kept: Tensor = self.state[p].setdefault("momentum_buffer", torch.zeros_like(gradient))
        kept.lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(kept, momentum).flatten(1)
        size: float = 0.2 * max(ahead.shape) ** 0.5
        return size * orthogonalised(ahead).view(p.shape)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix with its singular vectors, and singular values near 1 where they were not tiny."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that Muon takes: matrices, but not of embeddings nor of the last linear layer."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    found = {
        p: None
        for module in model.modules()
        if not isinstance(module, nn.Embedding) and module not in last
        for name, p in module.named_parameters(recurse=False)
        if name.endswith("weight") and p.ndim > 1
    }
    tied = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return [p for p in found if id(p) not in tied and all(p is not module.weight for module in last)]
