"""The papers' own networks, by name. Adding one costs a file, a line here and a test."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .binary_mlp import (
    binary_connect_mlp,
    binary_connect_mlp_digits,
    binary_net_mlp,
    binary_net_mlp_2048,
    binary_net_mlp_4096,
    binary_net_mlp_digits,
)
from .cifar_resnet import cifar_resnet20, cifar_resnet32, cifar_resnet44, cifar_resnet56, cifar_resnet110
from .cifar_vgg import cifar_vgg16, cifar_vgg16_quarter
from .digits_cnn import digits_cnn
from .fcn import fcn8s, fcn8s_quarter
from .i3d import i3d, i3d_narrow
from .lenet import lenet5_caffe, lenet_300_100
from .pyramid_detector import pyramid_detector
from .xnor_cnn import xnor_cnn, xnor_cnn_cifar


@dataclass(frozen=True)
class Network:
    """How to build a network, and what it reads.

    Attributes:
        build: ``build(classes)`` returns a freshly initialised network.
        input_shape: of one input, without the batch.
    """

    build: Callable[[int], nn.Module]
    input_shape: tuple[int, ...]


_CIFAR = (3, 32, 32)
_MNIST = (1, 28, 28)
_DIGITS = (1, 8, 8)
_CAMVID = (3, 180, 240)  # as SegNet's copy of it, halved; any other size does

NETWORKS = {
    "binary_connect_mlp": Network(binary_connect_mlp, _MNIST),
    "binary_connect_mlp_digits": Network(binary_connect_mlp_digits, _DIGITS),
    "binary_net_mlp": Network(binary_net_mlp, _MNIST),
    "binary_net_mlp_2048": Network(binary_net_mlp_2048, _MNIST),
    "binary_net_mlp_4096": Network(binary_net_mlp_4096, _MNIST),
    "binary_net_mlp_digits": Network(binary_net_mlp_digits, _DIGITS),
    "cifar_resnet20": Network(cifar_resnet20, _CIFAR),
    "cifar_resnet32": Network(cifar_resnet32, _CIFAR),
    "cifar_resnet44": Network(cifar_resnet44, _CIFAR),
    "cifar_resnet56": Network(cifar_resnet56, _CIFAR),
    "cifar_resnet110": Network(cifar_resnet110, _CIFAR),
    "cifar_vgg16": Network(cifar_vgg16, _CIFAR),
    "cifar_vgg16_quarter": Network(cifar_vgg16_quarter, _CIFAR),
    "fcn8s": Network(fcn8s, _CAMVID),
    "fcn8s_quarter": Network(fcn8s_quarter, _CAMVID),
    "pyramid_detector": Network(pyramid_detector, (1, 64, 64)),
    "digits_cnn": Network(digits_cnn, _DIGITS),
    "lenet_300_100": Network(lenet_300_100, _MNIST),
    "lenet5_caffe": Network(lenet5_caffe, _MNIST),
    "i3d": Network(i3d, (3, 16, 224, 224)),
    "i3d_narrow": Network(i3d_narrow, (1, 8, 32, 32)),
    "xnor_cnn": Network(xnor_cnn, _MNIST),
    "xnor_cnn_cifar": Network(xnor_cnn_cifar, _CIFAR),
}
