"""``path/to/file.py:function``: a model of the user's own."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from ...core import ModelError
from ...core.user_file import UserFunction, is_user_file

__all__ = ["build", "example", "input_shape", "is_user_file", "takes_classes"]

_EXAMPLE = "example"


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Import the file and call the function, with ``classes=`` if it is given and the function takes it."""
    if pretrained:
        raise ModelError(f"{name}: pretrained weights are the function's own affair; load them there")
    given = {} if classes is None else {"classes": classes}
    model = _parse(name, given).call(given, "classes")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}, not an nn.Module")
    return model


def takes_classes(name: str) -> bool:
    """Say whether the function takes ``classes``, the number of outputs; nothing is run."""
    return "classes" in _parse(name, ("classes",)).arguments()


def example(model: nn.Module, name: str) -> Any:
    """Return what the function ``example()`` in the same file returns."""
    made = _example(name)
    if made is None:
        raise ModelError(
            f"{_parse(name).path} does not say what its model reads: write a function {_EXAMPLE}() there that returns "
            "a tensor, a tuple of positional inputs or a dict of keywords"
        )
    return made


def input_shape(name: str) -> tuple[int, ...] | None:
    """Return the shape of one input as ``example()`` has it, without the batch; None where it is not one tensor."""
    tensors = [leaf for leaf in _pytree.tree_leaves(_example(name)) if isinstance(leaf, Tensor)]
    return tuple(tensors[0].shape[1:]) if len(tensors) == 1 else None


def _example(name: str) -> Any:
    """Return what ``example()`` returns, or None where the file has no such function."""
    found = _parse(name)
    maker = getattr(found.module(), _EXAMPLE, None)
    if not callable(maker):
        return None
    made = found.run(f"{found.path}:{_EXAMPLE}", maker)
    if made is None:
        raise ModelError(f"{found.path}:{_EXAMPLE} returned nothing: it must return what the model reads")
    return made


def _parse(name: str, offered: Iterable[str] = ()) -> UserFunction:
    return UserFunction.parse(name, ModelError, "model", besides=(_EXAMPLE,), offered=offered)
