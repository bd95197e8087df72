"""VGG-16 for 32x32 images, with batch norm and one linear layer, at any width.

thirteen 3x3 convolutions in five stages of 64, 128, 256, 512 and 512 channels, each with batch norm and relu, a maximum
over 2x2 after every stage, and a linear layer on the 512 numbers that are left of an image.

Source: Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556 (configuration D); the CIFAR-10 form of Li et al., ICLR 2017,
arXiv:1608.08710, section 4.1, and of Liu et al., arXiv:1708.06519.
Differs: (1) one linear layer in place of three, as in the latter; (2) all widths may be scaled by one factor.
"""

from torch import Tensor, nn

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class CifarVGG(nn.Module):
    """VGG-16 for 32x32 images.

    Args:
        classes: outputs.
        width: factor of all widths.

    Raises:
        ValueError: a layer would have no channel.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        widths = [(int(width * channels), layers) for channels, layers in _STAGES]
        if widths[0][0] < 1:
            raise ValueError(f"width={width} leaves no channel of {_STAGES[0][0]}")
        parts: list[nn.Module] = []
        inputs = 3
        for outputs, layers in widths:
            for _ in range(layers):
                parts += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 32, 32) to logits (batch, classes)."""
        return self.classifier(self.features(x).flatten(1))


def cifar_vgg16(classes: int = 10) -> CifarVGG:
    """Build the network at full width: 14.7 M parameters, 313 M MACs."""
    return CifarVGG(classes)


def cifar_vgg16_quarter(classes: int = 10) -> CifarVGG:
    """Build the network at a quarter of its width: 0.92 M parameters, 20 M MACs."""
    return CifarVGG(classes, 0.25)
