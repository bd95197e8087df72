"""``path/to/file.py:function``: a model of the user's own."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from espalier.core import ModelError, UnknownNameError

_NAME = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")
_EXAMPLE = "example"


def is_user_file(name: str) -> bool:
    """Say whether this is the name of a function in a file."""
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
    options = {}
    if classes is not None:
        if "classes" not in signature(builder).parameters:
            raise ModelError(f"{name} takes no argument named classes; give it one, or leave classes out")
        options["classes"] = classes
    model = builder(**options)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}, not an nn.Module")
    return model


def example(model: nn.Module, name: str) -> Any:
    """Return what the function ``example()`` in the same file returns."""
    module, _ = _import(name)
    maker = getattr(module, _EXAMPLE, None)
    if not callable(maker):
        raise ModelError(
            f"{module.__file__} does not say what its model reads: write a function {_EXAMPLE}() there that returns "
            "a tensor, a tuple of positional inputs or a dict of keywords"
        )
    return maker()


def _import(name: str) -> tuple[ModuleType, str]:
    """Run the file afresh, as a script would: its folder is on the import path."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    path = Path(match["path"]).expanduser().resolve()
    if not path.is_file():
        raise ModelError(f"{match['path']}: no such file")
    spec = spec_from_file_location(f"espalier_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[spec.name] = module  # dataclasses and deep copies look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        del sys.modules[spec.name]
        raise ModelError(f"{match['path']} does not import: {type(error).__name__}: {error}") from error
    return module, match["function"]
