"""The perceptrons that BinaryConnect and BinaryNet are trained on: three hidden layers, batch norm after every one.

    image ──flatten──▶ (linear ─ norm ─ relu) x 3 ──▶ linear ─ norm ──▶ ten scores            binary_connect_mlp
    image ──flatten──▶ (linear ─ norm ─ hard tanh) x 3 ──▶ linear ─ norm ──▶ ten scores       binary_net_mlp

*Source*: Courbariaux et al., arXiv:1511.00363, section 3.1 (1,024 units a layer); Hubara et al., arXiv:1602.02830,
section 2.1 (4,096, and 2,048 in the Torch version); both with a squared hinge loss.
*Differs*: (1) no dropout and no biases, which the norms have; (2) hard tanh is in BinaryNet's code the sign's backward
pass alone: here it stands in the network, so that the network is one before anything is binary, and a sign after it is
the same sign with the same gradient.
"""

from collections.abc import Callable

from torch import Tensor, nn

_EPSILON = 1e-4  # of batch norm, as in the authors' code


class BinaryMLP(nn.Module):
    """Three hidden layers.

    Args:
        classes: outputs.
        pixels: inputs.
        width: units of each hidden layer.
        activation: makes what follows a norm.
    """

    def __init__(self, classes: int, pixels: int, width: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        sizes = (pixels, width, width, width)
        for place, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), start=1):
            self.add_module(f"linear{place}", nn.Linear(inputs, outputs, bias=False))
            self.add_module(f"norm{place}", nn.BatchNorm1d(outputs, eps=_EPSILON))
            self.add_module(f"active{place}", activation())
        self.linear4 = nn.Linear(width, classes, bias=False)
        self.norm4 = nn.BatchNorm1d(classes, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to scores (batch, classes)."""
        for module in self.children():
            x = module(x)
        return x


_MNIST, _DIGITS = 28 * 28, 8 * 8


def binary_connect_mlp(classes: int = 10, pixels: int = _MNIST, width: int = 1024) -> BinaryMLP:
    """Build BinaryConnect's network for MNIST."""
    return BinaryMLP(classes, pixels, width, nn.ReLU)


def binary_connect_mlp_digits(classes: int = 10) -> BinaryMLP:
    """Build the same for scikit-learn's digits, with 256 units."""
    return binary_connect_mlp(classes, _DIGITS, 256)


def binary_net_mlp(classes: int = 10, pixels: int = _MNIST, width: int = 1024) -> BinaryMLP:
    """Build BinaryNet's network for MNIST, a quarter as wide."""
    return BinaryMLP(classes, pixels, width, nn.Hardtanh)


def binary_net_mlp_2048(classes: int = 10) -> BinaryMLP:
    """Build BinaryNet's network for MNIST as wide as its Torch version's."""
    return binary_net_mlp(classes, width=2048)


def binary_net_mlp_4096(classes: int = 10) -> BinaryMLP:
    """Build BinaryNet's network for MNIST as wide as the paper's."""
    return binary_net_mlp(classes, width=4096)


def binary_net_mlp_digits(classes: int = 10) -> BinaryMLP:
    """Build the same for scikit-learn's digits, with 256 units."""
    return binary_net_mlp(classes, _DIGITS, 256)
