"""A convolutional network in XNOR-Net's order, small enough for a processor.

    image ─ conv ─ norm ─ relu ─ pool ──▶ (norm ─ [sign] ─ conv ─ pool) x 2 ──▶ norm ─ [sign] ─ conv ─ norm ─ relu
                                                                            ──▶ mean over the image ─ linear ──▶ scores

In a binary block the norm comes first: it centres what the sign is taken of, and a maximum over signs would be +1
nearly everywhere, so pooling comes last. The signs are no modules of it: the method puts them at the inputs of the
convolutions that it makes binary. The first and the last layer stay as they are.

*Source*: Rastegari et al., arXiv:1603.05279, section 3.2 and figure 3, for the block.
*Differs*: (1) the paper's networks are AlexNet, ResNet-18 and a GoogLenet variant for ImageNet.
"""

from torch import Tensor, nn

_EPSILON = 1e-4  # of batch norm in a binary block, as in the authors' code


class BinaryBlock(nn.Module):
    """norm, the sign that a method puts there, convolution 3x3, and a pooling by two where it is asked for."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs, eps=_EPSILON)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(self.norm(x)))


class XnorCNN(nn.Module):
    """A first convolution, three binary blocks, a linear layer.

    Args:
        channels: of the images.
        classes: outputs.
        width: channels of the first convolution; the blocks have two, four and four times as many.
    """

    def __init__(self, channels: int, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.block1 = BinaryBlock(width, 2 * width, pool=True)
        self.block2 = BinaryBlock(2 * width, 4 * width, pool=True)
        self.block3 = BinaryBlock(4 * width, 4 * width, pool=False)
        self.last_norm = nn.BatchNorm2d(4 * width)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) of any size to scores (batch, classes)."""
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.block3(self.block2(self.block1(x)))
        return self.last(self.mean(self.relu(self.last_norm(x))).flatten(1))


def xnor_cnn(classes: int = 10) -> XnorCNN:
    """Build it for grey images."""
    return XnorCNN(1, classes)


def xnor_cnn_cifar(classes: int = 10) -> XnorCNN:
    """Build it for CIFAR, twice as wide."""
    return XnorCNN(3, classes, width=64)
