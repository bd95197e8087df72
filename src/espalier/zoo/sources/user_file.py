"""``path/to/file.py:function``: a model of the user's own."""

import re
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from espalier.core import ModelError, UnknownNameError, cause

from .outline import builders

_NAME = re.compile(r"(?P<path>.+\.py)(?::(?P<function>.*))?")
_EXAMPLE = "example"


def is_user_file(name: str) -> bool:
    """Say whether this names a Python file, with or without the function in it."""
    return _NAME.fullmatch(name) is not None


def build(name: str, pretrained: bool, classes: int | None) -> nn.Module:
    """Import the file and call the function, with ``classes=`` if it is given and the function takes it."""
    if pretrained:
        raise ModelError(f"{name}: pretrained weights are the function's own affair; load them there")
    module, function = _import(name)
    builder = getattr(module, function, None)
    if not callable(builder):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError("function", function, known, f"It was looked for in {module.__file__}.")
    options = {} if classes is None else {"classes": classes}
    _check_arguments(name, builder, options)
    model = _run(_parse(name)[0], name, lambda: builder(**options))
    if model is None:
        raise ModelError(f"{name} returned nothing: it must return an nn.Module")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}, not an nn.Module")
    return model


def takes_classes(name: str) -> bool:
    """Say whether the function takes ``classes``, the number of outputs; nothing is run."""
    path, function = _parse(name)
    return "classes" in builders(path).get(function, [])


def example(model: nn.Module, name: str) -> Any:
    """Return what the function ``example()`` in the same file returns."""
    made = _example(name)
    if made is None:
        raise ModelError(
            f"{_parse(name)[0]} does not say what its model reads: write a function {_EXAMPLE}() there that returns "
            "a tensor, a tuple of positional inputs or a dict of keywords"
        )
    return made


def input_shape(name: str) -> tuple[int, ...] | None:
    """Return the shape of one input as ``example()`` has it, without the batch; None where it is not one tensor."""
    tensors = [leaf for leaf in _pytree.tree_leaves(_example(name)) if isinstance(leaf, Tensor)]
    return tuple(tensors[0].shape[1:]) if len(tensors) == 1 else None


def _example(name: str) -> Any:
    """Return what ``example()`` returns, or None where the file has no such function."""
    path, _ = _parse(name)
    module, _ = _import(name)
    maker = getattr(module, _EXAMPLE, None)
    if not callable(maker):
        return None
    made = _run(path, f"{path}:{_EXAMPLE}", maker)
    if made is None:
        raise ModelError(f"{path}:{_EXAMPLE} returned nothing: it must return what the model reads")
    return made


def _parse(name: str) -> tuple[Path, str]:
    """Return the file and the name of the function.

    Raises:
        ModelError: there is no such file, or no function is named; the message lists those of the file.
    """
    match = _NAME.fullmatch(name)
    assert match is not None, name
    path, function = Path(match["path"]).expanduser(), match["function"]
    if not path.is_file():
        raise ModelError(f"{match['path']}: no such file")
    if not function or not function.isidentifier():
        found = [f"{match['path']}:{key}" for key in builders(path) if key != _EXAMPLE]
        if not found:
            raise ModelError(f"{path} defines no function: write one that returns the model, then {path}:FUNCTION")
        known = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
        raise ModelError(f"{name} does not say which function of the file gives the model. It has {known}")
    return path, function


def _check_arguments(name: str, builder: Callable, options: dict[str, int]) -> None:
    try:
        expected = signature(builder)
    except (TypeError, ValueError):  # some callables that are not written in Python tell nothing
        return
    if "classes" in options and "classes" not in expected.parameters:
        raise ModelError(f"{name} takes no argument named classes; give it one, or leave classes out")
    try:
        expected.bind(**options)
    except TypeError as error:
        raise ModelError(
            f"{name} needs arguments ({error}), and is called with none but classes where it takes that: "
            "give them defaults, or write a function that calls it"
        ) from error


def _import(name: str) -> tuple[ModuleType, str]:
    """Run the file afresh, as a script would: its folder is on the import path."""
    path, function = _parse(name)
    whole = path.resolve()
    spec = spec_from_file_location(f"espalier_user_{path.stem}", whole)
    assert spec is not None and spec.loader is not None, path
    module = module_from_spec(spec)
    if str(whole.parent) not in sys.path:
        sys.path.append(str(whole.parent))
    sys.modules[spec.name] = module  # dataclasses and deep copies look their module up by name
    loader = spec.loader
    try:
        _run(path, str(path), lambda: loader.exec_module(module), "does not import")
    except ModelError:
        del sys.modules[spec.name]
        raise
    return module, function


def _run(path: Path, what: str, function: Callable[[], Any], failed: str = "failed") -> Any:
    """Call the user's own code.

    Raises:
        ModelError: it raised, or asked Python to exit; with the last line of their file that ran.
    """
    try:
        return function()
    except SystemExit as stop:
        raise ModelError(
            f"{what} asks Python to exit (SystemExit: {stop.code}{_where(path, stop)}): remove that, or put it under "
            "if __name__ == '__main__'"
        ) from stop
    except Exception as error:
        raise ModelError(f"{what} {failed}: {cause(error)}{_where(path, error)}") from error


def _where(path: Path, error: BaseException) -> str:
    whole = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == whole]
    return f" at line {lines[-1]}" if lines else ""
