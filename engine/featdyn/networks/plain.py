"""Networks without BatchNorm and without skips: a multilayer perceptron and a convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import nn

from featdyn.networks.lazy import lazy
from featdyn.networks.resnet import initialise


def mlp(
    classes: int, shape: tuple[int, int, int], *, widths: Sequence[int] = (256, 128), alpha: float | None = None
) -> nn.Module:
    """Multilayer perceptron with ReLU: modules ``flatten``, ``hidden1``, ``hidden2``, ..., ``fc``.

    ``widths`` are the units of each hidden layer; of ``alpha`` see :func:`featdyn.networks.lazy.lazy`.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    units = prod(shape)
    for depth, width in enumerate(widths, 1):
        parts[f"hidden{depth}"] = nn.Sequential(OrderedDict(linear=nn.Linear(units, width), relu=nn.ReLU()))
        units = width
    parts["fc"] = nn.Linear(units, classes)
    network = nn.Sequential(parts)
    return network if alpha is None else lazy(network, alpha)


def cnn(
    classes: int, shape: tuple[int, int, int], *, widths: Sequence[int] = (32, 64, 128), alpha: float | None = None
) -> nn.Module:
    """Plain convolutional network: modules ``conv1``, ``pool1``, ``conv2``, ``pool2``, ..., ``pooled``, ``fc``.

    ``widths`` are the channels of each 3x3 convolution with ReLU; each is followed by 2x2 max pooling. Any height and
    width will do. Of ``alpha`` see :func:`featdyn.networks.lazy.lazy`.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = shape[0]
    for depth, width in enumerate(widths, 1):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        parts[f"conv{depth}"] = nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))
        parts[f"pool{depth}"] = nn.MaxPool2d(2, ceil_mode=True)  # rounded up: a side never falls to zero
        channels = width
    parts["pooled"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["fc"] = nn.Linear(channels, classes)
    network = nn.Sequential(parts)
    initialise(network)
    return network if alpha is None else lazy(network, alpha)
