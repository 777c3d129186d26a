"""ResNet-20 for small images, with shortcuts that hold no parameters."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that strides and zero-pads the channels (option A of He et al.)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            before = self.padding // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.padding - before))
        return F.relu(y + x)


def resnet20(classes: int, shape: tuple[int, int, int], *, width: int = 16) -> nn.Module:
    """Residual network of 20 layers: modules ``stem``, ``s1b1`` to ``s3b3``, ``pooled`` and ``fc``.

    Any height and width will do; ``width`` are the channels of the first stage, doubled by each later one. 269,722
    parameters for 10 classes of 3x32x32. (He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016,
    section 4.2; initial weights as in their "Delving deep into rectifiers", 2015.)
    """
    stem = OrderedDict(conv=nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), bn=nn.BatchNorm2d(width), relu=nn.ReLU())
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    channels = width
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            outputs = width * 2 ** (stage - 1)
            parts[f"s{stage}b{block}"] = BasicBlock(channels, outputs, 1 + (channels != outputs))
            channels = outputs
    parts["pooled"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["fc"] = nn.Linear(channels, classes)
    network = nn.Sequential(parts)
    initialise(network)
    return network


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Give every convolution weights that keep the variance of a ReLU network (He et al. 2015), and no bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                module.bias.zero_()
