"""The two LeNets that compression papers measure on MNIST, as Caffe's examples have them.

lenet_300_100   784 - 300 - 100 - 10, relu between                                                266,610 parameters
lenet5_caffe    5x5 convolution to 20, maximum over 2x2, 5x5 convolution to 50, maximum over 2x2, 800 - 500 - 10, relu
                after the first linear layer alone                                                431,080 parameters

Source: LeCun et al., Proceedings of the IEEE 86(11), 1998; the sizes of Caffe's ``lenet_train_test.prototxt``, and of
Han et al., NeurIPS 2015, arXiv:1506.02626, table 1, which both Deep Compression (arXiv:1510.00149) and its successors
compress.
"""

from torch import Tensor, nn


class LeNet300(nn.Module):
    """Three linear layers on the pixels.

    Args:
        classes: outputs.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)
        self.relu = nn.ReLU()
        _xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to logits (batch, classes)."""
        x = self.relu(self.fc1(x.flatten(1)))
        return self.fc3(self.relu(self.fc2(x)))


class LeNet5(nn.Module):
    """Two convolutions and two linear layers.

    Args:
        classes: outputs.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, classes)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        _xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to logits (batch, classes)."""
        x = self.pool(self.conv2(self.pool(self.conv1(x))))
        return self.fc2(self.relu(self.fc1(x.flatten(1))))


def lenet_300_100(classes: int = 10) -> LeNet300:
    """Build LeNet-300-100: 266,610 parameters."""
    return LeNet300(classes)


def lenet5_caffe(classes: int = 10) -> LeNet5:
    """Build the LeNet-5 of 20, 50 and 500: 431,080 parameters."""
    return LeNet5(classes)


def _xavier(model: nn.Module) -> None:
    """Begin as Caffe's examples do: Glorot's uniform weights, and biases of zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
