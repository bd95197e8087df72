"""``espalier:NAME``: the papers' own networks."""

import torch
from torch import Tensor, nn

from ...core import ModelError, UnknownNameError
from ..registry import NETWORKS, Network


def names() -> list[str]:
    """Return the full names of the networks here."""
    return [f"espalier:{name}" for name in NETWORKS]


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Build one of our own networks."""
    network = _find(name)
    if pretrained:
        raise ModelError(f"espalier:{name} has no published weights; give a weight file (--weights FILE)")
    return network.build(10 if classes is None else classes)


def example(model: nn.Module, name: str) -> Tensor:
    """Return two random images of the network's size."""
    return torch.randn(2, *_find(name).input_shape, generator=torch.Generator().manual_seed(0))


def input_shape(name: str) -> tuple[int, ...]:
    """Return the shape of one input."""
    return _find(name).input_shape


def _find(name: str) -> Network:
    if name not in NETWORKS:
        raise UnknownNameError("model", f"espalier:{name}", names())
    return NETWORKS[name]
