"""Models by name: ``timm:``, ``torchvision:``, ``transformers:``, ``espalier:``, or ``path/to/file.py:function``.

One source a file, each with ``names() -> full names``, ``build(name, pretrained, classes) -> Module``,
``example(model, name) -> example`` and ``input_shape(name) -> shape or None``.
Adding a source costs a file, a line in ``SOURCES`` and a test.
"""

from contextlib import suppress
from typing import Any

from torch import nn

from ...core import EspalierError, KindError, ModelError, UnknownNameError, cause
from . import house, timm_models, torchvision_models, transformers_models, user_file
from .user_file import is_user_file

__all__ = ["SOURCES", "build", "default_example", "input_shape", "is_user_file", "takes_classes"]

SOURCES = {
    "espalier": house,
    "timm": timm_models,
    "torchvision": torchvision_models,
    "transformers": transformers_models,
}

_HOW = "A model is named SOURCE:NAME, or path/to/file.py:function."


def build(name: str, *, pretrained: bool = False, classes: int | None = None) -> nn.Module:
    """Build a model by name. Nothing is downloaded unless ``pretrained`` is true.

    Args:
        name: ``SOURCE:NAME`` or ``path/to/file.py:function``.
        pretrained: fetch the published weights of a timm or torchvision model.
        classes: outputs of the classifier; the source's own number when None.

    Raises:
        UnknownNameError: no such source, or no such model in it.
        ModelError: the package that keeps it is not installed, or the model cannot be built.
    """
    if classes is not None and classes < 1:
        raise ModelError(f"classes={classes}: a classifier has at least one class")
    source, rest = _split(name)
    try:
        model = source.build(rest, pretrained, classes)
    except EspalierError:
        raise
    except Exception as error:  # whatever a collection or the user's own code raises
        raise ModelError(f"{name} could not be built: {cause(error)}") from error
    if source is not user_file:
        model.espalier_source = name  # pyright: ignore[reportAttributeAccessIssue]  what `save` writes down
    return model


def default_example(model: nn.Module, name: str) -> Any:
    """Return an input that the named model runs on: random numbers from a fixed seed, batch 2.

    Args:
        model: what ``build(name)`` returned, or a cut of it.
        name: the name that it was built by.

    Returns:
        A tensor, a tuple of positional inputs, or a dict of keywords.

    Raises:
        ModelError: the source does not say what the model reads.
        UnknownNameError: no such source.
    """
    source, rest = _split(name)
    return source.example(model, rest)


def input_shape(name: str) -> tuple[int, ...] | None:
    """Return the shape of one input, without the batch, that a model was made for; None where its name does not tell.

    Nothing is built. A file of the user's own tells by its function ``example()``.

    Raises:
        UnknownNameError: no such source, or no such model in it.
        ModelError: the user's file cannot be run.
    """
    source, rest = _split(name)
    return source.input_shape(rest)


def takes_classes(name: str) -> bool:
    """Say whether a model's number of outputs can be asked for; a function of the user's own must have ``classes``."""
    source, rest = _split(name)
    return source is not user_file or user_file.takes_classes(rest)


def _split(name: str) -> tuple[Any, str]:
    """Return the source's module and the model's name in it."""
    if not isinstance(name, str):
        raise KindError(f"a model's name is words, not {type(name).__name__}. {_HOW}")
    if user_file.is_user_file(name):
        return user_file, name
    source, colon, rest = name.partition(":")
    if colon and rest and source in SOURCES:
        return SOURCES[source], rest
    if colon and source in SOURCES:
        raise KindError(f"{name!r} names no model. {_HOW}")
    if colon:
        raise UnknownNameError("model source", source, SOURCES, _HOW)
    raise UnknownNameError("model", name, _candidates(name), _HOW + f" Sources: {', '.join(SOURCES)}.")


def _candidates(name: str) -> list[str]:
    """Return the names that only lack their source, or else every name that an installed source keeps."""
    found: list[str] = []
    for source in SOURCES.values():
        with suppress(ModelError):
            found += source.names()
    return [full for full in found if full.partition(":")[2] == name] or found
