"""Run a module on probe samples and collect what passes its layers, leaving the training state as it was."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featdyn.errors import NetworkError


@dataclass
class Pass:
    """What one batch of probes left: tensors on the model's device, the batch as first axis, layers as they ran."""

    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]  # of each sample's own loss
    logits: Tensor
    loss: Tensor


def plain(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of ``torch.compile`` and DDP, whose layers can be hooked."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's first parameter or buffer is; the CPU for a model without any."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore each module's mode and all random states afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
    with torch.random.fork_rng(devices=devices):
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def run(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    layers: Sequence[str],
    *,
    gradients: bool,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Pass:
    """Run one batch in eval mode.

    Parameters
    ----------
    model
        Any module; it is left as it was: parameters, buffers, ``.grad``, mode, random state.
    inputs, labels
        The batch, on the model's device.
    layers
        Names of modules (as in ``named_modules``) whose output is one tensor.
    gradients
        Whether to differentiate each sample's loss with respect to each layer's output.
    loss
        ``(logits, labels) -> (batch,)``; cross-entropy when None.

    Raises
    ------
    NetworkError
        A layer does not run, runs twice, or returns something else than one tensor.
    """
    modules = dict(model.named_modules())
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], Tensor]:
        def hook(module: nn.Module, arguments: object, output: object) -> Tensor:
            if not isinstance(output, Tensor):
                raise NetworkError(
                    f"layer {name} returns {type(output).__name__}, not one tensor: record another layer"
                )
            if name in kept:
                raise NetworkError(f"layer {name} runs twice in one forward pass: record a layer that runs once")
            kept[name] = output
            return output.clone()  # a later in-place step (ReLU(inplace=True)) then changes the copy, not what is kept

        return hook

    with contextlib.ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        stack.enter_context(torch.autocast(inputs.device.type, enabled=False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        for name in layers:
            stack.enter_context(modules[name].register_forward_hook(keep(name)))
        # The input asks for a gradient, so that also frozen layers have a graph behind them.
        logits = model(inputs.detach().requires_grad_(gradients and inputs.is_floating_point()))
        missing = [name for name in layers if name not in kept]
        if missing:
            raise NetworkError(f"layer {missing[0]} does not run in a forward pass: record another layer")
        losses = (loss or _cross_entropy)(logits, labels)
        found: dict[str, Tensor] = {}
        if gradients:
            # In eval mode samples do not meet, so the gradient of the sum holds each sample's own gradient.
            computed = torch.autograd.grad(losses.sum(), list(kept.values()), allow_unused=True)
            for (name, value), gradient in zip(kept.items(), computed, strict=True):
                found[name] = torch.zeros_like(value) if gradient is None else gradient
    return Pass({name: value.detach() for name, value in kept.items()}, found, logits.detach(), losses.detach())


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")
