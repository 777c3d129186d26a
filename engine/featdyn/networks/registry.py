"""Networks by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from featdyn.errors import NetworkError
from featdyn.nearest import meant
from featdyn.networks import plain, resnet, transformer, vision, words

_BUILDERS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "resnet20": (resnet.resnet20, "ResNet-20 for small images, shortcuts without parameters (He et al.)"),
    "mlp": (plain.mlp, "multilayer perceptron with ReLU, no BatchNorm"),
    "cnn": (plain.cnn, "plain convolutional network, no BatchNorm, no skips"),
    "transformer": (transformer.transformer, "small transformer over the rows of an image, such as one-hot symbols"),
    "words": (words.words, "small classifier of texts: embedded words, their mean, one hidden layer"),
    "resnet18": (vision.resnet18, "torchvision's ResNet-18, with a small-image stem up to 64 pixels"),
    "vgg16": (
        partial(vision.vgg, "vgg16"),
        "torchvision's VGG-16, with one linear layer as classifier up to 64 pixels",
    ),
    "vgg16_bn": (partial(vision.vgg, "vgg16_bn"), "torchvision's VGG-16 with BatchNorm, otherwise as vgg16"),
    "vit": (vision.vit, "small vision transformer (torchvision), patches fitted to the image"),
}


def names() -> dict[str, str]:
    """Say which networks `build` knows: name to one line of description."""
    return {name: text for name, (_, text) in _BUILDERS.items()}


def build(name: str, *, classes: int, shape: tuple[int, ...], **options: Any) -> nn.Module:
    """Build a network of `names` in training mode, with fresh random weights, drawn from torch's global generator.

    It maps images (N, C, H, W), whose ``shape`` is (C, H, W), or texts (N, position), to logits (N, classes).
    Options are the network's own, such as ``widths`` of ``mlp``.

    Raises
    ------
    NetworkError
        Unknown name or option, an option that does not fit, or torchvision missing.
    """
    if name not in _BUILDERS:
        raise NetworkError(f"unknown network {name!r}; {meant(name, _BUILDERS)}there are {', '.join(_BUILDERS)}")
    if classes < 1:
        raise NetworkError(f"{name}: classes must be at least 1, not {classes}")
    if (name != "words" and len(shape) != 3) or min(shape) < 1:
        raise NetworkError(f"{name}: shape must be (channels, height, width), each at least 1, not {tuple(shape)}")
    builder = _BUILDERS[name][0]
    known = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise NetworkError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    for option, value in options.items():
        _check_option(name, option, value)
    return builder(classes, tuple(shape), **options)


def _check_option(name: str, option: str, value: Any) -> None:
    """Options are positive integers, lists of them (`widths`), or a positive number (`alpha`)."""
    if option == "alpha":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise NetworkError(f"{name}: alpha must be a positive number, not {value!r}")
        return
    many = option == "widths"
    values = value if many and isinstance(value, (list, tuple)) else [value]
    if not all(type(item) is int and item > 0 for item in values) or (many and values is not value):
        kind = "a list of positive integers" if many else "a positive integer"
        raise NetworkError(f"{name}: {option} must be {kind}, not {value!r}")
