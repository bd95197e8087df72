"""The CIFAR ResNets with 20 to 110 layers.

A block is relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))), in three stages of 16, 32 and 64 channels.

Source: He et al., CVPR 2016, arXiv:1512.03385, section 4.2.
Differs: (1) the parameter-free shortcut between stages (option A: every second pixel, zero channels on both sides) is
written as a bias-free 1x1 convolution with stride 2 and fixed 0/1 weights: the same function, but its channels can be
pruned. Weight files made for the slice-and-pad writing fit, because they have no shortcut keys.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def _option_a(inputs: int, outputs: int) -> nn.Conv2d:
    """Return the convolution that takes every second pixel and centres ``inputs`` channels among ``outputs``."""
    conv = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
    first = (outputs - inputs) // 2
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[first : first + inputs, :, 0, 0] = torch.eye(inputs)
    conv.weight.requires_grad_(False)
    return conv


class _Block(nn.Module):
    """The basic block; names are those of the published weight files."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 else _option_a(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    stride = 1 if inputs == outputs else 2
    rest = (_Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Block(inputs, outputs, stride), *rest)


class CifarResNet(nn.Module):
    """A ResNet for 32x32 images.

    Args:
        layers: 6 n + 2.
        classes: outputs.

    Raises:
        ValueError: no such depth.
    """

    def __init__(self, layers: int, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(layers - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers, not {layers}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 32, 32) to logits (batch, classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def cifar_resnet20(classes: int = 10) -> CifarResNet:
    """Build the 20-layer network: 0.27 M parameters, 41 M MACs."""
    return CifarResNet(20, classes)


def cifar_resnet32(classes: int = 10) -> CifarResNet:
    """Build the 32-layer network: 0.46 M parameters, 69 M MACs."""
    return CifarResNet(32, classes)


def cifar_resnet44(classes: int = 10) -> CifarResNet:
    """Build the 44-layer network: 0.66 M parameters, 98 M MACs."""
    return CifarResNet(44, classes)


def cifar_resnet56(classes: int = 10) -> CifarResNet:
    """Build the 56-layer network: 0.85 M parameters, 126 M MACs."""
    return CifarResNet(56, classes)


def cifar_resnet110(classes: int = 10) -> CifarResNet:
    """Build the 110-layer network: 1.7 M parameters, 253 M MACs."""
    return CifarResNet(110, classes)
