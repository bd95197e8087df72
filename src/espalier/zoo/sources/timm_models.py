"""``timm:NAME``: pytorch-image-models."""

import torch
from torch import Tensor, nn

from ...core import ModelError, UnknownNameError, cause
from .extra import collection


def names() -> list[str]:
    """Return the full names of the models."""
    return [f"timm:{name}" for name in collection("timm").list_models()]


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Build a timm model; ``NAME`` may carry a tag (``resnet50.a1_in1k``). Hub addresses are refused."""
    timm = collection("timm")
    if ":" in name or "/" in name:
        raise ModelError(f"timm:{name}: addresses on a hub are refused; name a model that timm itself keeps")
    if not timm.is_model(name):
        raise UnknownNameError("model", f"timm:{name}", names())
    # not every model takes num_classes=None as "your own number"
    options = {} if classes is None else {"num_classes": classes}
    if not pretrained:
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # network, hub and file errors share no root
        raise ModelError(f"the weights of timm:{name} could not be fetched: {cause(error)}") from error


def example(model: nn.Module, name: str) -> Tensor:
    """Return two random images of the size in the model's own configuration."""
    config = getattr(model, "default_cfg", None) or getattr(model, "pretrained_cfg", None) or {}
    shape = config.get("input_size") or (3, 224, 224)
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def input_shape(name: str) -> tuple[int, ...] | None:
    """Return the shape of one input, where timm has a configuration for the name."""
    timm = collection("timm")
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return None if config is None else config.input_size
