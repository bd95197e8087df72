"""The front door: models by name, and the whole job in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import zoo

if TYPE_CHECKING:
    from torch import nn


def model(name: str, *, pretrained: bool = False, classes: int | None = None) -> nn.Module:
    """Build a model by name. Nothing is downloaded unless ``pretrained`` is true.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, ``transformers:TYPE`` (an architecture with random weights;
            ``transformers:tiny-TYPE`` is the same in small), ``espalier:NAME``, or ``path/to/file.py:function``.
        pretrained: fetch the published weights of a timm or torchvision model.
        classes: outputs of the classifier; the source's own number when None.

    Raises:
        UnknownNameError: no such source, or no such model in it; the message has the nearest name.
        ModelError: the package that keeps it is not installed, or the model cannot be built.
    """
    return zoo.build(name, pretrained=pretrained, classes=classes)


def default_example(model: nn.Module, name: str) -> Any:
    """Return an input that the named model runs on: random numbers from a fixed seed, batch 2.

    Args:
        model: what ``es.model(name)`` returned, or a cut of it.
        name: the name that it was built by.

    Returns:
        A tensor, a tuple of positional inputs, or a dict of keywords.

    Raises:
        UnknownNameError: no such source.
        ModelError: the source does not say what the model reads.
    """
    return zoo.default_example(model, name)
