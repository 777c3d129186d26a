"""torchvision's networks, fitted to the image: a stem without early striding for small ones, any number of channels."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import nn

from featdyn.errors import NetworkError
from featdyn.extras import install
from featdyn.networks.resnet import initialise

SMALL = 64
"""Images up to this side (pixels) get the small-image form: [I], our choice."""
WIDTH = 64
"""Channels of VGG's first convolutions."""


def resnet18(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Make torchvision's ResNet-18; up to 64 pixels the stem is a 3x3 convolution of stride 1 without max pooling."""
    network: nn.Module = _models().resnet18(num_classes=classes)
    if _small(shape):
        network.conv1 = _like(network.conv1, shape[0], kernel_size=3, stride=1, padding=1)
        network.maxpool = nn.Identity()
    elif shape[0] != 3:
        network.conv1 = _like(network.conv1, shape[0])
    return network


def vit(
    classes: int,
    shape: tuple[int, int, int],
    *,
    patch: int | None = None,
    depth: int = 6,
    heads: int = 3,
    width: int = 192,
    mlp_width: int = 768,
) -> nn.Module:
    """Small vision transformer (torchvision's `VisionTransformer`) on square images.

    ``patch`` is the side of a patch in pixels, which must divide the image's; by default the smallest that leaves at
    most 8 patches a side (14 above 64 pixels). The others are encoder layers, attention heads, embedding units, and
    units of the hidden layer in each encoder layer.
    """
    channels, height, side = shape
    if height != side:
        raise NetworkError(f"vit needs square images, not {height}x{side}")
    if patch is None:
        most = 8 if _small(shape) else 14
        patch = next(size for size in range(1, side + 1) if side % size == 0 and side // size <= most)
    if side % patch:
        raise NetworkError(f"vit: patch={patch} does not divide the image's side of {side} pixels")
    if width % heads:
        raise NetworkError(f"vit: heads={heads} does not divide width={width}")
    network: nn.Module = _models().VisionTransformer(
        side, patch, num_layers=depth, num_heads=heads, hidden_dim=width, mlp_dim=mlp_width, num_classes=classes
    )
    if channels != 3:
        network.conv_proj = _like(network.conv_proj, channels)
    return network


def vgg(name: str, classes: int, shape: tuple[int, int, int], *, width: int = WIDTH) -> nn.Module:
    """Make torchvision's VGG of this name; up to 64 pixels global pooling and one linear layer classify.

    ``width`` are the channels of the first convolutions, which the others follow; it needs such small images.
    """
    models, small = _models(), _small(shape)
    if width != WIDTH and not small:
        raise NetworkError(f"{name}: width={width} needs images up to {SMALL} pixels, not {shape[1]}x{shape[2]}")
    with torch.device("meta") if small else nullcontext():  # the large classifier, 120 million weights, is never drawn
        network: Any = getattr(models, name)(num_classes=classes, init_weights=not small)
    if small:
        if width != WIDTH:
            plan = [kind if kind == "M" else kind * width // WIDTH for kind in models.vgg.cfgs["D"]]
            network.features = models.vgg.make_layers(plan, batch_norm=name.endswith("bn"))
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(8 * width, classes)
        network.to_empty(device=torch.get_default_device())
        _draw(network)
    if shape[0] != 3:
        network.features[0] = _like(network.features[0], shape[0])
    side = min(shape[1:])
    for index, module in enumerate(network.features):
        if isinstance(module, nn.MaxPool2d):
            side //= 2
            if side == 0:  # nothing left to pool
                network.features[index] = nn.Identity()
                side = 1
    return network  # type: ignore[no-any-return]


def _draw(network: nn.Module) -> None:
    """Set initial weights as torchvision's VGG does."""
    initialise(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


def _small(shape: tuple[int, int, int]) -> bool:
    return max(shape[1:]) <= SMALL


def _like(old: Any, channels: int, **changes: Any) -> nn.Conv2d:
    """Make a convolution like `old` for another number of input channels, with torchvision's initial weights."""
    keep = ("out_channels", "kernel_size", "stride", "padding")
    new = nn.Conv2d(channels, bias=old.bias is not None, **{key: getattr(old, key) for key in keep} | changes)
    initialise(new)
    return new


def _models() -> ModuleType:
    try:
        from torchvision import models
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # also one built for another torch
        raise NetworkError(
            f"this network needs torchvision beside a torch that it was built for: {install('torchvision')}"
        ) from error
    return models  # type: ignore[no-any-return]
