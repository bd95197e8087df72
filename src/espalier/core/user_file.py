"""``path/to/file.py:function``: a function of the user's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import EspalierError, UnknownNameError

_NAME = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")


def is_user_file(name: str) -> bool:
    """Say whether this is the name of a function in a file."""
    return _NAME.fullmatch(name) is not None


def load_function(name: str, error: type[EspalierError]) -> tuple[Callable[..., Any], ModuleType]:
    """Run the file afresh, as a script would (its folder is on the import path), and return the function and the file.

    Raises:
        UnknownNameError: the file has no such function.
        EspalierError: of the kind ``error``: there is no such file, or it does not run.
    """
    match = _NAME.fullmatch(name)
    assert match is not None, name
    module = _import(match["path"], error)
    function = getattr(module, match["function"], None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError("function", match["function"], known, f"It was looked for in {module.__file__}.")
    return function, module


def _import(place: str, error: type[EspalierError]) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise error(f"{place}: no such file")
    spec = spec_from_file_location(f"espalier_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[spec.name] = module  # dataclasses, deep copies and worker processes look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # the user's own code
        del sys.modules[spec.name]
        raise error(f"{place} does not import: {type(problem).__name__}: {problem}") from problem
    return module
