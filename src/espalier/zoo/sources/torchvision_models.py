"""``torchvision:NAME``: classification, segmentation, video, detection and optical flow."""

from inspect import signature
from typing import Any

import torch
from torch import nn

from ...core import ModelError, UnknownNameError, cause
from .extra import collection

# What a model was made for where it is not an image of 224 x 224: a name's start, then the shape of one input.
_INPUTS = {
    "inception_v3": (3, 299, 299),
    "quantized_inception_v3": (3, 299, 299),
    "mvit": (3, 16, 224, 224),
    "s3d": (3, 16, 224, 224),
    "swin3d": (3, 16, 224, 224),
    "r3d": (3, 16, 112, 112),
    "mc3": (3, 16, 112, 112),
    "r2plus1d": (3, 16, 112, 112),
    "raft": (3, 128, 128),
}


def names() -> list[str]:
    """Return the full names of the models."""
    collection("torchvision")
    from torchvision import models

    return [f"torchvision:{name}" for name in models.list_models()]


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Build a torchvision model."""
    collection("torchvision")
    from torchvision import models

    if name not in models.list_models():
        raise UnknownNameError("model", f"torchvision:{name}", names())
    if pretrained and classes is not None:
        raise ModelError(
            f"torchvision:{name}: published weights come with their own classes; leave out classes, or pretrained"
        )
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # the default downloads
    if not pretrained:
        if name.endswith(("googlenet", "inception_v3")):
            options["init_weights"] = False  # what torchvision announces as its default; asking for neither warns
        return models.get_model(name, weights=None, **options)
    try:
        return models.get_model(name, weights="DEFAULT", **options)
    except Exception as error:  # network and file errors share no root
        raise ModelError(f"the weights of torchvision:{name} could not be fetched: {cause(error)}") from error


def example(model: nn.Module, name: str) -> Any:
    """Return two random inputs of the model's size: images, clips, image pairs, or a list of images for detectors."""
    shape = input_shape(name)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *shape, generator=generator)
    if name.startswith("raft"):
        return inputs, torch.randn(2, *shape, generator=generator)
    if ".detection." in type(model).__module__:
        return (list(inputs),)
    return inputs


def input_shape(name: str) -> tuple[int, ...]:
    """Return the shape of one input."""
    return next((shape for start, shape in _INPUTS.items() if name.startswith(start)), (3, 224, 224))
