"""The demo's network: a small residual network for scikit-learn's 8x8 handwritten digits."""

from torch import Tensor, nn


class _ConvNorm(nn.Sequential):
    """Convolution 3x3 and batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )


class _Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(width, width)
        self.conv2 = _ConvNorm(width, width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class DigitsCNN(nn.Module):
    """Two stages, each a convolution and a residual block; global average pooling; one linear layer.

    Args:
        classes: outputs.
        width: channels of the first stage; the second has twice as many.
    """

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.stem = _ConvNorm(1, width)
        self.block1 = _Residual(width)
        self.down = _ConvNorm(width, 2 * width, stride=2)
        self.block2 = _Residual(2 * width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 8, 8) to logits (batch, classes)."""
        x = self.block1(self.relu(self.stem(x)))
        x = self.block2(self.relu(self.down(x)))
        return self.head(self.pool(x).flatten(1))


def digits_cnn(classes: int = 10) -> DigitsCNN:
    """Build the demo's network."""
    return DigitsCNN(classes)
