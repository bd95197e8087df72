"""Where networks come from: the papers' own, and the collections that other packages keep."""

from .registry import NETWORKS, Network
from .sources import build, default_example, input_shape, is_user_file, takes_classes
from .weights import load_weights

__all__ = [
    "NETWORKS",
    "Network",
    "build",
    "default_example",
    "input_shape",
    "is_user_file",
    "load_weights",
    "takes_classes",
]
