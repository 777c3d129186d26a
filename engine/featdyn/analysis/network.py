"""The network of a run, rebuilt from what the store says of it, with the weights of any checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from featdyn.errors import NetworkError
from featdyn.networks import build
from featdyn.store import Run


def network(run: Run, device: torch.device | None = None) -> nn.Module:
    """Return the run's network in eval mode, in the memory format that it was trained in.

    Raises
    ------
    NetworkError
        The run was not made by ``featdyn train``: its network is known to its own code only.
    """
    recipe, dataset = run.attributes.get("recipe"), run.attributes.get("dataset")
    if recipe is None or dataset is None:
        raise NetworkError(f"{run.path}: its network is not one of featdyn's: pass it as model= from Python")
    options = recipe["network"]
    height, width, depth = dataset["shape"]
    model = build(options["name"], classes=len(dataset["classes"]), shape=(height, width, depth), **options["options"])
    return prepare(model, channels_last=recipe["training"]["channels_last"], device=device)


def prepare(model: nn.Module, *, channels_last: bool, device: torch.device | None = None) -> nn.Module:
    """Return a model in eval mode on its device, in the memory format asked for."""
    model = model.to(device or default_device()).eval()
    return model.to(memory_format=torch.channels_last) if channels_last else model


def states(run: Run, model: nn.Module) -> list[dict[str, Tensor]]:
    """Return the parameters and buffers of every checkpoint, each like the model's own in device and memory format."""
    own = model.state_dict()
    return [state(run, own, checkpoint) for checkpoint in range(run.checkpoints)]


def state(run: Run, own: Mapping[str, Tensor], checkpoint: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of one checkpoint, each like the model's ``own``."""
    stored = run.state(checkpoint)
    if stored.keys() != own.keys() or any(stored[name].shape != own[name].shape for name in own):
        raise NetworkError(f"{run.path}: the weights of checkpoint {checkpoint} do not fit this network")
    return {name: torch.empty_like(own[name]).copy_(stored[name]) for name in own}


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
